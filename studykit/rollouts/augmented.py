"""The data's own answers behind prompts with some tokens left out: augmentation for a noisy teacher (R2KD)."""

import torch

from studykit.batches import DATA, Batch
from studykit.errors import InputError
from studykit.rollouts import Rollout, RolloutContext, answered


class Augmented(Rollout):
    """Return the batch with each ordinary token of the prompts left out with probability `prompt_dropout`.

    Teacher and student both see what is left. Special tokens stay, so that the chat template remains whole.

    Args:
        prompt_dropout: in [0, 1).

    Raises:
        InputError: prompt_dropout out of range; later, data without prompts.

    Source:
        Kim, Ham, Cho, Kim (2024), Robustness-Reinforced Knowledge Distillation with Correlation Distance and Network
        Pruning, whose image augmentation is carried over to prompts.
    """

    def __init__(self, *, prompt_dropout: float = 0.1):
        if not 0 <= prompt_dropout < 1:
            raise InputError(f"rollout 'augmented': prompt_dropout must lie in [0, 1), received {prompt_dropout}")
        self.prompt_dropout = prompt_dropout

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return the batch behind shorter prompts."""
        special = set(context.tokenizer.all_special_ids)
        lengths = batch.attention_mask.sum(dim=1).tolist()
        prompts, answers = [], []
        for prompt, ids, length in zip(batch.prompts(), batch.input_ids.tolist(), lengths, strict=True):
            stays = (torch.rand(len(prompt), generator=context.generator) >= self.prompt_dropout).tolist()
            prompts.append([token for token, kept in zip(prompt, stays, strict=True) if kept or token in special])
            answers.append(ids[len(prompt) : length])
        return answered(batch, prompts, answers, DATA, context.tokenizer.pad_token_id)
