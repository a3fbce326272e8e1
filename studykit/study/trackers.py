"""Report a run to trackers while it trains: one run of theirs for each of ours, with its id as name and its names of
metrics.

    with reporting(run, folder, report_to) as report:
        watch = report.watching(watch)           # sends what `metrics.jsonl` has got since the last call
        ...
        report.send_scores()

The project is the study. A run that was killed goes on in the same run of theirs, and a finished one that is reported
later is sent whole: what has been sent is in `trackers/RUN.json` of the study, and a resumed training logs the same
numbers again. Nothing leaves this machine unless the tracker's own settings say where to: TensorBoard writes to
`tensorboard/` of the study, wandb to `wandb/`, offline; trackio and mlflow to their usual folder or database.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate import tracking as trackers

from studykit.errors import one_line
from studykit.files import json_object, read_lines, write_json
from studykit.models.loading import device
from studykit.results import read_evaluations
from studykit.results.curves import has_numbers
from studykit.results.options import option_values
from studykit.results.status import Activity, Watch
from studykit.training.resolved import ResolvedRun

_LOG = logging.getLogger(__name__)
_EVERY_S = 1.0
_NO_METRICS = ("stage", "step", "time_s")


@contextmanager
def reporting(run: ResolvedRun, folder: Path, report_to: Sequence[str]) -> Iterator["Report"]:
    """Report a run within the block; what it has logged is sent at the latest at the end, also after an error.

    Args:
        run: the pinned run.
        folder: of the run.
        report_to: names of trackers, from `studykit.results.report_to.chosen`.
    """
    report = Report(run, folder, report_to)
    try:
        yield report
    finally:
        report.send_curve()
        report.finish()


class Report:
    """The reports of one run.

    Args:
        run: the pinned run.
        folder: of the run.
        report_to: names of trackers.
    """

    def __init__(self, run: ResolvedRun, folder: Path, report_to: Sequence[str]):
        self._run, self._folder = run, folder
        self._curve, self._seen = folder / "metrics.jsonl", 0
        self._looked_s = 0.0
        steps = [stage.spec.planned_steps for stage in run.stages]
        self._starts = [sum(steps[:number]) for number in range(len(steps) + 1)]
        self._tracked = [_Tracked(name, run, folder) for name in report_to]

    def watching(self, watch: Watch) -> Watch:
        """Return a watch that also sends the curve, at most once a second."""

        def both(activity: Activity, done: int, total: int) -> None:
            watch(activity, done, total)
            if self._tracked and time.monotonic() - self._looked_s >= _EVERY_S:
                self._looked_s = time.monotonic()
                self.send_curve()

        return both

    def send_curve(self) -> None:
        """Send the lines of the training curve that have not been sent; steps count on over the stages."""
        if not self._tracked or not self._curve.is_file() or (size := self._curve.stat().st_size) == self._seen:
            return
        self._seen = size
        lines = [line for line in read_lines(self._curve)[0] if has_numbers(line) and {"stage", "step"} <= line.keys()]
        known = [line for line in lines if line["stage"] in range(len(self._run.stages))]  # the others are damaged
        for line in sorted(known, key=_place):
            values = {name: value for name, value in line.items() if name not in _NO_METRICS}
            for tracked in self._tracked:
                if _place(line) > tracked.sent:
                    tracked.log(values, self._starts[line["stage"]] + line["step"])
                    tracked.note(sent=_place(line))

    def send_scores(self) -> None:
        """Send the scores of evaluations; those of the first one have plain names, as in the table of runs."""
        self.send_curve()
        evaluations = self._run.evaluations if self._tracked else ()
        ids = [evaluation.spec.eval_id for evaluation in evaluations]
        done = {e.eval_id: e.record for e in read_evaluations(self._folder) if e.record is not None and ids}
        for number, eval_id in enumerate(ids):
            record = done.get(eval_id)
            if record is None or record.status != "done":
                continue
            for tracked in self._tracked:
                if eval_id not in tracked.scored:
                    names = {name: f"{eval_id}/{name}" if number else name for name in record.metrics}
                    tracked.log({names[name]: value for name, value in record.metrics.items()}, self._starts[-1])
                    tracked.note(scored=[*tracked.scored, eval_id])

    def finish(self) -> None:
        """Close the trackers."""
        for tracked in self._tracked:
            tracked.finish()


class _Tracked:
    """One tracker's run, which is opened when there is something to send."""

    def __init__(self, name: str, run: ResolvedRun, folder: Path):
        self.name, self._run, self._folder = name, run, folder
        self._file = folder.parents[1] / "trackers" / f"{folder.name}.json"
        self._tracker: Any = None
        self._failed = False
        noted = self._noted().get(name, {})
        self.sent, self.scored = tuple(noted.get("sent", (-1, -1))), list(noted.get("scored", ()))
        self._id: str | None = noted.get("id")

    def log(self, values: dict[str, Any], step: int) -> None:
        """Send values; a tracker that fails is left out from then on, since no training should end for it."""
        self._guarded(lambda: self._open().log(values, step=step))

    def note(self, **fields: Any) -> None:
        """Note on disk what has been sent."""
        vars(self).update(fields)
        noted = {"sent": list(self.sent), "scored": self.scored, "id": self._id}
        self._file.parent.mkdir(exist_ok=True)
        self._guarded(lambda: write_json(self._file, self._noted() | {self.name: noted}))

    def finish(self) -> None:
        """Close it."""
        if self._tracker is not None:
            self._guarded(self._tracker.finish)

    def _open(self) -> Any:
        if self._tracker is None:
            PartialState(cpu=device().type == "cpu")  # as the training makes it, whichever is first
            study, run_id, config = self._folder.parents[1], self._folder.name, _config(self._run)
            self._tracker = _MAKE[self.name](study, run_id, config, self._id)
            self._tracker.start()
            if self.name == "mlflow":
                self._id = self._tracker.tracker.info.run_id
            if self.sent == (-1, -1) and self.name in _CONFIG_LATER:
                _CONFIG_LATER[self.name](self._tracker, config)
        return self._tracker

    def _guarded(self, call: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            with redirect_stdout(sys.stderr):  # some greet on stdout, which is for results
                call()
        except Exception as error:  # of another library, its database or its server
            self._failed = True
            _LOG.warning("%s has failed (%s): run %s goes on without it", self.name, one_line(error), self._folder.name)

    def _noted(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            return json_object(json.loads(self._file.read_text(encoding="utf-8")))
        return {}


def _place(line: dict[str, Any]) -> tuple[int, int]:
    return line["stage"], line["step"]


def _config(run: ResolvedRun) -> dict[str, Any]:
    """Return the identity of a run and its options that are not default, by the names of the table."""
    spec, names = run.spec, {"method": " > ".join(stage.spec.label for stage in run.stages)}
    names |= {"student": spec.student.name} | ({"teacher": spec.teacher.name} if spec.teacher else {})
    steps = sum(stage.spec.planned_steps for stage in run.stages)
    return names | {"seed": spec.seed, "steps": steps} | option_values(spec)


def _make_tensorboard(study: Path, run_id: str, config: dict[str, Any], known: str | None) -> Any:
    return trackers.TensorBoardTracker(run_id, study / "tensorboard")


def _make_trackio(study: Path, run_id: str, config: dict[str, Any], known: str | None) -> Any:
    quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    return trackers.TrackioTracker(study.name, name=run_id, config=config, resume="allow", **quiet)


def _make_wandb(study: Path, run_id: str, config: dict[str, Any], known: str | None) -> Any:
    settings = {"id": run_id, "name": run_id, "resume": "allow", "dir": str(study), "config": config}
    return trackers.WandBTracker(study.name, mode=os.environ.get("WANDB_MODE", "offline"), **settings)


def _make_mlflow(study: Path, run_id: str, config: dict[str, Any], known: str | None) -> Any:
    return trackers.MLflowTracker(study.name, run_id=known, run_name=run_id)


_MAKE = {"mlflow": _make_mlflow, "tensorboard": _make_tensorboard, "trackio": _make_trackio, "wandb": _make_wandb}

_CONFIG_LATER: dict[str, Callable[[Any, dict[str, Any]], None]] = {
    "mlflow": lambda tracker, config: tracker.store_init_configuration(config),
    # its hyperparameters would be another run beside this one
    "tensorboard": lambda tracker, config: tracker.log({"config": json.dumps(config, ensure_ascii=False)}, step=0),
}
"""How a new run gets its configuration where it is not given at the start."""
