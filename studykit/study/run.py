"""Run one specification, or read it where it is already done."""

import hashlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from studykit import results
from studykit.data import Inputs
from studykit.evaluation import evaluate
from studykit.files import cache_folder, replacing
from studykit.models.card import model_card
from studykit.models.loading import device, load_teacher
from studykit.models.states import unwrap
from studykit.results.status import Activity, StatusFile, Watch, unwatched
from studykit.results.table import row
from studykit.scorers import Item, Score, weighted_means
from studykit.spec import RunSpec
from studykit.study.overlap import count_overlap
from studykit.study.pin import pin
from studykit.study.progress import Show, showing
from studykit.training import train
from studykit.training.resolved import ResolvedRun
from studykit.training.stages import Trained


def run(
    spec: RunSpec | Mapping[str, Any],
    *,
    study: str = "scratch",
    ablation: str = "",
    root: str | Path = "results",
    show: Show | None = None,
) -> dict[str, Any]:
    """Train and score one specification, or read it where it is already done.

    Args:
        spec: a `RunSpec` or the plain data of one.
        study: name of the folder under `root` that the run is written to.
        ablation: the question that the run belongs to; shown in tables.
        root: the results folder.
        show: called about once a second with a line on what the run is doing; None shows a line that changes in a
            notebook, and elsewhere a line a minute on stderr.

    Returns:
        Its row in the table of runs, as `results.load` gives it.

    Raises:
        InputError: anything wrong with the specification, before anything is written.
    """
    parsed = spec if isinstance(spec, RunSpec) else RunSpec.parse(dict(spec))
    with showing(show) as show:
        show("checking models and data")
        return run_resolved(pin(parsed, Inputs(root)), study, ablation, root, show)


def run_resolved(run: ResolvedRun, study: str, ablation: str, root: str | Path, show: Show) -> dict[str, Any]:
    """Train and score a pinned run where that has not been done, and return its row."""
    folder = results.open_study(root, study)
    with results.RunWriter(folder, run.spec, ablation=ablation) as writer:
        if not writer.is_done:
            _train_and_score(run, writer, StatusFile(writer.folder, lambda status: show(status.line())))
    record = results.read_record(writer.folder)
    if record is None:
        raise FileNotFoundError(f"{writer.folder}/record.json vanished while the run was read")
    return row(record, study)


def _train_and_score(run: ResolvedRun, writer: results.RunWriter, watch: Watch) -> None:
    """Train, score student and teacher, save the model, and write the record last."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trained = train(run, writer.folder, watch=watch)
    metrics = _score(run, trained, writer, watch)
    peak_mem_gib, parameters = _peak_mem_gib(), _count_parameters(trained)  # before adapters are merged
    teacher_metrics = teacher_score(run, watch)
    watch(Activity("saving the weights"), 0, 0)
    _save_model(trained, writer.folder, model_card(run.spec, metrics, trained.manifests))
    writer.finish(
        metrics,
        {name: round(value, 3) for name, value in (trained.cost | {"peak_mem_gib": peak_mem_gib}).items()},
        trained.manifests,
        device=device().type,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        parameters=parameters,
        train_threads=trained.threads,
        teacher_metrics=teacher_metrics,
        teacher_is_folded=_is_folded(run),
        held_out=run.covered,
        items_trained_on=count_overlap(run) if run.held_out else None,
    )
    shutil.rmtree(writer.folder / "checkpoints", ignore_errors=True)


def _is_folded(run: ResolvedRun) -> bool:
    """Whether a loss compared with what a cache keeps of the teacher's distribution."""
    cached = run.spec.teacher is not None and run.spec.teacher.is_cached
    return cached and any(stage.recipe.parts[0].needs_teacher for stage in run.stages)


def _score(run: ResolvedRun, trained: Trained, writer: results.RunWriter, watch: Watch) -> dict[str, float]:
    """Evaluate the student, write its items, and return its metrics; none without an evaluation."""
    if run.spec.evaluation is None:
        return {}
    started = time.monotonic()
    scoring = partial(watch, Activity("scoring", "items"))
    items, scores = evaluate(trained.model, trained.tokenizer, run.spec.evaluation, run.held_out, scoring)
    writer.write_items(_item_line(item, score) for item, score in zip(items, scores, strict=True))
    trained.cost["evaluate_s"] = time.monotonic() - started
    return weighted_means(scores)


def _item_line(item: Item, scores: dict[str, Score]) -> dict[str, Any]:
    """Return a held-out item as a line of `items.jsonl`."""
    return {
        "id": item.id,
        "prompt": item.prompt,
        "reference": item.reference,
        "answer": item.answer,
        "tokens": item.reference_tokens,
        "scores": {name: round(score.value, 5) for name, score in scores.items()},
    }


def teacher_score(run: ResolvedRun, watch: Watch = unwatched) -> dict[str, float]:
    """Return the teacher's metrics on the held-out items: the upper level that students are compared with.

    Stored on disk by the content of teacher and evaluation, so that a study evaluates a teacher once; empty without a
    teacher or an evaluation.
    """
    teacher, evaluation = run.spec.teacher, run.spec.evaluation
    if teacher is None or evaluation is None or run.teacher is None:
        return {}
    live = teacher.model_copy(update={"top_k": None, "samples": None})
    key = hashlib.sha256((live.model_dump_json() + evaluation.model_dump_json()).encode()).hexdigest()[:32]
    file = cache_folder("teacher-scores") / f"{key}.json"
    if not file.exists():
        model = load_teacher(run.teacher, pruned=teacher.pruned, attn_implementation=teacher.attn_implementation)
        scoring = partial(watch, Activity("scoring the teacher", "items"))
        _, scores = evaluate(model, run.teacher.tokenizer, evaluation, run.held_out, scoring)
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(weighted_means(scores)), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def _save_model(trained: Trained, folder: Path, card: str) -> None:
    """Save merged weights, which load without peft, and beside them the adapters alone."""
    model: Any = trained.model
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(folder / "adapter")
        model = model.merge_and_unload()
    model.save_pretrained(folder / "model")
    trained.tokenizer.save_pretrained(folder / "model")
    (folder / "model" / "README.md").write_text(card, encoding="utf-8")


def _count_parameters(trained: Trained) -> dict[str, int]:
    counts = [(p.numel(), p.requires_grad) for p in unwrap(trained.model).parameters()]
    return {"total": sum(n for n, _ in counts), "trainable": sum(n for n, trained in counts if trained)}


def _peak_mem_gib() -> float:
    """Return the peak memory: of the run on its GPU; without one, of the process so far, earlier runs included."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
