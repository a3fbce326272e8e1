"""What notebooks call: run a specification once, compare arms side by side.

    runs = compare({"sft": sft_spec, "kd": kd_spec}, study="lexicon", ablation="data_size")

A run is its content: asked for again, by whichever notebook, it is read from disk. Everything that can be wrong in a
specification is refused before a model is loaded.
"""

import hashlib
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from studykit import results
from studykit.files import cache_folder, replacing
from studykit.study.capture import capture_sequences
from studykit.errors import InputError
from studykit.evaluation import evaluate
from studykit.models import (
    device,
    load_teacher,
    load_tokenizer,
    unwrapped,
)
from studykit.models.card import model_card
from studykit.study.pin import pin
from studykit.results.record import row
from studykit.scorers import weighted_means
from studykit.spec import Evaluation, RunSpec, Teacher
from studykit.training import Trained, train
from studykit.data import stage_data


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
    return _run_pinned(
        pin(spec if isinstance(spec, RunSpec) else RunSpec.parse(dict(spec)), root), study, ablation, root
    )


def _run_pinned(pinned: RunSpec, study: str, ablation: str, root: str | Path) -> dict[str, Any]:
    folder = results.open_study(root, study)
    with results.RunWriter(folder, pinned, ablation=ablation) as writer:
        if not writer.is_done:
            _train_and_score(pinned, writer, Path(root))
    record = results.read_record(writer.folder)
    if record is None:
        raise FileNotFoundError(f"{writer.folder}/record.json vanished while the run was read")
    _tell_cell(pinned.run_id)
    return row(record, study)


def compare(
    arms: Mapping[str, RunSpec | Mapping[str, Any]],
    *,
    study: str = "scratch",
    ablation: str = "",
    root: str | Path = "results",
) -> pd.DataFrame:
    """Run all arms and return their rows with the arm's name in front.

    Arms are to be compared, so they must share seed, student and number of optimizer steps.

    Raises:
        InputError: arms that differ in what must be shared, or anything wrong with one of them.
    """
    specs = {arm: s if isinstance(s, RunSpec) else RunSpec.parse(dict(s)) for arm, s in arms.items()}
    for what, of in (
        ("seed", lambda s: s.seed),
        ("student", lambda s: s.student),
        ("number of optimizer steps", lambda s: sum(stage.steps for stage in s.stages)),
        ("evaluation", lambda s: s.evaluation),
    ):
        if any(of(s) != of(first) for s in specs.values() for first in specs.values()):
            raise InputError(f"arms {', '.join(specs)} must share their {what}, or their difference means nothing")
    contents: dict[str, str] = {}
    pinned = {arm: pin(spec, root, contents) for arm, spec in specs.items()}  # all, before the first one trains
    rows = [{"arm": arm, **_run_pinned(spec, study, ablation, root)} for arm, spec in pinned.items()]
    return pd.DataFrame(rows)


def measure_signals(runs: pd.DataFrame, *, study: str = "scratch", root: str | Path = "results") -> pd.DataFrame:
    """Measure what the cached teachers of finished runs kept, and leave it with the study: `results.load` shows it.

    Bytes, kept mass and tokens are those of its first stage's sequences; the gradient is compared in the logits of the
    student before training. What was measured before is read. Runs without a cached teacher are left out.

    Args:
        runs: rows from `compare`.
        study: the folder under `root` that they belong to.
        root: the results folder.

    Returns:
        One row per run with a cached teacher: `run_id`, and the columns of `results.signals`.
    """
    folder, root = results.open_study(root, study), Path(root)
    for run_id in runs["run_id"]:
        spec = RunSpec.parse(results.read_spec(results.run_folder(folder, run_id)) or {})
        if spec.teacher is None or not spec.teacher.is_cached or run_id in results.read_signals(folder):
            continue
        tokenizer = load_tokenizer(spec.student.name, root, spec.student.revision)
        encoded = stage_data(spec.stages[0], tokenizer, root, spec.teacher).encoded
        results.write_signal(folder, run_id, capture_sequences(spec, encoded, tokenizer, root).as_dict())
    measured = results.read_signals(folder)
    return pd.DataFrame([{"run_id": run, **measured[run]} for run in runs["run_id"] if run in measured])


def _train_and_score(spec: RunSpec, writer: results.RunWriter, root: Path) -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trained = train(spec, writer.folder, root)
    metrics: dict[str, float] = {}
    if spec.evaluation is not None:
        started = time.monotonic()
        items, scores = evaluate(trained.model, trained.tokenizer, spec.evaluation)
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
    own = {} if spec.teacher is None or spec.evaluation is None else teacher_score(spec.teacher, spec.evaluation, root)
    _save_model(trained, writer.folder, model_card(spec, metrics, trained.manifests))
    cost = {name: round(value, 3) for name, value in trained.cost.items()}
    writer.finish(
        metrics,
        cost,
        trained.manifests,
        device=device().type,
        parameters=_parameters(trained),
        train_threads=trained.threads,
        teacher_metrics=own,
        teacher_is_folded=bool(spec.teacher and spec.teacher.is_cached),
    )
    _remove_checkpoints(writer.folder)


def teacher_score(teacher: Teacher, evaluation: Evaluation, root: str | Path = "results") -> dict[str, float]:
    """Return what the teacher itself scores on the held-out items: the ceiling that a gap to the student is read from.

    Kept by content of teacher and evaluation, so that a study asks once.
    """
    model = teacher.model_copy(update={"top_k": None, "samples": None})
    key = hashlib.sha256((model.model_dump_json() + evaluation.model_dump_json()).encode()).hexdigest()[:32]
    file = cache_folder("teacher-scores") / f"{key}.json"
    if not file.exists():
        tokenizer = load_tokenizer(teacher.name, Path(root), teacher.revision)
        _, scores = evaluate(load_teacher(model, Path(root)), tokenizer, evaluation)
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(weighted_means(scores)), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def _tell_cell(run_id: str) -> None:
    """Leave the run's id with the cell of a batch that asked for it, if one did."""
    if folder := os.environ.get("STUDYKIT_CELL"):
        with (Path(folder) / "runs.txt").open("a", encoding="utf-8") as stream:
            stream.write(run_id + "\n")


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
    counts = [(p.numel(), p.requires_grad) for p in unwrapped(trained.model).parameters()]
    return {"total": sum(n for n, _ in counts), "trainable": sum(n for n, learns in counts if learns)}


def _remove_checkpoints(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _peak_mem_gib() -> float:
    """Peak memory in GiB: of the run on its GPU; without one, of the process so far, earlier runs in it included."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
