"""What the running runs of the study are doing, read again every few seconds."""

import pandas as pd
import streamlit as st

from dashboard import readings, states

_EVERY_S = 2


def show(runs: pd.DataFrame) -> None:
    """Show a bar for each running run of these rows; the bars move where new results are followed."""
    names = {line["run_id"]: name(line) for _, line in runs[runs["status"] == "running"].iterrows()}
    if names:
        st.fragment(_bars, run_every=_EVERY_S if st.session_state.get("live", True) else None)(names)


def name(line: pd.Series) -> str:
    """Return a run's method, budget and seed."""
    budget = "" if pd.isna(line["budget_examples"]) else f", {line['budget_examples']:,} examples"
    seed = "" if pd.isna(line["seed"]) else f", seed {line['seed']}"
    return f"{'unreadable' if pd.isna(line['method']) else line['method']}{budget}{seed}"


def _bars(names: dict[str, str]) -> None:
    for run_id, status in readings.running().items():
        if run_id in names:
            st.progress(status.share, text=states.plain(f"{names[run_id]}: {status.line()}"))
