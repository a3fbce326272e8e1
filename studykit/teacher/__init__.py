"""The teacher's side of distillation: whatever its kind, it answers a batch with a `TeacherSignal`.

teacher = open_teacher(spec.teacher, root, student_tokenizer)
signal = teacher.signal(batch)           # at the supervised positions of the batch, in row-major order
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from studykit.models import load_teacher, load_tokenizer, shared_vocabulary
from studykit.spec import Teacher
from studykit.teacher.signal import TeacherSignal

__all__ = ["Batch", "OpenTeacher", "TeacherSignal", "open_teacher"]


@dataclass
class Batch:
    """Sequences to train on.

    Attributes:
        input_ids: int64 [B, T], padded on the right.
        attention_mask: int64 [B, T].
        supervised: bool [B, T]; the first token of a row has nothing to predict it and is never counted.
        keys: content hash of each row, by which a cache knows it; empty for rows made during training.
    """

    input_ids: Tensor
    attention_mask: Tensor
    supervised: Tensor
    keys: list[str] = field(default_factory=list)

    @property
    def target(self) -> Tensor:
        """The supervised token ids in row-major order, int64 [N]."""
        return self.input_ids[:, 1:][self.supervised[:, 1:]]

    def predicting(self, hidden: Tensor) -> Tensor:
        """Return the hidden states that predict the supervised tokens: position i predicts token i + 1, [N, H]."""
        return hidden[:, :-1][self.supervised[:, 1:]]


class OpenTeacher(Protocol):
    """What every kind of teacher offers.

    Attributes:
        vocabulary: rows of the vocabulary on which teacher and student are compared.
        cost: counted since it was opened, such as `teacher_tokens` (tokens that went through the teacher's layers).
    """

    vocabulary: int
    cost: dict[str, float]

    def prepare(self, batches: list[Batch]) -> None:
        """Get ready for these sequences before training starts."""
        ...

    def signal(self, batch: Batch) -> TeacherSignal:
        """Return what the teacher says at the supervised positions of a batch."""
        ...


def open_teacher(teacher: Teacher, results_root: Path, student_tokenizer: Any, student_rows: int) -> OpenTeacher:
    """Load a teacher and check that it shares the student's tokenizer.

    Args:
        teacher: which model, and whether live or cached.
        results_root: where runs named as models lie.
        student_tokenizer: the student's tokenizer.
        student_rows: rows of the student's output head.

    Raises:
        InputError: no such model, or another tokenizer.
    """
    from studykit.teacher.cached import CachedTeacher
    from studykit.teacher.online import OnlineTeacher

    tokenizer = load_tokenizer(teacher.name, results_root, teacher.revision)
    vocabulary = min(shared_vocabulary(student_tokenizer, tokenizer), student_rows)
    online = OnlineTeacher(load_teacher(teacher, results_root), vocabulary)
    if teacher.top_k is None:
        return online
    return CachedTeacher(online, teacher.content or "", tokenizer, teacher.top_k)
