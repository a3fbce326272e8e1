"""Runs

Every run of the study, to filter, search, sort, download and open. The address carries filters and selection.
"""

import hashlib
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import links, progress, readings, states
from studykit import results

FILTERS = {
    "method": "Method",
    "status": "Status",
    "student": "Student",
    "teacher": "Teacher",
    "budget_examples": "Budget (examples)",
    "seed": "Seed",
}
NOT_SET = "(not set)"
ALWAYS = ["method", "status", "budget_examples", "seed", "run_id"]
MODELS = ["student", "teacher"]  # long names, which come late unless they tell runs apart
LAST = [*MODELS, "ablation", "run_id"]


def page() -> None:
    """Show the table of runs."""
    st.title("Runs")
    states.damaged(readings.damaged())
    frame = _runs()
    if frame.empty:
        st.info("This study holds no runs yet.", icon=":material/hourglass_empty:")
        return
    progress.show(frame)
    shown = _searched(_with_options(_filtered(frame)))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{len(shown):,}** of {len(frame):,} runs")
        name = f"{readings.study().name}-runs.csv"
        st.download_button("Download these rows (CSV)", shown.to_csv(index=False), name, "text/csv", on_click="ignore")
        chosen = st.container()
    _table(shown)
    with chosen:
        _link(shown)


def _runs() -> pd.DataFrame:
    """Return the runs to show: those of tunings where people ask for them."""
    every = readings.runs(trials=True)
    count = int(every["trial"].notna().sum()) if "trial" in every else 0
    if count and st.toggle(f"Trials of tuning: {count:,}", key="trials", bind="query-params"):
        return every
    return readings.runs()


def _filtered(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that match the pickers; an empty picker matches all, one with a single choice is left out."""
    keep = pd.Series(True, index=frame.index)
    with st.container(horizontal=True):
        for column, label in FILTERS.items():
            names = sorted(frame[column].dropna().unique())
            if len(names) < 2:
                continue
            wanted = st.multiselect(label, names, key=column, bind="query-params", placeholder="all", width=210)
            if wanted:
                keep &= frame[column].isin(wanted)
    return frame[keep]


def _with_options(frame: pd.DataFrame) -> pd.DataFrame:
    """Offer a picker for every option in which these runs differ, and return the runs that match."""
    texts = {name: frame[name].astype("string").fillna(NOT_SET) for name in results.option_columns(frame)}
    differing = {name: text for name, text in texts.items() if text.nunique() > 1}
    if not differing:
        return frame
    keep = pd.Series(True, index=frame.index)
    with st.expander(f"Options in which these runs differ: {len(differing)}"), st.container(horizontal=True):
        for name, text in differing.items():
            wanted = st.multiselect(
                states.plain(name),
                sorted(text.unique()),
                key=name,
                bind="query-params",
                placeholder="all",
                width=260,
            )
            if wanted:
                keep &= text.isin(wanted)
    return frame[keep]


def _searched(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that contain every word of the search box, in any column."""
    words = (
        st.text_input("Search", key="search", bind="query-params", placeholder="words in any column", width=440) or ""
    )
    text = (
        frame.astype("string").fillna("").agg(" ".join, axis=1).str.lower() if len(frame) else pd.Series(dtype="string")
    )
    for word in words.lower().split():
        frame = frame[text.reindex(frame.index).str.contains(word, regex=False)]
    return frame


def _table(shown: pd.DataFrame) -> None:
    """Show the rows; the selection is kept by run, so that rows which arrive later do not move it."""
    ids = shown["run_id"].tolist()
    selected = [ids.index(st.query_params["run"])] if st.query_params.get("run") in ids else []
    differs = st.toggle("Only columns that differ", value=True, key="differs", bind="query-params")
    filled = [column for column in map(str, shown) if shown[column].notna().any() and column != "study"]
    if differs and len(shown) > 1:
        filled = [name for name in filled if name in ALWAYS or shown[name].nunique(dropna=False) > 1]
    scores = results.metric_columns(shown)
    rank = dict.fromkeys(results.option_columns(shown), 1) | dict.fromkeys(scores, -1)
    rank |= dict.fromkeys([*results.IDENTITY_COLUMNS, "trial"], -2)
    rank |= {name: 2 + LAST.index(name) for name in LAST if name not in MODELS or shown[name].nunique() < 2}
    order = sorted(filled, key=lambda column: rank.get(column, 0))
    key = "runs-" + hashlib.sha256(" ".join(ids).encode()).hexdigest()[:12]
    event = st.dataframe(
        shown,
        hide_index=True,
        column_order=order,
        column_config=_columns(shown),
        height=520 if len(shown) > 13 else "content",
        key=key,
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": selected}},
        alt="Table of runs: identity, status, scores and cost",
    )
    _remember(ids, event["selection"]["rows"])


def _remember(ids: list[str], rows: list[int]) -> None:
    if rows:
        st.query_params["run"] = ids[rows[0]]
    elif st.query_params.get("run") in ids:
        del st.query_params["run"]


def _columns(shown: pd.DataFrame) -> dict[str, Any]:
    """Name units where a column's own name does not; shorten scores."""
    columns: dict[str, Any] = {c: st.column_config.NumberColumn(format="%.4f") for c in results.metric_columns(shown)}
    columns["budget_examples"] = st.column_config.NumberColumn("budget (examples)", format="localized")
    columns["budget_tokens"] = st.column_config.NumberColumn("budget (tokens)", format="localized")
    return columns


def _link(shown: pd.DataFrame) -> None:
    run_id = st.query_params.get("run")
    if run_id in shown["run_id"].tolist():
        links.to_page("run", f"Open run {run_id}", run=run_id)
    else:
        st.caption("Select a row to open its run.")


page()
