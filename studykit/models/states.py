"""Hidden states of a padded batch, by the model's own forward: padded, or as one row without the padding.

In such a row positions start again with every sequence, and the attention of transformers reads from them which tokens
belong together: flash attention then takes the sequences one by one, others get a mask of blocks over the whole row.
On a CPU that mask costs more than padding does, so that unasked only flash attention goes this way.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers.utils.generic import is_flash_attention_requested

from studykit.errors import InputError

_TRACE = 0.003
"""Rounding changes a state by less than this share of it; an architecture that mixes sequences changes it by more."""


def hidden_states(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return what enters the output head, [B, T, H], by the model's own forward and without making logits.

    A hook on the head takes its input and hands it on with no rows, so the projection costs nothing; every wrapper
    (PEFT, data parallel) runs as it always does. Without padding (`set_padding_free`) the states of padding are zeros.

    Raises:
        InputError: padding-free was asked for, and sequences of this architecture would see each other.
    """
    if _goes_packed(unwrap(model)):
        return _packed_states(model, input_ids, attention_mask)
    return _head_input(model, {"input_ids": input_ids, "attention_mask": attention_mask})


def set_padding_free(model: nn.Module, asked: bool | None) -> None:
    """Decide whether padding is left out of a model's forward passes from now on; None: on flash attention."""
    unwrap(model).padding_free = asked


def count_padding(model: nn.Module, attention_mask: Tensor) -> int:
    """Return how many padding tokens of a batch go through the layers of a model."""
    return 0 if _goes_packed(unwrap(model)) else int((attention_mask == 0).sum())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


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
        made = model(**inputs, use_cache=False)
    finally:
        handle.remove()
    if isinstance(model, FSDPModule):  # it gathers its shards again when a gradient reaches its output, so one must
        return caught[0] + made.logits.sum() * 0
    return caught[0]


def _packed_states(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    kept, lengths = attention_mask.bool(), attention_mask.sum(dim=1)
    inputs: dict[str, Any] = {
        "input_ids": input_ids[kept][None],
        "position_ids": (attention_mask.cumsum(dim=1) - 1)[kept][None],
    }
    if is_flash_attention_requested(unwrap(model).config):  # or every layer would wait for the device to find out
        bounds = nn.functional.pad(lengths.cumsum(dim=0), (1, 0)).int()
        longest = int(lengths.max())
        inputs |= {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}
    states = _head_input(model, inputs)[0]
    return states.new_zeros(*attention_mask.shape, states.shape[-1]).index_put((kept,), states)


def _goes_packed(model: Any) -> bool:
    asked = getattr(model, "padding_free", None)
    if asked is False or (asked is None and not is_flash_attention_requested(model.config)):
        return False
    if not hasattr(model, "keeps_apart"):
        model.keeps_apart = _keeps_apart(model)
    if asked and not model.keeps_apart:
        raise InputError(
            f"padding_free: sequences of one row would see each other in {type(model).__name__}; leave it out, or set "
            "it to false"
        )
    return model.keeps_apart


@torch.no_grad()
def _keeps_apart(model: Any) -> bool:
    """Whether what comes first in a packed row leaves no trace in what follows; asked of the model, since not all of
    transformers hands positions to its attention."""
    if model._is_stateful or "position_ids" not in inspect.signature(type(model).forward).parameters:
        return False
    embeddings = model.get_input_embeddings().weight
    rows = torch.tensor([[[1, 2, 3, 4], [5, 6, 7, 0]], [[9, 8, 7, 6], [5, 6, 7, 0]]]) % len(embeddings)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    with evaluating(model):
        one, other = (_packed_states(model, ids.to(embeddings.device), mask.to(embeddings.device))[1] for ids in rows)
    return bool((one - other).norm() <= _TRACE * one.norm())
