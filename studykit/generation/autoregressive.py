"""Completions generated token by token from one model, or from a mixture of several."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from studykit.generation.decoder import open_decoder
from studykit.generation.sampling import Sampling, draw
from studykit.generation.state import Completions, DecodingState
from studykit.generation.vocabulary import Vocabulary


@torch.no_grad()
def generate(
    models: Sequence[tuple[nn.Module, float]],
    prompts: Sequence[Sequence[int]],
    max_new_tokens: Sequence[int],
    sampling: Sampling,
    generator: torch.Generator,
    vocabulary: Vocabulary,
) -> Completions:
    """Sample an answer to every prompt from a model, or token by token from a mixture of several.

    Args:
        models: each in evaluation mode, with its weight in the mixture; the weights sum to 1.
        prompts: token ids.
        max_new_tokens: maximum number of new tokens of each row.
        sampling: the temperature of every model, and `top_p` of the mixture.
        generator: the only source of randomness, on the CPU.
        vocabulary: end tokens, padding, and the ids that may be drawn.
    """
    state = DecodingState(prompts, max_new_tokens, vocabulary, next(models[0][0].parameters()).device)
    max_columns = state.mask.shape[1] + max(max_new_tokens)
    decoders = [open_decoder(model, vocabulary.vocab_size, max_columns) for model, _ in models]
    weights = [weight for _, weight in models]
    may_drop = all(decoder.supports_rollback for decoder in decoders)
    while state.goes_on(decoders):
        logits = [decoder.forward(state.pending, state.mask)[:, -1] for decoder in decoders]
        drawn = _draw_from_mixture(logits, weights, sampling, generator, state.in_batch)
        state.generated += state.active_count
        state.append(torch.where(state.active, drawn, vocabulary.pad_token_id)[:, None], 1)
        if may_drop and state.half_ended:
            state.drop_ended(decoders)
        state.extend_mask()
    return state.completions()


def _draw_from_mixture(
    logits: list[Tensor], weights: list[float], sampling: Sampling, generator: torch.Generator, in_batch: Tensor
) -> Tensor:
    if len(logits) == 1:
        return sampling.draw(logits[0], generator, in_batch)
    mixture: Any = sum(weight * sampling.distribution(x) for x, weight in zip(logits, weights, strict=True))
    return draw(mixture, sampling.top_p, generator, in_batch)
