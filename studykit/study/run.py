"""Run one specification, or read it where it is already done."""

import hashlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Mapping
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
from studykit.results.table import row
from studykit.scorers import weighted_means
from studykit.spec import RunSpec
from studykit.study.pin import pin
from studykit.training import train
from studykit.training.resolved import ResolvedRun
from studykit.training.stages import Trained


def run(
    spec: RunSpec | Mapping[str, Any], *, study: str = "scratch", ablation: str = "", root: str | Path = "results"
) -> dict[str, Any]:
    """Train and score one specification, or read it where it is already done.

    Args:
        spec: a `RunSpec` or the plain data of one.
        study: the folder under `root` it belongs to.
        ablation: which question asks for it; shown in tables.
        root: the results folder.

    Returns:
        Its row in the table of runs, as `results.load` gives it.

    Raises:
        InputError: anything wrong with the specification, before anything is written.
    """
    parsed = spec if isinstance(spec, RunSpec) else RunSpec.parse(dict(spec))
    return run_pinned(pin(parsed, Inputs(root)), study, ablation, root)


def run_pinned(resolved: ResolvedRun, study: str, ablation: str, root: str | Path) -> dict[str, Any]:
    """Train and score a pinned specification where that has not been done, and return its row."""
    folder = results.open_study(root, study)
    with results.RunWriter(folder, resolved.spec, ablation=ablation) as writer:
        if not writer.is_done:
            _train_and_score(resolved, writer)
    record = results.read_record(writer.folder)
    if record is None:
        raise FileNotFoundError(f"{writer.folder}/record.json vanished while the run was read")
    return row(record, study)


def _train_and_score(resolved: ResolvedRun, writer: results.RunWriter) -> None:
    spec = resolved.spec
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trained = train(resolved, writer.folder)
    metrics: dict[str, float] = {}
    if spec.evaluation is not None:
        started = time.monotonic()
        items, scores = evaluate(trained.model, trained.tokenizer, spec.evaluation, resolved.held_out)
        writer.write_items(
            {
                "id": item.id,
                "prompt": item.prompt,
                "reference": item.reference,
                "answer": item.answer,
                "tokens": item.reference_tokens,
                "scores": {name: round(s.value, 5) for name, s in score.items()},
            }
            for item, score in zip(items, scores, strict=True)
        )
        metrics = weighted_means(scores)
        trained.cost["evaluate_s"] = time.monotonic() - started
    trained.cost["peak_mem_gib"] = _peak_mem_gib()
    own = teacher_score(resolved)
    _save_model(trained, writer.folder, model_card(spec, metrics, trained.manifests))
    cost = {name: round(value, 3) for name, value in trained.cost.items()}
    writer.finish(
        metrics,
        cost,
        trained.manifests,
        device=device().type,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        parameters=_parameters(trained),
        train_threads=trained.threads,
        teacher_metrics=own,
        teacher_is_folded=bool(spec.teacher and spec.teacher.is_cached),
    )
    _remove_checkpoints(writer.folder)


def teacher_score(resolved: ResolvedRun) -> dict[str, float]:
    """Return what the teacher itself scores on the held-out items: the ceiling that a gap to the student is read from.

    Remembered by content of teacher and evaluation, so that a study evaluates it once; empty without either.
    """
    teacher, evaluation, model = resolved.spec.teacher, resolved.spec.evaluation, resolved.teacher
    if teacher is None or evaluation is None or model is None:
        return {}
    live = teacher.model_copy(update={"top_k": None, "samples": None})
    key = hashlib.sha256((live.model_dump_json() + evaluation.model_dump_json()).encode()).hexdigest()[:32]
    file = cache_folder("teacher-scores") / f"{key}.json"
    if not file.exists():
        loaded = load_teacher(model, pruned=teacher.pruned, attn_implementation=teacher.attn_implementation)
        _, scores = evaluate(loaded, model.tokenizer, evaluation, resolved.held_out)
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(weighted_means(scores)), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def _save_model(trained: Trained, folder: Path, card: str) -> None:
    """Save whole weights that anything loads; adapters lie beside them, for those who want only these."""
    model: Any = trained.model
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(folder / "adapter")
        model = model.merge_and_unload()
    model.save_pretrained(folder / "model")
    trained.tokenizer.save_pretrained(folder / "model")
    (folder / "model" / "README.md").write_text(card, encoding="utf-8")


def _parameters(trained: Trained) -> dict[str, int]:
    counts = [(p.numel(), p.requires_grad) for p in unwrap(trained.model).parameters()]
    return {"total": sum(n for n, _ in counts), "trainable": sum(n for n, learns in counts if learns)}


def _remove_checkpoints(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _peak_mem_gib() -> float:
    """Peak memory in GiB: of the run on its GPU; without one, of the process so far, earlier runs in it included."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
