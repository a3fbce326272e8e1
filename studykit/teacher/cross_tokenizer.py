"""A teacher with another tokenizer: it reads the same conversations in its own tokens and is compared by order alone.

The i-th supervised token of an answer is aligned with the i-th of the same answer in the teacher's tokens; where the
teacher's answer has fewer tokens, the teacher gives nothing. Only losses and rollouts with the flag
`across_tokenizers` accept such a teacher.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import nn

from studykit.chat import Encoded, encode_answers
from studykit.collate import Batch, collate
from studykit.generation import Completions, Sampling
from studykit.generation.cost import Cost
from studykit.generation.vllm import Vllm
from studykit.models.projection import output_head
from studykit.models.states import choose_packing, hidden_states
from studykit.models.vocabulary import token_rows
from studykit.sources import Example
from studykit.teacher.live import Progress, count_tokens, generate_with
from studykit.teacher.signal import TeacherSignal

_TOKENS_PER_TOKEN = 4
"""The teacher's tokens may be shorter than the student's: an answer may have this many times the student's limit."""


class CrossTokenizerTeacher:
    """A live model that reads and generates in its own tokens.

    Args:
        model: in evaluation mode, without gradients.
        tokenizer: the teacher's.
        student_tokenizer: the student's.
        engine: generates instead of the model, with the same weights.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, student_tokenizer: Any, engine: Vllm | None = None):
        self.model, self.tokenizer, self.student_tokenizer, self.engine = model, tokenizer, student_tokenizer, engine
        self.head = output_head(model)
        self.vocab_size = token_rows(student_tokenizer)
        self.rows = min(token_rows(tokenizer), self.head.weight.shape[0])
        self.packed = choose_packing(model)
        self.cost = Cost(teacher_tokens=0, teacher_padding_tokens=0)
        self._encoded: Encoded | None = None
        self._examples: Sequence[Example] = ()
        self._index: dict[str, int] = {}

    def pair(self, examples: Sequence[Example], student: Encoded, teacher: Encoded) -> None:
        """Take examples, and the same in the same order in the student's and in the teacher's tokens."""
        self._examples, self._encoded = examples, teacher
        self._index = {student.key_of(i): i for i in range(len(student))}

    def pack_batches(self, padding_free: bool | None) -> None:
        """Choose whether batches are packed into one row without padding; None: with flash attention."""
        self.packed = choose_packing(self.model, padding_free)

    def prepare(self, encoded: Encoded, progress: Progress | None = None) -> None:
        """Do nothing: a live teacher computes each signal when it is needed."""

    def release(self) -> None:
        """Do nothing: the signals need the model."""

    def _collate(self, keys: list[str]) -> Batch:
        """Return the sequences of these keys as a batch in the teacher's tokens."""
        if self._encoded is None:
            raise ValueError("a teacher with another tokenizer must be paired with the student's sequences first")
        return collate(self._encoded, [self._index[key] for key in keys], self.tokenizer.pad_token_id)

    @torch.no_grad()
    def signal(self, batch: Batch) -> TeacherSignal:
        """Run the teacher over the same conversations in its own tokens."""
        own = self._collate(batch.keys).to(self.head.weight.device)
        self.cost.add(**count_tokens(own, self.packed))
        predicting = own.predicting(hidden_states(self.model, own.input_ids, own.attention_mask, self.packed))
        aligned = _align(batch.loss_mask.cpu().numpy(), own.loss_mask.cpu().numpy())
        known = torch.from_numpy(aligned >= 0).to(predicting.device)
        chosen = predicting[torch.from_numpy(aligned.clip(0))]
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
        """Generate answers to the prompts of some rows, and return their texts in the student's tokens."""
        prompts = self._collate([batch.keys[row] for row in rows]).prompts()
        own_limits = [limit * _TOKENS_PER_TOKEN for limit in max_new_tokens]
        own = generate_with(self, prompts, own_limits, sampling, generator, self.rows)
        texts = self.tokenizer.batch_decode(own.tokens, skip_special_tokens=True)
        answered = [self._examples[self._index[batch.keys[row]]] for row in rows]
        answers = encode_answers(answered, [text.strip() for text in texts], self.student_tokenizer)
        whole = [answer if ended else answer[:-1] for answer, ended in zip(answers, own.ended, strict=True)]
        tokens = [answer[:limit] for answer, limit in zip(whole, max_new_tokens, strict=True)]
        complete = [
            ended and len(row) == len(every) for ended, row, every in zip(own.ended, tokens, whole, strict=True)
        ]
        return Completions(tokens, complete, own.generated_tokens, own.scored_tokens)


def _align(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Return the index of the teacher's supervised token for each of the student's, int64 [N]; -1 where there is none.

    The answers of a conversation are aligned one by one, each from its first token.

    Args:
        student: bool [B, T], the loss mask of the student's sequences.
        teacher: bool [B, U], that of the same conversations in the teacher's tokens.

    >>> _align(np.array([[0, 1, 1, 1, 0, 1]], dtype=bool), np.array([[0, 0, 1, 1, 0, 1]], dtype=bool))
    array([ 0,  1, -1,  2])
    """
    aligned, start = [], 0
    for ours, theirs in zip(student, teacher, strict=True):
        answers = _answer_lengths(theirs)
        starts = start + np.cumsum([0, *answers])
        for i, length in enumerate(_answer_lengths(ours)):
            count = answers[i] if i < len(answers) else 0
            aligned += [int(starts[i]) + k if k < count else -1 for k in range(length)]
        start = int(starts[-1])
    return np.array(aligned, dtype=np.int64)


def _answer_lengths(mask: np.ndarray) -> list[int]:
    """Return the length of every run of supervised tokens; the first token of a sequence is not counted.

    >>> _answer_lengths(np.array([True, True, True, False, True]))
    [2, 1]
    """
    runs = [(supervised, list(positions)) for supervised, positions in groupby(range(len(mask)), key=lambda i: mask[i])]
    return [len(positions) - (positions[0] == 0) for supervised, positions in runs if supervised]
