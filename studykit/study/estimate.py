"""What a run will take, before anything trains: tokens, disk, memory and time.

needs, shared = Needs.of(run, measure(run)), Shared()
estimate = needs.estimate(shared)            # the next run of a batch needs less: `shared` has what this one leaves
check_fits(run, needs, estimate.memory_bytes)
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from studykit.discovery import options_of
from studykit.errors import InputError
from studykit.files import cache_folder
from studykit.rollouts import ROLLOUTS
from studykit.study.rates import CaptureRates, Rates
from studykit.study.score import teacher_answers
from studykit.study.weights import bytes_per_parameter
from studykit.teacher.store import Store, as_keys
from studykit.training.best import Best
from studykit.training.checkpoints import KEPT
from studykit.training.resolved import ResolvedRun, ResolvedStage

_GIB = 2**30


@dataclass(frozen=True)
class Estimate:
    """What one run, or several, will take.

    Attributes:
        student_tokens: that are trained on, padding included.
        teacher_tokens: that go through the teacher, in a capture or at every step.
        cached_tokens: of sequences that the cache has, or that an earlier run of the batch captures.
        cache_bytes: that captures add to the cache.
        weights_bytes: of the weights that stay on disk.
        checkpoint_bytes: of the checkpoints while one run trains.
        memory_bytes: at most.
        seconds: of one process.
        runs: number of runs that are trained, trials apart.
        trials: number of trials that are trained.
        runs_there: number of runs and trials that are on disk, or that an earlier cell of the batch trains.
        tuning_s: seconds of the trials, which are among `seconds`.
        further_trials: number of trials that follow at most, where best values are at the edges of a tuning's grids.
        further_s: seconds of these, which are not among `seconds`.
    """

    student_tokens: float = 0
    teacher_tokens: float = 0
    cached_tokens: float = 0
    cache_bytes: float = 0
    weights_bytes: float = 0
    checkpoint_bytes: float = 0
    memory_bytes: float = 0
    seconds: float = 0
    runs: int = 0
    trials: int = 0
    runs_there: int = 0
    tuning_s: float = 0
    further_trials: int = 0
    further_s: float = 0

    def __add__(self, other: "Estimate") -> "Estimate":
        """Return what both take one after the other: the larger memory and checkpoints, the sum of all else."""
        values = {part.name: (getattr(self, part.name), getattr(other, part.name)) for part in fields(self)}
        return Estimate(**{name: (max if name in _AT_A_TIME else sum)(pair) for name, pair in values.items()})

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)


_AT_A_TIME = ("memory_bytes", "checkpoint_bytes")


@dataclass
class Shared:
    """What the runs of a batch leave for the next ones: captured sequences, and scores of teachers.

    Attributes:
        captured: keys of the sequences, by teacher and format.
        scored: names of the files with a teacher's scores.
    """

    captured: dict[str, np.ndarray] = field(default_factory=dict)
    scored: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Capture:
    """What the cache of one teacher must hold for a run.

    Attributes:
        rates: of the teacher.
        keys: of the sequences.
        lengths: of the sequences.
        positions: supervised tokens of the sequences.
        stored: which of them the cache has.
    """

    rates: CaptureRates
    keys: np.ndarray
    lengths: np.ndarray
    positions: np.ndarray
    stored: np.ndarray

    @classmethod
    def of(cls, rates: CaptureRates, stages: Sequence[ResolvedStage]) -> "Capture":
        """Return what the stages with one teacher use of their data, each sequence once."""
        used = [stage.data.encoded.take(stage.captured(stage.usage.rows)) for stage in stages]
        keys = as_keys([part.key_of(i) for part in used for i in range(len(part))])
        keys, first = np.unique(keys, return_index=True)
        lengths, positions = (
            np.concatenate([np.asarray(getattr(part, name)) for part in used])[first]
            for name in ("lengths", "response_tokens")
        )
        return cls(rates, keys, lengths, positions, _stored(rates.cache_key, keys))

    def missing(self, shared: Shared) -> np.ndarray:
        """Return which sequences the runs that `shared` knows leave to be captured, bool [n], and add them to it."""
        known = shared.captured.get(self.rates.cache_key, self.keys[:0])
        shared.captured[self.rates.cache_key] = np.union1d(known, self.keys)
        return ~(self.stored | np.isin(self.keys, known))


@dataclass(frozen=True)
class Needs:
    """What a run computes, without regard to what is cached or finished.

    Attributes:
        rates: of the run.
        batch_tokens: of each micro-batch of each stage, padding included.
        live_tokens: that go through live teachers.
        validated: items that each stage scores while it trains, each as often as it does.
        captures: what each cache must hold.
        items: number of held-out items of each evaluation.
        teacher_files: names of the files with the teacher's answers to them; None without, or where it is there.
    """

    rates: Rates
    batch_tokens: tuple[np.ndarray, ...]
    live_tokens: int
    validated: tuple[int, ...]
    captures: tuple[Capture, ...]
    items: tuple[int, ...]
    teacher_files: tuple[str | None, ...]

    @classmethod
    def of(cls, run: ResolvedRun, rates: Rates) -> "Needs":
        """Count what a pinned run needs."""
        tokens = tuple(_batch_tokens(stage).sum(axis=0) for stage in run.stages)
        live = sum(
            _live_tokens(stage) for stage, capture in zip(run.stages, rates.captures, strict=True) if capture is None
        )
        validated = tuple(_checks(stage) * len(stage.validation_examples) for stage in run.stages)
        caches: dict[str, tuple[CaptureRates, list[ResolvedStage]]] = {}
        for stage, capture in zip(run.stages, rates.captures, strict=True):
            if capture is not None:
                caches.setdefault(capture.cache_key, (capture, []))[1].append(stage)
        captures = tuple(Capture.of(*cache) for cache in caches.values())
        files = [teacher_answers(run, evaluation) for evaluation in run.evaluations]
        missing = tuple(None if file is None or file.exists() else file.name for file in files)
        items = tuple(len(evaluation.held_out) for evaluation in run.evaluations)
        return cls(rates, tokens, live, validated, captures, items, missing)

    def estimate(self, shared: Shared, keep: str = "full") -> Estimate:
        """Return what the run takes after the runs that `shared` knows, and add it to them.

        Args:
            shared: what earlier runs of the batch leave.
            keep: the weights that stay on disk.
        """
        rates, captured = self.rates, [(capture, capture.missing(shared)) for capture in self.captures]
        missing = [int(capture.lengths[rows].sum()) for capture, rows in captured]
        capture_s = sum(tokens * capture.rates.token_s for tokens, (capture, _) in zip(missing, captured, strict=True))
        train_s = sum(
            float(tokens.sum()) * rate.token_s for tokens, rate in zip(self.batch_tokens, rates.stages, strict=True)
        )
        train_s += sum(count * rate.validation_item_s for count, rate in zip(self.validated, rates.stages, strict=True))
        score_s = sum(count * rate.item_s for count, rate in zip(self.items, rates.evaluations, strict=True))
        for count, rate, file in zip(self.items, rates.evaluations, self.teacher_files, strict=True):
            if file is not None and file not in shared.scored:
                score_s += count * rate.teacher_item_s
                shared.scored.add(file)
        return Estimate(
            student_tokens=sum(int(tokens.sum()) for tokens in self.batch_tokens),
            teacher_tokens=self.live_tokens + sum(missing),
            cached_tokens=sum(int(capture.lengths[~rows].sum()) for capture, rows in captured),
            cache_bytes=sum(float(c.positions[rows].sum()) * c.rates.position_bytes for c, rows in captured),
            weights_bytes=bytes_per_parameter(keep) * rates.parameters,
            checkpoint_bytes=KEPT * rates.checkpoint_bytes,
            memory_bytes=max(
                rates.static_bytes + max(self.activation_bytes, self.item_bytes),
                *(capture.rates.memory_bytes for capture in self.captures),
                0.0,
            ),
            seconds=rates.load_s + capture_s + train_s + score_s,
        )

    @property
    def item_bytes(self) -> float:
        """Memory that scoring takes beside the models."""
        return max((rate.item_bytes for rate in self.rates.evaluations), default=0.0)

    @property
    def activation_bytes(self) -> float:
        """Memory that the largest micro-batch takes beside models and optimizer."""
        pairs = zip(self.batch_tokens, self.rates.stages, strict=True)
        return max(float(tokens.max()) * rate.token_bytes for tokens, rate in pairs)


def check_fits(run: ResolvedRun, needs: Needs, memory_bytes: float, jobs: int = 1) -> None:
    """Refuse a run that does not fit into memory.

    Args:
        run: the pinned run.
        needs: of it.
        memory_bytes: from its estimate.
        jobs: number of runs at the same time.

    Raises:
        InputError: with the setting that would fit.
    """
    there = total_memory_bytes()
    if memory_bytes * jobs <= there:
        return
    raise InputError(
        f"training {run.spec.student.name!r} needs about {memory_bytes / _GIB:.1f} GiB of memory"
        f"{f' in each of {jobs} jobs' if jobs > 1 else ''}, and {there / _GIB:.1f} GiB are available: "
        + _setting_that_fits(run, needs, memory_bytes, there, jobs)
    )


def check_disk(estimate: Estimate, folder: Path, jobs: int = 1) -> None:
    """Refuse what does not fit on the disk.

    Args:
        estimate: of all that is to run.
        folder: of the results.
        jobs: number of runs at the same time.

    Raises:
        InputError: with what would fit.
    """
    existing = next(place for place in (folder.resolve(), *folder.resolve().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    needed = estimate.weights_bytes + estimate.cache_bytes + jobs * estimate.checkpoint_bytes
    if needed > free:
        raise InputError(
            f"weights take about {estimate.weights_bytes / _GIB:.1f} GiB, the teacher's cache "
            f"{estimate.cache_bytes / _GIB:.1f} GiB and checkpoints {jobs * estimate.checkpoint_bytes / _GIB:.1f} GiB, "
            f"and {free / _GIB:.1f} GiB are free: free some, or keep less of the weights"
        )


def total_memory_bytes() -> float:
    """Return the memory of the GPU, or of the machine without one."""
    return torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else psutil.virtual_memory().total


def _setting_that_fits(run: ResolvedRun, needs: Needs, memory_bytes: float, there: float, jobs: int) -> str:
    if jobs > 1 and memory_bytes <= there:
        return f"--jobs {int(there // memory_bytes)} fits"
    left = there / jobs - needs.rates.static_bytes
    stage = max(run.stages, key=lambda stage: stage.spec.batch_size).spec
    fits = int(stage.batch_size * left / max(needs.activation_bytes, 1.0))
    if left > 0 and needs.activation_bytes > left and fits >= 1:
        steps = -(-stage.batch_size * stage.gradient_accumulation_steps // fits)
        return f"batch_size={fits} with gradient_accumulation_steps={steps} fits"
    if run.spec.student.lora is None:
        return "adapters need no gradients and moments of all weights: lora_r=16"
    return "choose a smaller model, or a teacher with teacher_top_k"


def _batch_tokens(stage: ResolvedStage) -> np.ndarray:
    """Return the tokens of each method in each micro-batch, padding included, int64 [methods, micro-batches].

    The rows of a mixed micro-batch are split by their methods, and padded with those of one method alone.
    """
    lengths, plan, methods = stage.data.encoded.lengths, stage.plan(), stage.methods
    numbers = range(len(stage.recipes))
    parts = [[rows if methods is None else rows[methods[rows] == number] for rows in plan] for number in numbers]
    return np.array([[len(rows) * int(lengths[rows].max(initial=0)) for rows in part] for part in parts])


def _live_tokens(stage: ResolvedStage) -> int:
    """Return the tokens that a live teacher reads: all that are compared with it, and a prompt that it answers once."""
    tokens, encoded, rows = _batch_tokens(stage).sum(axis=1), stage.data.encoded, stage.usage.rows
    total = 0
    for number, recipe in enumerate(stage.recipes):
        loss, rollout = recipe.parts
        if loss.needs_teacher:
            total += int(tokens[number])
        elif rollout.needs_teacher:
            own = rows if stage.methods is None else rows[stage.methods[rows] == number]
            total += int(encoded.lengths[own].sum())
    return total


def _checks(stage: ResolvedStage) -> int:
    """Return how often a stage scores its validation items."""
    steps, best = stage.spec.planned_steps, Best(stage.spec) if stage.spec.load_best_model_at_end else None
    count = 0 if best is None else sum(best.is_due(step) for step in range(1, steps + 1))
    for recipe in stage.recipes:
        if recipe.parts[1].needs_validation:
            checks = options_of(ROLLOUTS.member(recipe.rollout)).get("checks")
            assert checks is not None
            count += min(steps, (recipe.rollout_options or {}).get("checks", checks.default))
    return count


def _stored(cache_key: str, keys: np.ndarray) -> np.ndarray:
    """Return which sequences the cache of a teacher has, bool [n]."""
    if not len(keys):
        return np.zeros(len(keys), dtype=bool)
    store = Store(cache_folder("teacher") / cache_key)
    store.want(keys)
    store.refresh()
    return store.has(keys)
