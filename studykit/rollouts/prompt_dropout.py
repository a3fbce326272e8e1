"""The data's answers after prompts from which some tokens are dropped: augmentation for a noisy teacher (R2KD).

Differs: the release trains on each image as it is, and again after mixup, CutMix or another augmentation; here only the
prompt with tokens left out is trained on.
"""

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field

from studykit.collate import Batch, make_batch
from studykit.losses import Author
from studykit.rollouts import Rollout, RolloutContext


class PromptDropout(Rollout):
    """Return the batch without some of its unsupervised tokens, each dropped with probability `prompt_dropout`.

    Teacher and student both read what is left. Special tokens are never dropped, so that the chat template stays
    whole; nor are supervised ones.

    Args:
        prompt_dropout: probability that a token is dropped; 0 leaves the batch as it is, for a cached teacher too.

    Source:
        Kim, Ham, Cho, Kim (2024), Robustness-Reinforced Knowledge Distillation with Correlation Distance and Network
        Pruning, whose image augmentation is carried over to prompts.
    """

    def __init__(self, *, prompt_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1):
        self.prompt_dropout = prompt_dropout
        self.keeps_rows = prompt_dropout == 0

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return the batch with shorter prompts."""
        if self.keeps_rows:
            return batch
        special = set(context.tokenizer.all_special_ids)
        rows, loss_masks = [], []
        for ids, mask in zip(batch.input_ids.tolist(), batch.loss_mask.tolist(), strict=True):
            end = len(mask) - mask[::-1].index(True)
            dropped = iter(torch.rand(end - sum(mask), generator=context.generator) < self.prompt_dropout)
            left = [i for i in range(end) if mask[i] or not next(dropped) or ids[i] in special]
            rows.append([ids[i] for i in left])
            loss_masks.append([mask[i] for i in left])
        shorter = make_batch(rows, loss_masks, context.tokenizer.pad_token_id).to(batch.input_ids.device)
        return replace(shorter, author=torch.full_like(shorter.input_ids[:, 0], Author.DATA))
