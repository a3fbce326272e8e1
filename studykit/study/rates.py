"""How fast the parts of a run are on this machine, and how much memory they take: measured once, by a short probe.

    rates = measure(run)
    rates.stages[0].token_s         # seconds of training per token

The probe is the run itself, on a few of its micro-batches, with its models, data and teacher: at most ten steps within
a few seconds, the first one on a single sequence. The result is remembered on disk under all it depends on: models,
shapes and processor, not data or budgets.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import psutil
import torch
import transformers.modeling_utils  # noqa: F401 - with the first model, else: its time is part of the start of each cell
from accelerate import Accelerator

from studykit.collate import Batch, PlannedBatches
from studykit.evaluation import answer_items
from studykit.files import cache_folder, replacing
from studykit.generation.cost import Cost
from studykit.models.loading import device, load_student, load_teacher
from studykit.models.states import unwrap
from studykit.results.environment import processor
from studykit.sources import Example
from studykit.spec import Evaluation
from studykit.study.memory import PeakMemory
from studykit.study.timing import growing_sizes, pace, pace_at, take_within
from studykit.teacher import OpenTeacher
from studykit.teacher.cached import StoredTeacher
from studykit.teacher.endpoint import EndpointTeacher
from studykit.teacher.store import as_keys
from studykit.training.loop import train_step, validation_loss
from studykit.training.resolved import ResolvedRun, ResolvedStage, Usage
from studykit.training.stages import open_teacher_of, prepare_teacher
from studykit.training.state import Training
from studykit.training.threads import allowance, chosen_threads

_VERSION = 7


@dataclass(frozen=True)
class StageRates:
    """Rates of one stage.

    Attributes:
        token_s: seconds per token, padding included.
        token_bytes: memory of the activations and gradients, per token.
        validation_item_s: seconds per item that is scored while it trains; 0 without.
    """

    token_s: float
    token_bytes: float
    validation_item_s: float


@dataclass(frozen=True)
class CaptureRates:
    """Rates of a teacher whose distribution is cached.

    Attributes:
        cache_key: name of its cache.
        token_s: seconds per token of a capture.
        position_bytes: bytes of a position in the cache.
        memory_bytes: memory while its cache is filled.
    """

    cache_key: str
    token_s: float
    position_bytes: float
    memory_bytes: float


@dataclass(frozen=True)
class ItemRates:
    """Rates of one evaluation.

    Attributes:
        item_s: seconds per held-out item.
        teacher_item_s: the same of the teacher; 0 without one.
        item_bytes: memory that scoring takes.
    """

    item_s: float
    teacher_item_s: float
    item_bytes: float


@dataclass(frozen=True)
class Rates:
    """Rates of a run.

    Attributes:
        load_s: seconds until the models are there.
        stages: of each stage.
        captures: of the teacher of each stage; None where it trains without a cached one.
        evaluations: of each evaluation.
        static_bytes: memory with models and optimizer, before activations.
        parameters: of the student.
        checkpoint_bytes: of one checkpoint.
    """

    load_s: float
    stages: tuple[StageRates, ...]
    captures: tuple[CaptureRates | None, ...]
    evaluations: tuple[ItemRates, ...]
    static_bytes: float
    parameters: int
    checkpoint_bytes: float


def measure(run: ResolvedRun) -> Rates:
    """Return the rates of a run, from disk where the same was measured before."""
    file = cache_folder("rates") / f"{_key(run)}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(file.read_text(encoding="utf-8"))
        stages = tuple(StageRates(**stage) for stage in known["stages"])
        evaluations = tuple(ItemRates(**evaluation) for evaluation in known["evaluations"])
        captures = tuple(capture and CaptureRates(**capture) for capture in known["captures"])
        return Rates(**known | {"stages": stages, "captures": captures, "evaluations": evaluations})
    rates = _measure(run)
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(asdict(rates)), encoding="utf-8")
    return rates


def _measure(run: ResolvedRun) -> Rates:
    started = time.monotonic()
    accelerator = Accelerator(cpu=device().type == "cpu", mixed_precision="no")
    student = load_student(run.spec.student, run.student, run.spec.seed)
    teachers = _open_teachers(run, student)
    load_s = time.monotonic() - started
    captures = tuple(
        _measure_capture(teacher, stage) if isinstance(teacher, StoredTeacher) else None
        for teacher, stage in zip(teachers, run.stages, strict=True)
    )
    measured = []
    for teacher, stage in zip(teachers, run.stages, strict=True):
        with stage.spec.applied_to("training", student):
            measured.append(_measure_stage(accelerator, student, teacher, run, stage))
    static_bytes = _memory_bytes()
    return Rates(
        load_s=load_s,
        stages=tuple(measured),
        captures=captures,
        evaluations=_measure_evaluations(student, run),
        static_bytes=static_bytes,
        parameters=sum(p.numel() for p in unwrap(student).parameters()),
        checkpoint_bytes=12 * sum(p.numel() for p in student.parameters() if p.requires_grad),
    )


def _open_teachers(run: ResolvedRun, student: Any) -> list[OpenTeacher | None]:
    """Return the teacher that each stage trains with, opened once for all stages that share it."""
    names = [run.teacher_of(stage) if stage.trains_with_teacher else None for stage in run.stages]
    first = [names.index(name) for name in names]
    opened = {i: open_teacher_of(run, run.stages[i], student) for i in set(first) if names[i] is not None}
    return [opened.get(i) for i in first]


def _measure_stage(
    accelerator: Accelerator, student: Any, teacher: OpenTeacher | None, run: ResolvedRun, stage: ResolvedStage
) -> StageRates:
    encoded, pad = stage.data.encoded, run.student.tokenizer.pad_token_id
    chosen = list(_growing_batches(stage))
    usage, cost = Usage.of(chosen, len(encoded)), Cost(student_tokens=0, padding_tokens=0)
    ready = prepare_teacher(teacher, stage, usage, cost, lambda done, total: None)
    training = Training(accelerator, student, run.student.tokenizer, ready, stage, run.spec.seed, cost)
    if training.validation:
        training.context.validation_loss = partial(validation_loss, training)
    training.student.train()
    planned = PlannedBatches(encoded, chosen[-1:], pad, methods=stage.methods)
    times: list[tuple[int, float]] = []
    peak = PeakMemory()

    def step(rows: np.ndarray) -> None:
        batch, began = planned.taking([rows])[0], time.perf_counter()
        train_step(training, [batch])
        times.append((batch.input_ids.numel(), time.perf_counter() - began))

    with chosen_threads(training, planned):
        take_within(step, chosen)
    activations = max(0.0, (peak.gib() or 0.0) * 2**30 - _memory_bytes())  # models and optimizer are still there
    return StageRates(pace(times), activations / max(tokens for tokens, _ in times), _measure_validation(training))


def _measure_validation(training: Training) -> float:
    """Return seconds per validation item of a stage, with answers as long as the references."""
    stage, spec, tokenizer = training.stage, training.spec, training.context.tokenizer
    if stage.validation is None or spec.validation is None:
        return 0.0
    if (name := spec.metric_for_best_model) is not None:
        evaluation = Evaluation(data=spec.validation, scorers=(name,), batch_size=spec.batch_size)
        return _measure_items(training.context.student, tokenizer, evaluation, stage.validation_examples)[0]
    times: list[tuple[int, float]] = []

    def step(batches: list[Batch]) -> None:
        training.validation, began = batches, time.perf_counter()
        validation_loss(training)
        times.append((sum(len(batch.input_ids) for batch in batches), time.perf_counter() - began))

    whole = training.validation
    take_within(step, [whole[len(whole) // 2 :][:1]] * 2 + [whole])
    training.validation = whole
    return pace(times)


def _growing_batches(stage: ResolvedStage) -> Iterator[np.ndarray]:
    """Yield 1, 4, 16 ... sequences, and then planned micro-batches, narrow and wide in turns."""
    plan, lengths = stage.plan(), stage.data.encoded.lengths
    ordered = sorted(plan, key=lambda rows: lengths[rows].max())
    middle = ordered[len(ordered) // 2]
    yield from (middle[:n] for n in growing_sizes(len(middle)))
    for share in (0.5, 0.9, 0.1, 0.5, 1.0, 0.25, 0.75, 0.5):
        yield ordered[round(share * (len(ordered) - 1))]


def _measure_capture(teacher: StoredTeacher, stage: ResolvedStage) -> CaptureRates:
    """Have the teacher compute a few sequences of a stage; nothing is stored.

    A server that is not there takes no time: a run for which that is too late says so at once.
    """
    encoded, name = stage.data.encoded, teacher.store.folder.name
    if isinstance(teacher, EndpointTeacher) and not teacher.is_reachable(encoded):
        return CaptureRates(name, 0.0, teacher.position_bytes, 0.0)
    plan = teacher.plan(encoded.lengths)
    chosen = [plan[round(share * (len(plan) - 1))] for share in (0.5, 0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6)]
    times: list[tuple[int, float]] = []
    peak, sizes = PeakMemory(), []

    def step(rows: np.ndarray) -> None:
        part, began = encoded.take(rows), time.perf_counter()
        keys = as_keys([part.key_of(row) for row in range(len(part))])
        entries = teacher.compute(part, keys, np.arange(len(part)), "teacher_check_tokens")
        sizes.append((int(part.response_tokens.sum()), sum(map(len, entries))))
        times.append((int(part.lengths.sum()), time.perf_counter() - began))

    take_within(step, chosen)
    positions, stored = np.array(sizes).sum(axis=0)
    memory_bytes = (peak.gib() or 0.0) * 2**30
    return CaptureRates(name, pace(times), float(stored / max(1, positions)), memory_bytes)


def _measure_evaluations(student: Any, run: ResolvedRun) -> tuple[ItemRates, ...]:
    teacher, model = run.spec.teacher, None
    if run.evaluations and teacher is not None and run.teacher is not None and teacher.endpoint is None:
        model = load_teacher(run.teacher, teacher)
    measured = []
    for evaluation in run.evaluations:
        item_s, item_bytes = _measure_items(student, run.student.tokenizer, evaluation.spec, evaluation.held_out)
        teacher_s = 0.0
        if model is not None and run.teacher is not None:
            teacher_s, _ = _measure_items(model, run.teacher.tokenizer, evaluation.spec, evaluation.held_out)
        measured.append(ItemRates(item_s, teacher_s, item_bytes))
    return tuple(measured)


def _measure_items(model: Any, tokenizer: Any, spec: Evaluation, items: list[Example]) -> tuple[float, float]:
    """Return seconds per item and the memory that scoring takes; answers as long as the references."""
    longest = max(len(tokenizer(item.answer)["input_ids"]) for item in items[:32]) + 1
    shorter = spec.model_copy(update={"max_new_tokens": min(spec.max_new_tokens, longest)})
    largest = min(spec.batch_size, len(items))
    parts = [items[:n] for n in (*growing_sizes(largest), largest, largest)]
    times: list[tuple[int, float]] = []
    peak, before = PeakMemory(), _memory_bytes()

    def step(part: list[Any]) -> None:
        began = time.perf_counter()
        answer_items(model, tokenizer, shorter, part)
        times.append((len(part), time.perf_counter() - began))

    take_within(step, parts)
    scale = largest / max(count for count, _ in times)
    return pace_at(times, largest), max(0.0, (peak.gib() or 0.0) * 2**30 - before) * scale


def _memory_bytes() -> float:
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else psutil.Process().memory_info().rss


def _key(run: ResolvedRun) -> str:
    """Return the hash of what a rate depends on: models, shapes, settings and machine, not data or budget."""
    settings = {"data", "selected_sha256", "validation", "steps", "epochs", "learning_rate", "lr_scheduler_type"}
    measured = {"batch_size", "max_new_tokens", "scorers"}
    content = [
        _VERSION,
        run.spec.student.model_dump(mode="json", exclude={"name", "revision"}),
        run.spec.teacher and run.spec.teacher.model_dump(mode="json", exclude={"name", "revision"}),
        [stage.spec.model_dump(mode="json", exclude=settings) for stage in run.stages],
        [evaluation.spec.model_dump(mode="json", include=measured) for evaluation in run.evaluations],
        [torch.__version__, processor(), allowance(), device().type],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]
