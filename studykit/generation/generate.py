"""Answers sampled token by token from one model, or from a mixture of several."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from studykit.generation.decoder import Answers, Decoder, Rows, left_padded, without_ended
from studykit.generation.sampling import Sampling, draw


@torch.no_grad()
def sample(
    models: Sequence[tuple[nn.Module, float]],
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    sampling: Sampling,
    generator: torch.Generator,
    *,
    ends: Sequence[int],
    pad: int,
    vocabulary: int,
) -> Answers:
    """Sample from a model, or token by token from a mixture of several.

    Args:
        models: each with its share of the mixture; shares sum to 1.
        prompts: token ids.
        limits: most new tokens of each row.
        sampling: temperature of every model, and `top_p` of the mixture.
        generator: the only source of randomness, on the CPU.
        ends: tokens that end an answer.
        pad: the padding token.
        vocabulary: rows that may be drawn.
    """
    tokens, mask = left_padded(prompts, pad, next(models[0][0].parameters()).device)
    decoders = [Decoder(model, vocabulary, mask.shape[1] + max(limits)) for model, _ in models]
    may_drop = all(decoder.can_move for decoder in decoders)
    rows = Rows(limits, ends, tokens.device)
    while rows.count:
        made = [decoder.feed(tokens, mask)[:, -1] for decoder in decoders]
        if len(made) == 1:
            drawn = sampling.draw(made[0], generator, rows.here)
        else:
            mixture: Any = 0
            for logits, (_, share) in zip(made, models, strict=True):
                mixture = mixture + share * sampling.distribution(logits)
            drawn = draw(mixture, sampling.top_p, generator, rows.here)
        rows.generated += rows.count
        tokens = torch.where(rows.live, drawn, pad)[:, None]
        rows.take(tokens, 1)
        if may_drop and rows.half_ended:
            mask, tokens = without_ended(rows, mask, tokens, decoders)
        mask = torch.cat([mask, rows.live[:, None]], dim=1)
    return rows.answers([decoder.read for decoder in decoders])
