"""Which of several evaluations is shown: a picker, left out where there is one."""

import pandas as pd
import streamlit as st

from dashboard import readings
from studykit import results
from studykit.findings import differing_columns


def names(rows: pd.DataFrame) -> dict[str, str]:
    """Return what tells evaluations apart, by their ids.

    Args:
        rows: of a table of runs; each evaluation is named once.
    """
    rows = rows.dropna(subset=["eval_id"]).drop_duplicates("eval_id")
    options = [name for name in results.option_columns(rows) if name.startswith("evaluation_")]
    texts = results.settings(rows, differing_columns(rows, options), defaults=True)
    return {
        str(eval_id): ", ".join(f"{name.removeprefix('evaluation_')} {value}" for name, value in values.items())
        for eval_id, values in zip(rows["eval_id"], texts, strict=True)
    }


def choose(runs: pd.DataFrame) -> pd.DataFrame:
    """Let people choose an evaluation of the study, and return the rows with its scores.

    Args:
        runs: the table with each run's primary evaluation; that of most runs is chosen at first. Its unfinished runs
            stay, and finished ones that lack the chosen evaluation are left out.
    """
    every = readings.runs_and_evaluations()
    done = every[every["status"] == "done"]
    named = names(done)
    if len(named) < 2:
        return runs
    counts = runs["eval_id"].value_counts()
    by_runs = sorted(named, key=lambda eval_id: -counts.get(eval_id, 0))
    chosen = st.selectbox(
        "Evaluation",
        by_runs,
        format_func=lambda eval_id: f"{named[eval_id]} ({eval_id})",
        key="evaluation",
        bind="query-params",
        width=640,
    )
    scored = done[done["eval_id"] == chosen]
    rest = runs[(runs["status"] != "done") & ~runs["run_id"].isin(scored["run_id"])]
    return pd.concat([scored, rest], ignore_index=True)
