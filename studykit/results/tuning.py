"""How the settings of a run were chosen: all trials with their scores, beside the run that has the best ones.

    write_tuning(run_folder, record)                 # runs/<run_id>/tuning/<tuning>.json
    [newest, *others] = read_tunings(run_folder)

The same training may be chosen by a tuning in one comparison, by another in the next, and given by hand in a third, so
that the choice is no part of a run's identity and not in its record. Each file is sealed with the hash of its content.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field

from studykit.errors import InputError
from studykit.files import seal, write_json
from studykit.results.arms import BY_HAND, Role, is_trial, names_of, tunings_of
from studykit.results.options import CHOSEN, TUNING
from studykit.results.plain import Record
from studykit.results.record import RECORD_SCHEMA, read_typed
from studykit.spec import Evaluation

FOLDER = "tuning"

COLUMNS = (TUNING, "trials", "tuned_at_edge", "tuning_s")
"""Of a table of runs; missing where nothing was tuned."""


class Trial(Record):
    """One point of the grid, trained with each of the tuning's seeds."""

    values: dict[str, Any] = Field(description="the values that were tried, by name")
    runs: tuple[str, ...] = Field(description="ids of its runs, one for each seed")
    status: Literal["done", "diverged"] = Field(description="a trial that diverged counts as the worst")
    scores: dict[str, float] = Field(default={}, description="means over the seeds, on the validation items")
    cost: dict[str, float] = Field(default={}, description="tokens and seconds of its runs, scoring included")
    widened: bool = Field(default=False, description="whether it was added because the best one lay at the edge")


class TuningRecord(Record):
    """`tuning/<tuning>.json` of a run: the trials that its settings were chosen from."""

    schema_version: int = Field(default=RECORD_SCHEMA, alias="schema", description="version of this layout")
    tuning: str = Field(description="12 hex digits: what was tuned for which arms, and how; the same for all seeds")
    arm: str = Field(description="name of the arm in the comparison")
    space: dict[str, Any] = Field(description="the values of the grid by name, as they were given")
    seeds: tuple[int, ...] = Field(description="of the trials; none of them is reported")
    metric: str = Field(description="by which the best trial was chosen; NLL decides between equals")
    evaluation: Evaluation = Field(description="the validation items that trials were scored on")
    chosen: dict[str, Any] = Field(description="values of the best trial")
    at_edge: tuple[str, ...] = Field(
        default=(), description="names whose best value is the first or last of the grid, after it was widened"
    )
    widened: tuple[str, ...] = Field(default=(), description="names whose grid was widened, for all arms alike")
    trials: tuple[Trial, ...] = Field(description="all trials of the arm, in the order of the grid")
    finished: str = Field(description="UTC, ISO 8601")

    @property
    def cost(self) -> dict[str, float]:
        """Tokens and seconds of all trials together; no part of the run's own cost."""
        names = dict.fromkeys(name for trial in self.trials for name in trial.cost)
        return {name: round(sum(trial.cost.get(name, 0.0) for trial in self.trials), 3) for name in names}

    def columns(self) -> dict[str, Any]:
        """Return what a table of runs says of it; values that differ by stage are one text, as "0.004 > 0.0004"."""
        chosen = {
            f"{CHOSEN}{name}": " > ".join(map(str, value)) if isinstance(value, list) else value
            for name, value in self.chosen.items()
        }
        counts = {"trials": len(self.trials), "tuned_at_edge": ", ".join(self.at_edge) or "no"}
        return {"tuning": self.tuning} | counts | {"tuning_s": self.cost.get("seconds", 0.0)} | chosen


def write_tuning(run_folder: Path, record: TuningRecord) -> None:
    """Put the record beside the run that it chose; that of the same tuning is replaced."""
    write_json(run_folder / FOLDER / f"{record.tuning}.json", seal(record.to_json()))


def read_tunings(run_folder: Path) -> list[TuningRecord]:
    """Return how the settings of a run were chosen, the newest first; damaged files are left out."""
    found = []
    for file in tuning_files(run_folder):
        try:
            record = read_typed(file, TuningRecord)
        except InputError:
            continue
        found += [] if record is None else [record]
    return sorted(found, key=lambda record: record.finished, reverse=True)


def tuning_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns of a table of runs that tell what tuning chose, at what cost; none where nothing was tuned."""
    chosen = [name for name in map(str, frame.columns) if name.startswith(CHOSEN)]
    return [*chosen, *(name for name in COLUMNS[1:] if name in frame)]


def in_tuning(frame: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a study that were tuned as some runs were; of runs without tuning, those given by hand.

    Args:
        frame: from `results.load`.
        runs: the rows of one comparison, as `compare` returns them.
    """
    if TUNING not in frame:
        return frame
    wanted = set(runs[TUNING].fillna(BY_HAND)) if TUNING in runs else {BY_HAND}
    shared = [wanted & set(str(text).split(", ")) for text in frame[TUNING].fillna(BY_HAND)]
    names = pd.Series([next(iter(found), None) for found in shared], index=frame.index, dtype=object)
    rows = frame.assign(**{TUNING: names})[[bool(found) for found in shared]]
    if wanted == {BY_HAND}:
        return rows.drop(columns=[TUNING, *tuning_columns(rows)])
    return rows


def tuning_files(run_folder: Path) -> list[Path]:
    """Return the files of a run that tell how its settings were chosen."""
    return sorted((run_folder / FOLDER).glob("[!.]*.json"))


def columns_in_comparisons(runs: Path, line: Mapping[str, Any], roles: Sequence[Role]) -> dict[str, Any]:
    """Return what a run's part in comparisons adds to its line of the table: names, and how its settings were chosen.

    Args:
        runs: the folder of all runs of the study.
        line: with the id of the run, and the name and question of its record.
        roles: from `read_roles`.
    """
    columns: dict[str, Any] = {"arm": names_of(line.get("arm"), roles)}
    if is_trial(roles, line.get("ablation")):
        columns["trial"] = True
    if tunings := tunings_of(roles):
        newest = read_tunings(runs / line["run_id"])
        columns |= newest[0].columns() if newest else {}
        columns["tuning"] = tunings
    return columns
