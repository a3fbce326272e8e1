"""Run a model on a few tokens after it is loaded, and refuse one on which a loss would be wrong without an error.

Architectures scale, cap or shift their logits, mask padding or look ahead in ways that no list of names covers for
long. So every model is compared with itself once: its logits with those that the kit computes from hidden states, and a
text with the same text that is padded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.utils.generic import is_flash_attention_requested

from studykit.errors import InputError, one_line
from studykit.models.projection import output_head, project
from studykit.models.states import evaluating, hidden_states, unwrap
from studykit.models.unchanged import unchanged

_TOKENS, _SHORTER = 8, 5
TOLERANCE = 0.02
"""Of the largest logit: more than bf16 rounds, less than any factor, cap or mask changes."""


def probe(model: Any, name: str) -> None:
    """Compare the logits of a few tokens with those of the model's own forward pass, alone and beside a padded row.

    Args:
        model: a causal language model, wrapped or not.
        name: of the model, for the message.

    Raises:
        InputError: it cannot be run; it makes other logits of its hidden states than a linear head, a factor and a
            cap; or its logits depend on later tokens or on padding.
    """
    inner = unwrap(model)
    if is_flash_attention_requested(inner.config) and inner.dtype == torch.float32:
        return  # it runs under autocast only, which training turns on
    what = f"model {name!r} ({type(inner).__name__})"
    with one_line_errors(f"{what} cannot be run on a few tokens"), unchanged(model), evaluating(model):
        wanted, logits, shorter = _logits(model)
    error, largest = (logits - wanted).abs().max(), wanted.abs().max()
    if not torch.isfinite(largest):
        raise InputError(f"{what} gives logits of {float(largest)} on a few tokens: its weights are damaged")
    if not error <= TOLERANCE * largest:
        raise InputError(
            f"{what} makes its logits in a way that is not supported: they differ by {float(error):.3g} of "
            f"{float(largest):.3g} from those of its output head; choose another architecture"
        )
    error = (shorter - logits[:_SHORTER]).abs().max()
    if not error <= TOLERANCE * largest:
        raise InputError(
            f"{what} sees tokens that come later, or padding: with other ones its logits differ by {float(error):.3g} "
            f"of {float(largest):.3g}; set is_decoder to true in its configuration where that is false, or choose a "
            "causal language model"
        )


@torch.no_grad()
def _logits(model: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return the model's own logits of a text, the kit's, and the kit's of its beginning, padded; each [T, V]."""
    head = output_head(model)
    ids = (torch.arange(1, _TOKENS + 1, device=head.weight.device) * 7 % len(head.weight)).repeat(2, 1)
    mask = torch.ones_like(ids)
    ids[1, _SHORTER:], mask[1, _SHORTER:] = unwrap(model).config.get_text_config().pad_token_id or 0, 0
    wanted = model(input_ids=ids[:1], attention_mask=mask[:1], use_cache=False).logits.float()[0]
    states = hidden_states(model, ids, mask)
    logits = project(states, head.weight, head.bias, head.logit_scale, head.softcap)
    return wanted, logits[0], logits[1, :_SHORTER]


@contextmanager
def one_line_errors(what: str) -> Iterator[None]:
    """Turn whatever a library raises in the block into an error of one line.

    Raises:
        InputError: the line.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a model may fail in any way
        raise InputError(f"{what}: {one_line(error)}") from error
