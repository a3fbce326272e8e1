"""Hidden states of a padded batch, by the model's own forward pass: padded, or packed into one row without the padding.

    packed = choose_packing(model, stage.padding_free)
    hidden = hidden_states(model, batch.input_ids, batch.attention_mask, packed)

In a packed row, positions start again with every sequence. The attention of transformers reads from them which tokens
belong together: flash attention then computes the sequences one by one, other implementations mask everything outside
a token's own sequence. On a CPU that mask costs more than padding does, so only flash attention packs by default.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils.generic import is_flash_attention_requested

from studykit.errors import InputError
from studykit.models import zero

_TRACE = 0.003
"""Rounding changes a state by less than this share of it; an architecture that mixes sequences changes it by more."""


def hidden_states(model: nn.Module, input_ids: Tensor, attention_mask: Tensor, packed: bool = False) -> Tensor:
    """Return the inputs of the output head, [B, T, H], without computing logits.

    A hook on the head records its input and passes zero positions on, so that the projection costs nothing. The model
    runs through whatever wraps it (PEFT, data parallelism).

    Args:
        model: a causal language model, wrapped or not.
        input_ids: int64 [B, T], padded on the right.
        attention_mask: int64 [B, T].
        packed: from `choose_packing`; leave the padding out. States of padding tokens are then zeros.
    """
    if packed:
        return _packed_states(model, input_ids, attention_mask)
    return _head_input(model, {"input_ids": input_ids, "attention_mask": attention_mask})


def choose_packing(model: nn.Module, padding_free: bool | None = None) -> bool:
    """Return whether batches of a model are to be packed into one row without padding.

    Args:
        model: a causal language model, wrapped or not.
        padding_free: pack, or do not; None packs with flash attention, where the architecture allows it.

    Raises:
        InputError: `padding_free` is True, and this architecture lets the sequences of a packed row see each other.
    """
    inner = unwrap(model)
    if padding_free is False or (padding_free is None and not is_flash_attention_requested(inner.config)):
        return False
    separate = _keeps_sequences_apart(inner)
    if padding_free and not separate:
        raise InputError(
            f"padding_free: sequences of one row would see each other in {type(inner).__name__}; leave it out, or set "
            "it to false"
        )
    return separate


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode (no dropout) inside the block."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def autocasting(model: nn.Module, autocast: torch.autocast) -> Iterator[None]:
    """Run all forward passes of a model under `autocast` within the block, but nothing else."""

    def begin(module: nn.Module, arguments: Any) -> None:
        autocast.__enter__()

    def end(module: nn.Module, arguments: Any, output: Any) -> None:
        autocast.__exit__(None, None, None)

    handles = [model.register_forward_pre_hook(begin), model.register_forward_hook(end, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def unwrap(model: Any) -> Any:
    """Return the transformers model inside data-parallel and PEFT wrappers."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _head_input(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    caught: list[Tensor] = []

    def catch(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        caught.append(arguments[0])
        return (arguments[0][:, :0], *arguments[1:])

    handle = unwrap(model).get_output_embeddings().register_forward_pre_hook(catch)
    try:
        output = model(**inputs, use_cache=False)
    finally:
        handle.remove()
    if not caught:
        raise InputError(f"{type(unwrap(model)).__name__} does not call its output head: choose another architecture")
    inner = unwrap(model)
    if getattr(inner, "hf_device_map", None):  # spread over devices: the head's may be another one
        caught[0] = caught[0].to(inner.get_output_embeddings().weight.device)
    if _gathers_again(inner):  # when a gradient reaches its output, so one must
        return caught[0] + output.logits.sum() * 0
    return caught[0]


def _gathers_again(model: Any) -> bool:
    """Whether the weights of a model are divided, and are gathered again for the backward pass."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule) or zero.is_divided(model.get_output_embeddings().weight)


def _packed_states(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    mask, lengths = attention_mask.bool(), attention_mask.sum(dim=1)
    inputs: dict[str, Any] = {
        "input_ids": input_ids[mask][None],
        "position_ids": (attention_mask.cumsum(dim=1) - 1)[mask][None],
    }
    if is_flash_attention_requested(unwrap(model).config):  # or every layer would wait for the device to find out
        bounds = nn.functional.pad(lengths.cumsum(dim=0), (1, 0)).int()
        longest = int(lengths.max())
        inputs |= {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}
    states = _head_input(model, inputs)[0]
    return states.new_zeros(*attention_mask.shape, states.shape[-1]).index_put((mask,), states)


@torch.no_grad()
def _keeps_sequences_apart(model: Any) -> bool:
    """Return whether the first sequence of a packed row leaves no trace in the second.

    Measured on the model, since not every architecture of transformers hands positions to its attention.
    """
    # `_is_stateful` is the only mark that transformers puts on models with a recurrent state.
    if model._is_stateful or "position_ids" not in inspect.signature(type(model).forward).parameters:
        return False
    embeddings = model.get_input_embeddings().weight
    tokens = zero.full_shape(embeddings)[0]
    rows = torch.tensor([[[1, 2, 3, 4], [5, 6, 7, 0]], [[9, 8, 7, 6], [5, 6, 7, 0]]]) % tokens
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    with evaluating(model):
        one, other = (_packed_states(model, ids.to(embeddings.device), mask.to(embeddings.device))[1] for ids in rows)
    return bool((one - other).norm() <= _TRACE * one.norm())
