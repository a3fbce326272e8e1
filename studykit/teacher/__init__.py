"""The teacher's side of distillation: a teacher of any kind gives a `TeacherSignal` for a batch.

teacher = open_teacher(spec.teacher, model, student_tokenizer, student_rows)
signal = teacher.signal(batch)           # at the supervised positions of the batch, in row-major order
"""

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch

from studykit.chat import Encoded
from studykit.collate import Batch
from studykit.errors import InputError
from studykit.generation import Completions, Sampling
from studykit.generation.cost import Cost
from studykit.generation.vllm import Vllm
from studykit.models.loading import load_teacher
from studykit.models.names import ModelRef
from studykit.models.vocabulary import same_vocabulary, shared_vocabulary
from studykit.spec import Teacher
from studykit.teacher.signal import TeacherSignal

__all__ = ["OpenTeacher", "TeacherSignal", "open_teacher"]


class OpenTeacher(Protocol):
    """The interface of every kind of teacher.

    Attributes:
        model: the language model itself; None where a server computes.
        vocab_size: rows of the student's vocabulary that belong to a token and are compared.
        cost: what it adds to, such as `teacher_tokens` (tokens that went through its layers); each stage sets its own.
    """

    model: Any
    vocab_size: int
    cost: Cost

    def pack_batches(self, padding_free: bool | None) -> None:
        """Choose whether batches are packed into one row without padding; None: with flash attention."""
        ...

    def prepare(self, encoded: Encoded, progress: Callable[[int, int], None] | None = None) -> None:
        """Compute before training what can be computed for these sequences.

        Args:
            encoded: the data's own sequences.
            progress: called with the number of positions that are done, and of all that were missing.
        """
        ...

    def release(self) -> None:
        """Free memory that the signals of prepared sequences do not need; it is loaded again on demand."""
        ...

    def signal(self, batch: Batch) -> TeacherSignal:
        """Return the teacher's signal at the supervised positions of a batch."""
        ...

    def generate(
        self, batch: Batch, rows: list[int], max_new_tokens: list[int], sampling: Sampling, generator: torch.Generator
    ) -> Completions:
        """Generate answers to the prompts of some rows of a batch, in the student's tokens.

        Args:
            batch: rows of the data.
            rows: indices of the rows whose prompts are answered.
            max_new_tokens: maximum number of new tokens of each answer.
            sampling: temperature and cut-offs.
            generator: the only source of randomness.
        """
        ...


def open_teacher(teacher: Teacher, model: ModelRef, student_tokenizer: Any, student_rows: int) -> OpenTeacher:
    """Load a teacher as specified: live or cached, pruned or not; one that a server computes is not loaded.

    Args:
        teacher: the specification's teacher.
        model: as found by its name.
        student_tokenizer: the student's tokenizer.
        student_rows: rows of the student's output head.

    Raises:
        InputError: no such model, a cached one with another tokenizer, or an engine that is not there.
    """
    from studykit.teacher.cached import CachedTeacher
    from studykit.teacher.cross_tokenizer import CrossTokenizerTeacher
    from studykit.teacher.endpoint import EndpointTeacher
    from studykit.teacher.formats import Samples, TopK
    from studykit.teacher.live import LiveTeacher

    tokenizer, engine = model.tokenizer, _open_engine(teacher, model)
    if teacher.endpoint is not None:
        vocab_size = min(shared_vocabulary(student_tokenizer, tokenizer), student_rows)
        return EndpointTeacher(teacher.endpoint, tokenizer, TopK(teacher.top_k or 1, vocab_size))
    load_model = partial(load_teacher, model, teacher, sharded=not teacher.is_cached)  # captures are not in step
    if not teacher.is_cached and not same_vocabulary(student_tokenizer, tokenizer):
        return CrossTokenizerTeacher(load_model(), tokenizer, student_tokenizer, engine)
    vocab_size = min(shared_vocabulary(student_tokenizer, tokenizer), student_rows)

    def load() -> LiveTeacher:
        return LiveTeacher(load_model(), tokenizer, vocab_size, engine)

    if not teacher.is_cached:
        return load()
    applied = [f" {name} {json.dumps(value)}" for name, value in teacher.acting_on("teacher").items()]
    content = "".join([teacher.sha256 or model.sha256, *applied])
    content += f" {teacher.quantization}" if teacher.quantization else ""
    form = partial(TopK, teacher.top_k) if teacher.top_k else partial(Samples, teacher.samples or 1)
    return CachedTeacher(load, content, form)


def _open_engine(teacher: Teacher, model: ModelRef) -> Vllm | None:
    if teacher.engine is None:
        return None
    if applied := list(teacher.acting_on("teacher")):
        raise InputError(
            f"engine {teacher.engine!r} reads weights from disk, where {applied[0]} has changed none: leave engine out"
        )
    return Vllm(model.path, model.revision)
