"""Refuse a model that would generate other answers with its key-value cache than it is trained to give."""

from typing import Any

from torch import nn

from studykit.errors import InputError
from studykit.generation.decoder import CachedDecoder, compare_decoders, open_decoder
from studykit.models.probe import TOLERANCE, one_line_errors
from studykit.models.states import evaluating, unwrap
from studykit.models.unchanged import unchanged


def probe_generation(model: nn.Module, name: str, vocab_size: int) -> None:
    """Compare the logits of two prompts and a few tokens after them, read with a cache, with those of whole rows.

    Greedy tokens are those of the same logits. A decoder that reads whole rows anyway has nothing to compare.

    Args:
        model: a causal language model, wrapped or not.
        name: of the model, for the message.
        vocab_size: ids from here on belong to no token.

    Raises:
        InputError: it cannot be run, or its logits differ.
    """
    what = f"model {name!r} ({type(unwrap(model)).__name__})"
    with one_line_errors(f"{what} cannot generate"), unchanged(model), evaluating(model):
        decoder: Any = open_decoder(model, vocab_size, 1)
        if not isinstance(decoder, CachedDecoder):
            return
        cached, whole = compare_decoders(model, vocab_size)
    error, largest = (cached - whole).abs().max(), whole.abs().max()
    if not error <= TOLERANCE * largest:
        raise InputError(
            f"{what} generates other tokens with its key-value cache than without: the logits differ by "
            f"{float(error):.3g} of {float(largest):.3g}; choose another architecture, or a method on the data's own "
            "answers and scorers=['nll']"
        )
