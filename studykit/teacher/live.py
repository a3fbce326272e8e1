"""The live teacher: one forward pass per batch, in evaluation mode, without gradients."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import nn

from studykit.chat import Encoded, reasoning_end, without_reasoning
from studykit.collate import Batch
from studykit.generation import Completions, Sampling, Vocabulary, generate
from studykit.generation.cost import Cost
from studykit.generation.vllm import Vllm
from studykit.models.projection import OutputHead, output_head
from studykit.models.states import choose_packing, hidden_states
from studykit.teacher.signal import TeacherSignal

Progress = Callable[[int, int], None]
"""Called with the number of positions captured and the number that were missing."""


class LiveTeacher:
    """A model that gives its full distribution for every batch; only hidden states are held in memory.

    Args:
        model: in evaluation mode, without gradients.
        tokenizer: the teacher's, which is the student's too.
        vocab_size: rows that student and teacher share.
        engine: generates instead of the model, with the same weights.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, vocab_size: int, engine: Vllm | None = None):
        self.model, self.tokenizer, self.engine = model, tokenizer, engine
        self.head = output_head(model)
        self.vocab_size = min(vocab_size, self.head.weight.shape[0])
        self.packed = choose_packing(model)
        self.cost = Cost(teacher_tokens=0, teacher_padding_tokens=0)

    def pack_batches(self, padding_free: bool | None) -> None:
        """Choose whether batches are packed into one row without padding; None: with flash attention."""
        self.packed = choose_packing(self.model, padding_free)

    def prepare(self, encoded: Encoded, progress: Progress | None = None) -> None:
        """Do nothing: a live teacher computes each signal when it is needed."""

    def release(self) -> None:
        """Do nothing: the signals need the model."""

    @torch.no_grad()
    def signal(self, batch: Batch) -> TeacherSignal:
        """Run the teacher over a batch, and return its signal at the supervised positions."""
        self.cost.add(**count_tokens(batch, self.packed))
        batch = batch.to(self.head.weight.device)
        hidden = batch.predicting(hidden_states(self.model, batch.input_ids, batch.attention_mask, self.packed))
        return TeacherSignal.from_hidden(
            hidden, self.head.weight, self.head.bias, logit_scale=self.head.logit_scale, softcap=self.head.softcap
        )

    def generate(
        self, batch: Batch, rows: list[int], max_new_tokens: list[int], sampling: Sampling, generator: torch.Generator
    ) -> Completions:
        """Generate answers to the prompts of some rows."""
        prompts = batch.prompts()
        chosen = [prompts[row] for row in rows]
        return generate_with(self, chosen, max_new_tokens, sampling, generator, self.vocab_size)


def count_tokens(batch: Batch, packed: bool) -> dict[str, float]:
    """Return what a teacher's forward pass over a batch computes: tokens, and padding."""
    tokens = int(batch.attention_mask.sum())
    padding = 0 if packed else batch.attention_mask.numel() - tokens
    return {"teacher_tokens": tokens, "teacher_padding_tokens": padding}


class _Generator(Protocol):
    model: Any
    tokenizer: Any
    engine: Vllm | None
    head: OutputHead


def generate_with(
    teacher: _Generator,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: Sequence[int],
    sampling: Sampling,
    generator: torch.Generator,
    vocab_size: int,
) -> Completions:
    """Return a teacher's answers to prompts in its own tokens, without their reasoning; by its engine if it has one."""
    vocabulary = Vocabulary.of(teacher.model, teacher.tokenizer, vocab_size)
    if teacher.engine is not None:
        rows = teacher.head.weight.shape[0]
        made = teacher.engine.generate(prompts, max_new_tokens, sampling, generator, vocabulary, rows)
    else:
        made = generate([(teacher.model, 1.0)], prompts, max_new_tokens, sampling, generator, vocabulary)
    end = reasoning_end(teacher.tokenizer)
    tokens = [without_reasoning(row, end, teacher.tokenizer) for row in made.tokens]
    return replace(
        made, tokens=tokens, ended=[bool(row) and done for row, done in zip(tokens, made.ended, strict=True)]
    )
