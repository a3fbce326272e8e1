"""What a model can take, known from its configuration before any weight is loaded."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
import transformers
from torch import nn

from studykit.errors import InputError
from studykit.models.loading import architecture
from studykit.models.names import ModelRef

_POSITIONS = re.compile(r"wpe|pos", re.IGNORECASE)
_TRIED = 4
"""Tokens that any model can take, to see whether a copy without weights runs at all."""


@dataclass(frozen=True)
class Limits:
    """What a model can take.

    Attributes:
        embedding_rows: token ids must be smaller.
        positions: tokens of a sequence at most, where each has a row in a table; None where positions are computed.
        usual_positions: tokens of a sequence that the configuration names; longer ones may be read, and worse.
        has_kv_cache: whether generation can keep keys and values; without, every token reads the whole row again.
        parameters: number of all parameters, those of a tied head once.
    """

    embedding_rows: int
    positions: int | None
    usual_positions: int | None
    has_kv_cache: bool
    parameters: int = field(default=0, compare=False)


_KNOWN: dict[tuple[type, str, int], Limits] = {}
"""Limits by class, configuration and longest sequence: a comparison asks for those of few models many times."""


def limits_of(model: ModelRef, random_config: dict[str, Any] | None = None, longest: int = 0) -> Limits:
    """Return the limits of a model, from a copy without weights.

    Args:
        model: as found by its name.
        random_config: the architecture, where `model` gives the tokenizer alone.
        longest: tokens of the longest sequence; where the configuration names fewer, it is tried on the copy.

    Raises:
        InputError: no configuration there, or one of no causal language model.
    """
    try:
        config = (
            architecture(random_config)
            if random_config
            else transformers.AutoConfig.from_pretrained(
                model.weights.path, revision=model.weights.revision, trust_remote_code=False
            )
        )
        key = type(config), config.to_json_string(use_diff=False), longest
        if key in _KNOWN:
            return _KNOWN[key]
        with torch.device("meta"):
            empty: Any = transformers.AutoModelForCausalLM.from_config(config)
    except InputError:
        raise
    except Exception as error:  # a configuration may be wrong in any way
        raise InputError(f"cannot load model {model.name!r}: {str(error).splitlines()[0]}") from None
    usual = _usual_positions(config.get_text_config())
    positions = min(_tables(empty, usual), default=None)
    if positions is None and usual is not None and longest > usual and _runs(empty, _TRIED):
        positions = None if _runs(empty, longest) else usual
    rows, parameters = empty.get_input_embeddings().num_embeddings, sum(p.numel() for p in empty.parameters())
    _KNOWN[key] = Limits(rows, positions, usual, takes_kv_cache(empty), parameters)
    return _KNOWN[key]


def _usual_positions(config: Any) -> int | None:
    names = ("max_position_embeddings", "max_seq_len")
    return next((value for name in names if isinstance(value := getattr(config, name, None), int)), None)


def _tables(model: Any, usual: int | None) -> Iterator[int]:
    """Yield the positions that tables of a model have rows for: learned ones, and those that are computed once."""
    for table in _learned_tables(model):
        unused = 0 if table.padding_idx is None else table.padding_idx + 1  # RoBERTa counts from there
        yield table.num_embeddings - max(unused, getattr(table, "offset", 0))
    for name, buffer in model.named_buffers():
        if usual is not None and _POSITIONS.search(name) and buffer.dim() == 2 and buffer.shape[0] == usual:
            yield usual


def _learned_tables(model: Any) -> list[Any]:
    tokens = model.get_input_embeddings()
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and module is not tokens and _POSITIONS.search(name)
    ]


@torch.no_grad()
def _runs(model: Any, length: int) -> bool:
    """Return whether a copy without weights runs over a sequence of that length."""
    try:
        model(input_ids=torch.zeros(1, length, dtype=torch.int64, device="meta"), use_cache=False)
    except Exception:  # whatever an architecture raises
        return False
    return True


def takes_kv_cache(model: Any) -> bool:
    """Return whether the forward pass can keep keys and values of rows that are padded on the left.

    Decoders of the BART family take positions from columns, padding included; those of RoBERTa count them from the id
    of the padding token on.
    """
    takes = signature(model.forward).parameters.keys()
    if not {"past_key_values", "logits_to_keep"} <= takes:
        return False
    tables = _learned_tables(model)
    return not tables or ("position_ids" in takes and all(table.padding_idx is None for table in tables))
