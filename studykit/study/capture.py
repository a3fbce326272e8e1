"""Run a teacher over data once, ahead of every run that will need it, and measure how good the cache is.

    report = capture(run)           # a pinned run whose teacher has top_k or samples; its first stage names the data

With one epoch of the whole pool, every budget, seed, student, loss and temperature of a study is served by the cache.
Interrupted, it continues where it was; several processes share the work.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from studykit import results
from studykit.collate import Batch, each_example_once
from studykit.data import Inputs
from studykit.errors import InputError
from studykit.losses import LossInputs
from studykit.losses.forward_kl import forward_kl
from studykit.models.loading import device, load_student
from studykit.models.names import ModelRef
from studykit.models.projection import logits_in_chunks, output_head
from studykit.models.states import hidden_states
from studykit.spec import RunSpec, Teacher
from studykit.study.pin import pin
from studykit.teacher import TeacherSignal, open_teacher
from studykit.teacher.answers import read_answers
from studykit.teacher.cached import CachedTeacher, StoredTeacher
from studykit.teacher.store import as_keys
from studykit.training.resolved import ResolvedRun

_BATCH = 32
_COMPARED = 8
"""Batches on which gradients are compared with the live teacher's."""


@dataclass(frozen=True)
class CacheReport:
    """What a capture wrote, and how good it is.

    Attributes:
        folder: of the cache.
        sequences: number of sequences of the data.
        positions: number of their supervised tokens.
        bytes_per_position: on disk, keys included.
        kept_mass: mean probability of the tokens in the cache that are not folded into the rest; 1 for samples.
        smallest_kept_mass: minimum over the compared positions.
        gradient_cosine: between the forward KL's gradients in the student's logits with cached and with live teacher;
            None where a server computes, which gives no whole distribution.
        cache_tokens: tokens that the teacher reads to fill an empty cache, prompts included.
        teacher_tokens: tokens that went through the teacher this time; 0 where the cache was complete.
        capture_s: seconds of this capture, including the spot check of entries that were there.
        imported: answers from files that were stored; None without files.
        there: answers from files to sequences that had been stored before.
        unknown: answers from files to sequences that the data does not have.
    """

    folder: str
    sequences: int
    positions: int
    bytes_per_position: float
    kept_mass: float
    smallest_kept_mass: float
    gradient_cosine: float | None
    cache_tokens: int
    teacher_tokens: int
    capture_s: float
    imported: int | None = None
    there: int | None = None
    unknown: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def capture(
    run: ResolvedRun, watch: Callable[[int, int], None] | None = None, files: Sequence[Path] = ()
) -> CacheReport:
    """Capture the teacher over the sequences that the first stage trains on.

    Args:
        run: its student gives tokenizer and logits to compare in, its teacher what is captured and in which format.
        watch: called with the number of missing positions captured so far, and of all missing ones.
        files: with answers that were captured elsewhere, which are stored first; only what they lack is captured.

    Raises:
        InputError: a teacher without `top_k` or `samples`, or files that do not fit.
    """
    spec, model = _cached_teacher(run)
    stage, student = run.stages[0], _load_student(run)
    encoded = stage.data.encoded.take(stage.captured(stage.usage.rows))
    teacher = open_teacher(spec, model, run.student.tokenizer, output_head(student).weight.shape[0])
    assert isinstance(teacher, StoredTeacher)
    started = time.monotonic()
    written = teacher.write(encoded, chain.from_iterable(map(read_answers, files))) if files else None
    teacher.prepare(encoded, watch)
    capture_s = time.monotonic() - started
    sample = np.unique(np.linspace(0, len(encoded) - 1, _COMPARED * _BATCH).astype(int))
    compared = each_example_once(encoded.take(sample), _BATCH, run.student.tokenizer.pad_token_id)
    cosine, mean, smallest = _quality(teacher, student, compared)
    positions = int(encoded.response_tokens.sum())
    lengths = {encoded.key_of(i): int(encoded.lengths[i]) for i in range(len(encoded))}
    size = teacher.store.size(np.unique(as_keys(list(lengths))))
    return CacheReport(
        folder=str(teacher.store.folder),
        sequences=len(encoded),
        positions=positions,
        bytes_per_position=round(size / positions, 2),
        kept_mass=round(mean, 6),
        smallest_kept_mass=round(smallest, 6),
        gradient_cosine=None if cosine is None else round(cosine, 6),
        cache_tokens=sum(lengths.values()),
        teacher_tokens=int(teacher.cost["teacher_tokens"]),
        capture_s=round(capture_s, 2),
        **(written._asdict() if written is not None else {}),
    )


def _cached_teacher(run: ResolvedRun) -> tuple[Teacher, ModelRef]:
    teacher = run.teacher_of(run.stages[0])
    if teacher is None or not teacher[0].is_cached:
        raise InputError("a cache needs a teacher with top_k or samples")
    return teacher


def _load_student(run: ResolvedRun) -> Any:
    """Load the student with another attention than flash attention, which refuses float32."""
    plain = run.spec.student.model_copy(update={"attn_implementation": None})
    return load_student(plain, run.student, run.spec.seed).to(device()).eval()


def _quality(teacher: StoredTeacher, student: Any, batches: list[Batch]) -> tuple[float | None, float, float]:
    """Return the gradients' cosine over all compared positions, and mean and smallest kept mass."""
    masses = torch.cat([1 - teacher.read_probs(batch).tail for batch in batches])
    cosine = _gradient_cosine(teacher, student, batches) if isinstance(teacher, CachedTeacher) else None
    return cosine, float(masses.mean()), float(masses.min())


def _gradient_cosine(teacher: CachedTeacher, student: Any, batches: list[Batch]) -> float:
    products = torch.zeros(3, dtype=torch.float64)
    for batch in batches:
        signals = teacher.signal(batch), teacher.live.signal(batch)
        for logits, target, rows in _chunks(student, batch, teacher.vocab_size):
            cached, live = (_gradient(signal, logits, target, rows) for signal in signals)
            products += torch.stack([(cached * live).sum(), cached.square().sum(), live.square().sum()]).double().cpu()
    return float(products[0] / products[1:].prod().sqrt())


@torch.no_grad()
def _chunks(student: Any, batch: Batch, vocab_size: int) -> Iterator[tuple[Tensor, Tensor, slice]]:
    """Yield the student's logits [n, V], labels and rows of some positions at a time."""
    head, batch = output_head(student), batch.to(device())
    hidden, target = hidden_states(student, batch.input_ids, batch.attention_mask), batch.target
    for rows, logits in logits_in_chunks(batch.predicting(hidden), head, vocab_size):
        yield logits, target[rows], rows


@torch.enable_grad()
def _gradient(signal: TeacherSignal, logits: Tensor, target: Tensor, rows: slice) -> Tensor:
    """Return the gradient of the forward KL in the student's logits, [n, V]."""
    logits = logits.detach().requires_grad_()
    loss = forward_kl(LossInputs(*signal.to(logits.device).inputs(rows, logits, target, 1.0))).sum()
    return torch.autograd.grad(loss, logits)[0]


def measure_signals(runs: pd.DataFrame, *, study: str = "scratch", root: str | Path = "results") -> pd.DataFrame:
    """Measure the caches of finished runs' teachers, and save the result with the study: `results.load` shows it.

    Bytes, kept mass and tokens are those of the sequences that the first stage trains on; the gradient is compared in
    the logits of the student before training. Earlier measurements are read from disk. Runs without a cached teacher
    are left out.

    Args:
        runs: rows from `compare`.
        study: the folder under `root` that they belong to.
        root: the results folder.

    Returns:
        One row per run with a cached teacher: `run_id`, and the columns of `results.signals`.
    """
    folder, inputs = results.open_study(root, study), Inputs(root)
    for run_id in runs["run_id"]:
        spec = RunSpec.parse(results.read_spec(results.run_folder(folder, run_id)) or {})
        is_cached = spec.teacher is not None and spec.teacher.is_cached
        if is_cached and run_id not in results.read_signals(folder):
            results.write_signal(folder, run_id, capture(pin(spec.without_code, inputs)).as_dict())
    measured = results.read_signals(folder)
    return pd.DataFrame([{"run_id": run, **measured[run]} for run in runs["run_id"] if run in measured])
