"""The data's own answers behind prompts with some tokens left out: augmentation for a noisy teacher (R2KD)."""

import torch

from studykit.collate import Batch
from studykit.errors import InputError
from studykit.losses import Author
from studykit.rollouts import Rollout, RolloutContext, padded


class PromptDropout(Rollout):
    """Return the batch with each ordinary token that is not supervised left out with probability `prompt_dropout`.

    Teacher and student both see what is left. Special tokens stay, so that the chat template remains whole.

    Args:
        prompt_dropout: in [0, 1).

    Raises:
        InputError: prompt_dropout out of range.

    Source:
        Kim, Ham, Cho, Kim (2024), Robustness-Reinforced Knowledge Distillation with Correlation Distance and Network
        Pruning, whose image augmentation is carried over to prompts.
    """

    def __init__(self, *, prompt_dropout: float = 0.1):
        if not 0 <= prompt_dropout < 1:
            raise InputError(f"rollout 'prompt_dropout': prompt_dropout must lie in [0, 1), received {prompt_dropout}")
        self.prompt_dropout = prompt_dropout

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return the batch behind shorter prompts."""
        special = set(context.tokenizer.all_special_ids)
        rows, loss_mask = [], []
        for ids, mask in zip(batch.input_ids.tolist(), batch.loss_mask.tolist(), strict=True):
            end = len(mask) - mask[::-1].index(True)
            dropped = iter(torch.rand(end - sum(mask), generator=context.generator) < self.prompt_dropout)
            kept = [i for i in range(end) if mask[i] or not next(dropped) or ids[i] in special]
            rows.append([ids[i] for i in kept])
            loss_mask.append([mask[i] for i in kept])
        return padded(rows, loss_mask, Author.DATA, context.tokenizer.pad_token_id, batch.input_ids.device)
