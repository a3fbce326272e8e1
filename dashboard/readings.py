"""What the pages show: readings of the results folder, cached until its files change."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from studykit import results
from studykit.errors import InputError
from studykit.results import status
from studykit.results.status import Status

_SHOWN = ("spec.json", "evaluation.json", "metrics.jsonl", "items.jsonl")


def root() -> Path:
    """Return the results folder."""
    return Path(os.environ.get("STUDYKIT_RESULTS") or "results")


def study_names() -> list[str]:
    """Return the studies in the results folder.

    Raises:
        InputError: the folder holds things, but no study.
    """
    return [folder.name for folder in results.studies(root())]


def choose_study(names: list[str]) -> None:
    """Show the picker of studies: first the one of the linked run, else the one that changed last."""
    asked = st.query_params.get("study")
    if asked is not None and asked not in names:
        st.warning("The link asks for a study that is not here:")
        st.text(asked)
    if "study" not in st.session_state and asked not in names:
        st.session_state["study"] = _study_of(st.query_params.get("run")) or max(names, key=_last_change)
        st.query_params["study"] = st.session_state["study"]
    st.selectbox("Study", names, index=None, required=True, key="study", bind="query-params")


def study() -> Path:
    """Return the folder of the chosen study."""
    return _folder(st.session_state["study"])


def fingerprint() -> str:
    """Return a text that changes with the chosen study's runs and cells."""
    return results.fingerprint(study())


def runs(*, trials: bool = False) -> pd.DataFrame:
    """Return the table of runs of the chosen study, with the scores of each run's primary evaluation.

    Args:
        trials: whether to include those of tunings, which have True in the column `trial`.
    """
    return results.primary(runs_and_evaluations(trials=trials)).reset_index(drop=True)


def runs_and_evaluations(*, trials: bool = False) -> pd.DataFrame:
    """Return the table of runs of the chosen study with one row per evaluation.

    Args:
        trials: whether to include those of tunings.
    """
    frame = _runs(str(study()), fingerprint())
    return frame[frame["trial"].isna()].drop(columns="trial") if not trials and "trial" in frame else frame


def evaluations(run_id: str) -> pd.DataFrame:
    """Return the rows of a run, one per evaluation."""
    frame = runs_and_evaluations()
    return frame[frame["run_id"] == run_id]


def cells() -> list[results.CellState]:
    """Return the batch cells of the chosen study."""
    return _cells(str(study()), fingerprint())


def running() -> dict[str, Status]:
    """Return what each run of the chosen study that a process works on is doing; read anew at every call."""
    return status.running(study())


def primary_metric() -> str:
    """Return the metric that the notebooks of the chosen study name first; exact match where none does."""
    named = [cell.spec.parameters.get("primary_metric") for cell in cells() if cell.spec]
    return next((name for name in named if isinstance(name, str)), "exact_match")


def metrics_first(frame: pd.DataFrame) -> list[str]:
    """Return the metrics of a table of runs, the primary one first."""
    return sorted(results.metric_columns(frame), key=lambda name: (name != primary_metric(), name))


def damaged() -> dict[str, str]:
    """Return the runs of the chosen study whose record cannot be read, with what is wrong."""
    return _damaged(str(study()), fingerprint())


def items(evaluation: results.StoredEvaluation) -> tuple[list[dict[str, Any]], int]:
    """Return the held-out items of an evaluation and the count of damaged lines."""
    file = evaluation.folder / "items.jsonl"
    return _items(str(file), _version(file))


def changed_files(folder: Path) -> list[str]:
    """Return which files of a run or evaluation that the run's page shows are not what their record vouches for."""
    return _changed_files(str(folder), tuple(_version(folder / name) for name in _SHOWN))


def metrics(run: Path) -> tuple[pd.DataFrame, int]:
    """Return a run's training curves and the count of damaged lines."""
    return _metrics(str(run), _version(run / "metrics.jsonl"))


def _folder(name: str) -> Path:
    return next(folder for folder in results.studies(root()) if folder.name == name)


def _study_of(run_id: str | None) -> str | None:
    """Return the study that holds a run; its id is enough, since it is the run's content."""
    try:
        return results.find_run(root(), run_id or "").parents[1].name
    except InputError:
        return None


def _last_change(name: str) -> int:
    folder = _folder(name)
    return max(place.stat().st_mtime_ns for place in (folder, folder / "runs") if place.is_dir())


def _version(file: Path) -> tuple[int, int] | None:
    return (file.stat().st_mtime_ns, file.stat().st_size) if file.exists() else None


@st.cache_data(max_entries=8, show_spinner="Reading the study")
def _runs(folder: str, version: str) -> pd.DataFrame:
    return results.load(folder, trials=True)


@st.cache_data(max_entries=8, show_spinner=False)
def _cells(folder: str, version: str) -> list[results.CellState]:
    return results.cells(folder)


@st.cache_data(max_entries=8, show_spinner=False)
def _damaged(folder: str, version: str) -> dict[str, str]:
    return results.damaged_records(folder)


@st.cache_data(max_entries=16, show_spinner=False)
def _changed_files(folder: str, versions: tuple[Any, ...]) -> list[str]:
    return [str(damage) for damage in results.damaged_files(Path(folder), _SHOWN)]


@st.cache_data(max_entries=16, show_spinner="Reading the items")
def _items(file: str, version: tuple[int, int] | None) -> tuple[list[dict[str, Any]], int]:
    return results.read_item_file(Path(file))


@st.cache_data(max_entries=16, show_spinner=False)
def _metrics(run: str, version: tuple[int, int] | None) -> tuple[pd.DataFrame, int]:
    return results.read_metrics(Path(run))
