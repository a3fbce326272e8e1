"""Run one specification, or read it where it is already done."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from studykit import results
from studykit.chat import DATE, template_hash
from studykit.data import Inputs, writing_cost
from studykit.errors import Failure, one_line
from studykit.generation import find_eos_token_ids
from studykit.models.card import model_card
from studykit.models.loading import device, load_student
from studykit.models.sharding import full_size, is_sharding
from studykit.models.states import unwrap
from studykit.results.environment import processes_wanted
from studykit.results.follower import Follower
from studykit.results.layout import check_study
from studykit.results.report_to import chosen
from studykit.results.status import Activity, StatusFile, Watch, unwatched
from studykit.results.table import run_row
from studykit.spec import RunSpec
from studykit.study.launch import Job, run_on_processes
from studykit.study.memory import PeakMemory
from studykit.study.overlap import check_best_apart
from studykit.study.pin import pin
from studykit.study.progress import Show, showing, unshown
from studykit.study.score import answer_as_teacher, check_weights, device_hours, score_all
from studykit.study.trackers import reporting
from studykit.study.weights import check_keep, save_weights
from studykit.training import ranks, train
from studykit.training.checkpoints import trained_state
from studykit.training.resolved import ResolvedRun
from studykit.training.stages import Trained


def run(
    spec: RunSpec | Mapping[str, Any],
    *,
    study: str = "scratch",
    ablation: str = "",
    root: str | Path = "results",
    keep: str = "full",
    report_to: str | Sequence[str] | None = None,
    show: Show | None = None,
) -> dict[str, Any]:
    """Train and score one specification; what has been trained or scored already is read.

    Args:
        spec: a `RunSpec` or the plain data of one.
        study: name of the folder under `root` that the run is written to.
        ablation: the question that the run belongs to; shown in tables.
        root: the results folder.
        keep: the weights that stay on disk: `none`, `adapter`, `bf16` or `full`, see `studykit.study.weights`.
        report_to: names of trackers that follow the run: mlflow, tensorboard, trackio, wandb; None for those of the
            environment variable STUDYKIT_REPORT_TO, by default none. It is no part of the run's id.
        show: called about once a second with a line on what the run is doing; None shows a line that changes in a
            notebook, and elsewhere a line a minute on stderr.

    Returns:
        Its row in the table of runs, as `results.load` gives it, with the scores of the primary evaluation.

    Raises:
        InputError: anything wrong with the specification, before anything is trained.
        Failure: the trained model cannot be saved; started again, the run goes on from its weights.
    """
    parsed, followers = spec if isinstance(spec, RunSpec) else RunSpec.parse(dict(spec)), chosen(report_to)

    def check() -> ResolvedRun:
        resolved = pin(parsed, Inputs(root))
        check_weights(check_study(root, study), resolved)
        check_keep(keep, resolved, check_study(root, study))
        check_best_apart(resolved)
        return resolved

    ranks.join()
    with showing(show if ranks.is_main() else unshown) as show:
        show("checking models and data")
        resolved = ranks.main_first(check)
        purpose = results.Purpose(ablation)
        return run_resolved(resolved, study, root, purpose=purpose, keep=keep, report_to=followers, show=show)


def run_resolved(
    run: ResolvedRun,
    study: str,
    root: str | Path,
    *,
    purpose: results.Purpose,
    keep: str = "full",
    report_to: str | Sequence[str] | None = None,
    show: Show,
) -> dict[str, Any]:
    """Train and score a pinned run where that has not been done, and return its row.

    Raises:
        Held: another process holds the run, and its purpose is not to wait.
    """
    processes, followers = processes_wanted(), chosen(report_to)
    if ranks.count() == 1 < processes and not _is_over(run, check_study(root, study) / "runs" / run.run_id):
        ranks.check_shares(run, processes)
        return run_on_processes(processes, Job(run.spec, study, root, purpose, keep, followers), show)
    ranks.check_shares(run, ranks.count())
    folder = ranks.main_first(lambda: results.open_study(root, study))
    writer: Any = Follower(folder / "runs" / run.run_id)
    watch, report = unwatched, None

    def hold() -> None:
        nonlocal writer, watch, report
        writer = stack.enter_context(results.RunWriter(folder, run.spec, purpose, tell=show))
        report = stack.enter_context(reporting(run, writer.folder, followers))
        watch = report.watching(StatusFile(writer.folder, lambda status: show(status.line()), writer.lease.check))

    with ExitStack() as stack:
        ranks.agree(hold)
        is_done = ranks.agree(lambda: writer.is_done)
        student = None if is_done else _train(run, writer, keep, watch)
        score_all(run, writer.folder, student, watch)
        if report is not None:
            report.send_scores()
    primary = run.evaluations[0].spec.eval_id if run.evaluations else None
    return ranks.agree(lambda: run_row(writer.folder, study, primary))


def _is_over(run: ResolvedRun, folder: Path) -> bool:
    """Whether a run is trained and scored."""
    done = {one.eval_id for one in results.read_evaluations(folder) if one.status == "done"}
    return results.is_done(folder) and done >= {evaluation.spec.eval_id for evaluation in run.evaluations}


def _train(run: ResolvedRun, writer: Any, keep: str, watch: Watch) -> nn.Module | None:
    """Train, save the weights that stay, write the record, and return the model; None where adapters are merged."""
    if ranks.count() > 1:
        ranks.note_differences(run, ranks.count())
    peak = PeakMemory()
    trained = train(run, writer.folder, watch=watch, with_teacher=partial(answer_as_teacher, run, watch))
    written, manifests = ranks.agree(lambda: writing_cost.charge(run.run_id, trained.manifests))
    trained.cost.add(**written)
    cost, parameters = _total_cost(trained, peak), _count_parameters(trained)  # before adapters are merged
    watch(Activity("saving the weights"), 0, 0)
    student = _save(keep, run, trained, writer.folder, model_card(run.spec.training, {}, manifests))
    writer.finish(
        cost,
        manifests,
        chat=_chat(run, trained),
        device=device().type,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        parameters=parameters,
        train_threads=trained.threads,
        teacher_is_folded=_is_folded(run),
        processes=ranks.count(),
    )
    ranks.agree(lambda: shutil.rmtree(writer.folder / "checkpoints", ignore_errors=True))
    return student


def _save(keep: str, run: ResolvedRun, trained: Trained, folder: Path, card: str) -> nn.Module | None:
    """Save the weights that stay, and return the model in each process; None where adapters are merged.

    Raises:
        Failure: it cannot be saved; started again, the run goes on from its weights.
    """
    state = trained_state(trained.model) if is_sharding() else {}

    def save() -> bool:
        saved = trained
        if is_sharding():
            saved = replace(trained, model=load_student(run.spec.student, run.student, run.spec.seed))
            saved.model.load_state_dict(state, strict=False)
        try:
            return save_weights(keep, saved, folder, card) is not None or is_sharding()
        except Exception as error:  # transformers, peft and the disk fail in their own ways
            raise Failure(
                f"the trained model could not be saved to {folder}: {one_line(error)}; its weights are kept in "
                "checkpoints/ there: mend the cause and start the same run again, nothing is trained twice"
            ) from error

    return trained.model if ranks.agree(save) else None


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


def _total_cost(trained: Trained, peak: PeakMemory) -> dict[str, float]:
    """Return tokens, seconds, memory, and the hours of GPU or processor, also those before a kill.

    Memory is that which one GPU needs, or that of all processes together where they share a machine's.
    """
    cost, peak_gib = dict(trained.cost), peak.of_all()
    if peak_gib is not None:
        cost["peak_mem_gib"] = peak_gib
    seconds = sum(cost.get(name, 0.0) for name in ("train_s", "teacher_s", "failed_s"))
    return {name: round(value, 3) for name, value in cost.items()} | device_hours(seconds)


def _is_folded(run: ResolvedRun) -> bool:
    """Whether a loss compared with what a cache keeps of the teacher's distribution."""
    teachers = ((stage, run.teacher_of(stage)) for stage in run.stages)
    return any(
        teacher and teacher[0].is_cached and any(recipe.parts[0].needs_teacher for recipe in stage.recipes)
        for stage, teacher in teachers
    )


def _count_parameters(trained: Trained) -> dict[str, int]:
    counts = [(full_size(p), p.requires_grad) for p in unwrap(trained.model).parameters()]
    return {"total": sum(n for n, _ in counts), "trainable": sum(n for n, trained in counts if trained)}
