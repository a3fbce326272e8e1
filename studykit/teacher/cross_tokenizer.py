"""A teacher with another tokenizer: it reads the same conversations in its own tokens, and is compared by order alone.

The i-th supervised token of an answer is set beside the i-th of the same answer in the teacher's tokens; where the
teacher's answer has fewer, nothing is known. Only losses and rollouts that say so work across tokenizers.
"""

from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import nn

from studykit.chat import Encoded
from studykit.collate import Batch, collate
from studykit.generation import Completions, Sampling
from studykit.generation.vllm import Vllm
from studykit.models.projection import output_head
from studykit.models.states import hidden_states
from studykit.models.vocabulary import token_rows
from studykit.teacher.live import generate_with
from studykit.teacher.signal import TeacherSignal


class CrossTokenizerTeacher:
    """A live model that is asked in its own tokens.

    Args:
        model: in evaluation mode, without gradients.
        tokenizer: the teacher's.
        student_tokenizer: the student's.
        engine: writes the answers instead of the model, with the same weights.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, student_tokenizer: Any, engine: Vllm | None = None):
        self.model, self.tokenizer, self.student_tokenizer, self.engine = model, tokenizer, student_tokenizer, engine
        self.head = output_head(model)
        self.vocab_size = token_rows(student_tokenizer)
        self.rows = min(token_rows(tokenizer), self.head.weight.shape[0])
        self.cost: dict[str, float] = {"teacher_tokens": 0}
        self._own: Encoded | None = None
        self._place: dict[str, int] = {}

    def pair(self, student: Encoded, teacher: Encoded) -> None:
        """Learn which sequence of the student's is which of the teacher's: the same examples in the same order."""
        self._own = teacher
        self._place = {student.key_of(i): i for i in range(len(student))}

    def prepare(self, encoded: Encoded) -> None:
        """Nothing to do: a live teacher answers when asked."""

    def release(self) -> None:
        """Nothing to free: its model gives the signals."""

    def _read(self, keys: list[str]) -> Batch:
        if self._own is None:
            raise ValueError("a teacher with another tokenizer must be paired with the student's sequences first")
        return collate(self._own, [self._place[key] for key in keys], self.tokenizer.pad_token_id)

    @torch.no_grad()
    def signal(self, batch: Batch) -> TeacherSignal:
        """Run the teacher over the same conversations in its own tokens."""
        own = self._read(batch.keys).to(self.head.weight.device)
        self.cost["teacher_tokens"] += int(own.attention_mask.sum())
        predicting = own.predicting(hidden_states(self.model, own.input_ids, own.attention_mask))
        beside = _align(batch.loss_mask.cpu().numpy(), own.loss_mask.cpu().numpy())
        known = torch.from_numpy(beside >= 0).to(predicting.device)
        chosen = predicting[torch.from_numpy(beside.clip(0))]
        weight, bias = self.head.weight[: self.rows], self.head.bias
        return TeacherSignal.from_other_vocabulary(
            chosen,
            weight,
            None if bias is None else bias[: self.rows],
            known,
            logit_scale=self.head.logit_scale,
            softcap=self.head.softcap,
        )

    def generate(
        self, batch: Batch, rows: list[int], max_new_tokens: list[int], sampling: Sampling, generator: torch.Generator
    ) -> Completions:
        """Generate answers to the prompts of some rows and put them into the student's tokens."""
        own = self._read([batch.keys[row] for row in rows])
        longer = [limit * 4 for limit in max_new_tokens]  # the teacher's tokens may be shorter
        made = generate_with(self, own.prompts(), longer, sampling, generator, self.rows)
        texts = self.tokenizer.batch_decode(made.tokens, skip_special_tokens=True)
        end = self.student_tokenizer.eos_token_id
        tokens = [
            (self.student_tokenizer(text.strip(), add_special_tokens=False)["input_ids"] + [end] * ended)[:limit]
            for text, ended, limit in zip(texts, made.ended, max_new_tokens, strict=True)
        ]
        whole = [ended and row[-1:] == [end] for ended, row in zip(made.ended, tokens, strict=True)]
        return Completions(tokens, whole, made.generated_tokens, made.scored_tokens)


def _align(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Return which of the teacher's supervised tokens stands beside each of the student's, int64 [N]; -1 for none.

    The answers of a conversation are aligned one by one, each from its first token.

    Args:
        student: bool [B, T], the loss mask of the student's sequences.
        teacher: bool [B, U], that of the same conversations in the teacher's tokens.

    >>> _align(np.array([[0, 1, 1, 1, 0, 1]], dtype=bool), np.array([[0, 0, 1, 1, 0, 1]], dtype=bool))
    array([ 0,  1, -1,  2])
    """
    beside, start = [], 0
    for ours, theirs in zip(student, teacher, strict=True):
        answers = _answer_lengths(theirs)
        starts = start + np.cumsum([0, *answers])
        for i, length in enumerate(_answer_lengths(ours)):
            count = answers[i] if i < len(answers) else 0
            beside += [int(starts[i]) + k if k < count else -1 for k in range(length)]
        start = int(starts[-1])
    return np.array(beside, dtype=np.int64)


def _answer_lengths(mask: np.ndarray) -> list[int]:
    """Return the length of every run of supervised tokens; the first token of a sequence is not counted.

    >>> _answer_lengths(np.array([True, True, True, False, True]))
    [2, 1]
    """
    runs = [(supervised, list(positions)) for supervised, positions in groupby(range(len(mask)), key=lambda i: mask[i])]
    return [len(positions) - (positions[0] == 0) for supervised, positions in runs if supervised]
