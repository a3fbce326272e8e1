"""Run one specification, or read it where it is already done."""

import resource
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from studykit import results
from studykit.chat import DATE, template_hash
from studykit.data import Inputs
from studykit.generation import find_eos_token_ids
from studykit.models.card import model_card
from studykit.models.loading import device
from studykit.models.states import unwrap
from studykit.results.layout import check_study
from studykit.results.status import Activity, StatusFile, Watch
from studykit.results.table import run_row
from studykit.spec import RunSpec
from studykit.study.pin import pin
from studykit.study.progress import Show, showing
from studykit.study.score import check_weights, score_all
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
    """Train and score one specification; what has been trained or scored already is read.

    Args:
        spec: a `RunSpec` or the plain data of one.
        study: name of the folder under `root` that the run is written to.
        ablation: the question that the run belongs to; shown in tables.
        root: the results folder.
        show: called about once a second with a line on what the run is doing; None shows a line that changes in a
            notebook, and elsewhere a line a minute on stderr.

    Returns:
        Its row in the table of runs, as `results.load` gives it, with the scores of the primary evaluation.

    Raises:
        InputError: anything wrong with the specification, before anything is written.
    """
    parsed = spec if isinstance(spec, RunSpec) else RunSpec.parse(dict(spec))
    with showing(show) as show:
        show("checking models and data")
        resolved = pin(parsed, Inputs(root))
        check_weights(check_study(root, study), resolved)
        return run_resolved(resolved, study, root, ablation=ablation, show=show)


def run_resolved(
    run: ResolvedRun, study: str, root: str | Path, *, ablation: str = "", arm: str = "", show: Show
) -> dict[str, Any]:
    """Train and score a pinned run where that has not been done, and return its row."""
    folder = results.open_study(root, study)
    with results.RunWriter(folder, run.spec, ablation=ablation, arm=arm) as writer:
        watch = StatusFile(writer.folder, lambda status: show(status.line()))
        student = None if writer.is_done else _train(run, writer, watch)
        score_all(run, writer.folder, student, watch)
    primary = run.evaluations[0].spec.eval_id if run.evaluations else None
    return run_row(writer.folder, study, primary)


def _train(run: ResolvedRun, writer: results.RunWriter, watch: Watch) -> nn.Module | None:
    """Train, save the model, write the record, and return the model; None where its adapters have been merged."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trained = train(run, writer.folder, watch=watch)
    peak_mem_gib, parameters = _peak_mem_gib(), _count_parameters(trained)  # before adapters are merged
    watch(Activity("saving the weights"), 0, 0)
    _save_model(trained, writer.folder)
    card = model_card(run.spec.training, {}, trained.manifests)
    (writer.folder / "model" / "README.md").write_text(card, encoding="utf-8")
    writer.finish(
        {name: round(value, 3) for name, value in (trained.cost | {"peak_mem_gib": peak_mem_gib}).items()},
        trained.manifests,
        chat=_chat(run, trained),
        device=device().type,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        parameters=parameters,
        train_threads=trained.threads,
        teacher_is_folded=_is_folded(run),
    )
    shutil.rmtree(writer.folder / "checkpoints", ignore_errors=True)
    return None if run.spec.student.lora else trained.model


def _chat(run: ResolvedRun, trained: Trained) -> results.ChatRecord:
    """Return which tokens the answers of the data end with, and which ones generation stops at."""
    tokenizer = trained.tokenizer
    ends = {token for stage in run.stages for token in stage.data.encoded.ends()}
    return results.ChatRecord(
        ends=_tokens(ends, tokenizer),
        stops=_tokens(find_eos_token_ids(trained.model, tokenizer), tokenizer),
        template_sha256=template_hash(tokenizer),
        template_date=None if tokenizer.chat_template is None else DATE.isoformat(),
        turns=tuple(stage.spec.turns for stage in run.stages),
    )


def _tokens(ids: Iterable[int], tokenizer: Any) -> tuple[results.Token, ...]:
    return tuple(results.Token(id=token, text=tokenizer.convert_ids_to_tokens(token)) for token in sorted(ids))


def _is_folded(run: ResolvedRun) -> bool:
    """Whether a loss compared with what a cache keeps of the teacher's distribution."""
    cached = run.spec.teacher is not None and run.spec.teacher.is_cached
    return cached and any(stage.recipe.parts[0].needs_teacher for stage in run.stages)


def _save_model(trained: Trained, folder: Path) -> None:
    """Save merged weights, which load without peft, and beside them the adapters alone."""
    model: Any = trained.model
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(folder / "adapter")
        model = model.merge_and_unload()
    # A model loaded from the folder then stops where the kit does: a base model's configuration knows no end of a turn.
    model.generation_config.eos_token_id = find_eos_token_ids(model, trained.tokenizer)
    model.generation_config.pad_token_id = trained.tokenizer.pad_token_id
    model.save_pretrained(folder / "model")
    trained.tokenizer.save_pretrained(folder / "model")


def _count_parameters(trained: Trained) -> dict[str, int]:
    counts = [(p.numel(), p.requires_grad) for p in unwrap(trained.model).parameters()]
    return {"total": sum(n for n, _ in counts), "trainable": sum(n for n, trained in counts if trained)}


def _peak_mem_gib() -> float:
    """Return the peak memory: of the run on its GPU; without one, of the process so far, earlier runs included."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
