"""Answers that a teacher writes to the prompts of another source, kept on disk and shared by all runs that use them.

    {"source": "synthetic", "options": {
        "prompts": {"source": "jsonl", "options": {"path": "data/{split}.jsonl"}, "budget": {"examples": 5000}},
        "teacher": "Qwen/Qwen2.5-7B-Instruct", "temperature": 0.7}}

The prompts are data as a stage has it: source, options, split, filters and budget. Each example has the id of its
prompt, and the teacher as its annotator. The answers are in the cache's folder `synthetic`, beside them a line on each:
how it was sampled, and whether it was kept or which filter dropped it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from studykit.errors import InputError
from studykit.sources import Example, Writer, Writing, Written

Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """Prompts with the answers of a teacher that pass the filters.

    Args:
        prompts: source, options, filters and budget of the prompts.
        teacher: the model that answers, by name.
        few_shot: number of other prompts that the teacher is shown first, with their answers.
        temperature: of sampling; 0 takes the likeliest token at every position.
        top_p: the smallest set of likeliest tokens with this probability is sampled from.
        seed: of sampling, and of the choice of what is shown.
        max_new_tokens: maximum number of tokens of an answer.
        keep_cut: keep answers that have not ended by then.
        min_tokens: of an answer, by the teacher.
        max_tokens: of an answer, by the teacher; None for no limit.
        drop_duplicates: keep the first of the same prompts with the same answer.
        min_logp: least mean log-probability of an answer's tokens under the teacher, nats; None for no limit.
    """

    prompts: dict[str, Any]
    teacher: str
    few_shot: Annotated[int, Field(ge=0)] = 0
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    max_new_tokens: Positive = 256
    keep_cut: bool = False
    min_tokens: Positive = 1
    max_tokens: Positive | None = None
    drop_duplicates: bool = True
    min_logp: float | None = None

    def __call__(self, split: str, writer: Writer) -> list[Example]:
        """Return the prompts with the answers that are kept.

        Args:
            split: of the prompts, where these name none.
            writer: looks up the prompts, writes the answers and keeps them.

        Raises:
            InputError: prompts that are none, too few of them to show some, or no answer that is kept.
        """
        requested = writer.prompts(self.teacher, {"split": split} | self.prompts)
        writing = Writing(self.temperature, self.top_p, self.seed, self.max_new_tokens)
        written = writer.write(self.teacher, _conversations(requested, self.few_shot, self.seed), writing)
        pairs = zip(requested, written, strict=True)
        answered = [_answered(example, answer, self.teacher, split) for example, answer in pairs]
        reasons = self._dropped_by(answered, written, writer)
        writer.report(self.teacher, writing, answered, reasons)
        kept = [example for example, reason in zip(answered, reasons, strict=True) if reason is None]
        if not kept:
            counts = ", ".join(f"{name} {count:,}" for name, count in Counter(filter(None, reasons)).items())
            raise InputError(
                f"source 'synthetic': all {len(answered):,} answers of {self.teacher!r} were dropped ({counts})"
            )
        return kept

    def _dropped_by(self, answered: Sequence[Example], written: Sequence[Written], writer: Writer) -> list[str | None]:
        """Return the first filter that drops each answer; None where it is kept."""
        reasons: list[str | None] = [None] * len(answered)
        longest = math.inf if self.max_tokens is None else self.max_tokens
        _mark(reasons, "ended", [answer.ended or self.keep_cut for answer in written])
        _mark(reasons, "empty", [bool(answer.text) for answer in written])
        _mark(reasons, "min_tokens", [answer.tokens >= self.min_tokens for answer in written])
        _mark(reasons, "max_tokens", [answer.tokens <= longest for answer in written])
        if self.drop_duplicates:
            _mark_duplicates(reasons, answered)
        if self.min_logp is not None:
            left = [row for row, reason in enumerate(reasons) if reason is None]
            for row, logp in zip(left, writer.mean_logp(self.teacher, [answered[row] for row in left]), strict=True):
                reasons[row] = None if logp >= self.min_logp else "min_logp"
        return reasons


def _conversations(requested: Sequence[Example], few_shot: int, seed: int) -> list[Example]:
    """Return the prompts, each after a few others with their answers."""
    if any(example.is_text for example in requested):
        raise InputError("source 'synthetic': the prompts are raw texts, which ask for no answer")
    if few_shot >= len(requested):
        raise InputError(
            f"source 'synthetic': few_shot={few_shot} needs more prompts than the {len(requested):,} there are"
        )
    shown = np.random.default_rng(seed).permutation(len(requested))[: few_shot + 1]
    return [
        _after(example, [requested[i] for i in shown if i != row][:few_shot]) for row, example in enumerate(requested)
    ]


def _after(example: Example, shown: Sequence[Example]) -> Example:
    openings = [turn for turn in example.messages if turn["role"] in ("system", "developer")]
    turns = [turn for other in (*shown, example) for turn in other.messages if turn["role"] in ("user", "assistant")]
    return replace(example, messages=(*openings, *turns)) if shown else example


def _answered(example: Example, answer: Written, teacher: str, split: str) -> Example:
    messages = (*example.messages[:-1], {"role": "assistant", "content": answer.text})
    return replace(example, messages=messages, annotator=teacher, split=split)


def _mark(reasons: list[str | None], name: str, passes: Sequence[bool]) -> None:
    """Note the filter at every answer that it drops and none before it has."""
    for row, passed in enumerate(passes):
        if not passed and reasons[row] is None:
            reasons[row] = name


def _mark_duplicates(reasons: list[str | None], answered: Sequence[Example]) -> None:
    seen: set[str] = set()
    for row, example in enumerate(answered):
        if reasons[row] is None and example.plain_text in seen:
            reasons[row] = "drop_duplicates"
        elif reasons[row] is None:
            seen.add(example.plain_text)
