"""Completions sampled token by token from one model, or from a mixture of several."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from studykit.generation.decoder import Completions, Decoder, DecodingState, drop_ended_rows, pad_left
from studykit.generation.sampling import Sampling, draw


@torch.no_grad()
def sample(
    models: Sequence[tuple[nn.Module, float]],
    prompts: Sequence[Sequence[int]],
    max_new_tokens: Sequence[int],
    sampling: Sampling,
    generator: torch.Generator,
    *,
    eos_token_ids: Sequence[int],
    pad_token_id: int,
    vocab_size: int,
) -> Completions:
    """Sample from a model, or token by token from a mixture of several.

    Args:
        models: each with its share of the mixture; shares sum to 1.
        prompts: token ids.
        max_new_tokens: most new tokens of each row.
        sampling: temperature of every model, and `top_p` of the mixture.
        generator: the only source of randomness, on the CPU.
        eos_token_ids: tokens that end an answer.
        pad_token_id: the padding token.
        vocab_size: rows that may be drawn.
    """
    tokens, mask = pad_left(prompts, pad_token_id, next(models[0][0].parameters()).device)
    decoders = [Decoder(model, vocab_size, mask.shape[1] + max(max_new_tokens)) for model, _ in models]
    may_drop = all(decoder.can_move for decoder in decoders)
    rows = DecodingState(max_new_tokens, eos_token_ids, tokens.device)
    while rows.count:
        made = [decoder.forward(tokens, mask)[:, -1] for decoder in decoders]
        if len(made) == 1:
            drawn = sampling.draw(made[0], generator, rows.here)
        else:
            mixture: Any = 0
            for logits, (_, share) in zip(made, models, strict=True):
                mixture = mixture + share * sampling.distribution(logits)
            drawn = draw(mixture, sampling.top_p, generator, rows.here)
        rows.generated += rows.count
        tokens = torch.where(rows.live, drawn, pad_token_id)[:, None]
        rows.take(tokens, 1)
        if may_drop and rows.half_ended:
            mask, tokens = drop_ended_rows(rows, mask, tokens, decoders)
        mask = torch.cat([mask, rows.live[:, None]], dim=1)
    return rows.answers([decoder.read for decoder in decoders])
