"""Overview

Does distillation beat fine-tuning, by how much, and where does its advantage end? Curve, finding and what is missing.
"""

import pandas as pd
import streamlit as st

from dashboard import charts, evaluations, links, readings, states, tables
from studykit.figures.difference_against_budget import difference_against_budget
from studykit.figures.score_against_budget import score_against_budget
from studykit.findings import FINDINGS, Finding, labels
from studykit.results import CellState
from studykit.results.record import STATUSES
from studykit.scorers import metric as metric_of

MOST_CURVES = 6  # with more methods only the two that are compared are drawn; the page of methods shows them all


def page() -> None:
    """Show the study's finding and how complete it is."""
    st.title(states.plain(readings.study().name))
    frame = readings.runs()
    _counts(frame, readings.cells())
    states.damaged(readings.damaged())
    if not (frame["status"] == "done").any():
        st.info(
            "No run of this study has finished yet. Curve and finding appear with the first.",
            icon=":material/hourglass_empty:",
        )
    else:
        _answer(_comparable(evaluations.choose(frame)))
    _coverage(frame)
    _unfinished(frame, readings.cells())


def _answer(frame: pd.DataFrame) -> None:
    """Show finding, curves and table for one student and teacher."""
    methods = sorted(frame["method"].dropna().unique(), key=lambda m: (m != "sft", m != "kd", m))
    baseline, arm, metric = _contrast(methods, readings.metrics_first(frame))
    try:
        finding = FINDINGS.member("data_size")(
            frame,
            baseline=baseline,
            arm=arm,
            score=metric or readings.primary_metric(),
            folder=readings.study(),
        )
    except ValueError as error:
        st.warning(f"No finding: {states.plain(str(error))}", icon=":material/rule:")
        return
    st.info(states.plain(finding.sentence), icon=":material/insights:")
    if metric is not None:
        crowded, metric = len(methods) > MOST_CURVES, finding.numbers["score"]
        _curves(frame[frame["method"].isin([baseline, arm])] if crowded else frame, metric, finding)
    _table(finding)


def _contrast(methods: list[str], metrics: list[str]) -> tuple[str, str, str | None]:
    """Let people choose what is compared; pickers with one choice are left out."""
    with st.container(horizontal=True):
        metric = st.selectbox("Metric", metrics, key="metric", bind="query-params", width=260) if metrics else None
        if len(methods) < 3:
            return methods[0], methods[-1] if len(methods) > 1 else "kd", metric
        baseline = st.selectbox("Baseline", methods, key="baseline", bind="query-params", width=200)
        arm = st.selectbox(
            "Compared with it", [m for m in methods if m != baseline], key="arm", bind="query-params", width=200
        )
    return baseline, arm, metric


def _curves(frame: pd.DataFrame, metric: str, finding: Finding) -> None:
    baseline, arm = finding.numbers["baseline"], finding.numbers["arm"]
    done = frame[(frame["status"] == "done") & frame["budget_examples"].notna()].dropna(subset=[metric])
    if done.empty:
        st.info(f"No finished run has a budget and the metric {states.plain(metric)}.")
        return
    left, right = st.columns(2)
    with left:
        st.markdown("#### Score against data")
        charts.show(score_against_budget(frame, metric), _described(done, metric), f"score-{metric}")
        st.caption(f"Line: mean over seeds, {_seeds(done)}. Band: 95% t interval over seeds. Open marks: single runs.")
    with right:
        st.markdown(f"#### {states.plain(arm)} - {states.plain(baseline)}, paired by seed")
        charts.show(
            difference_against_budget(finding),
            f"{arm} minus {baseline} in {metric} by budget; the table below holds the numbers",
            f"difference-{metric}",
        )
        st.caption(
            "Means of the differences between runs of the same seed, as in the table: "
            f"{finding.intervals}. Open marks: single seeds."
        )


def _seeds(done: pd.DataFrame) -> str:
    counts = done.groupby(["method", "budget_examples"])["seed"].nunique()
    low, high = counts.min(), counts.max()
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def _described(done: pd.DataFrame, metric: str) -> str:
    """Return the curve in words: first and last mean of each method."""
    parts = []
    for method, part in done.groupby("method"):
        means = part.groupby("budget_examples")[metric].mean()
        parts.append(
            f"{method} {means.iloc[0]:.3g} at {means.index[0]:,} examples, {means.iloc[-1]:.3g} at {means.index[-1]:,}"
        )
    return f"Mean {metric} against the budget: {'; '.join(parts)}"


def _table(finding: Finding) -> None:
    if finding.table.empty:
        return
    shown, nll = metric_of(finding.numbers["score"]), metric_of("nll")
    st.markdown("#### Finding by budget")
    tables.show(finding, finding.table, "Scores, NLL, paired differences and costs by budget")
    st.caption(
        f"{shown.label}; columns with NLL in {nll.unit}; in brackets {finding.intervals}. Verdicts are corrected over "
        "these budgets (Holm); those of the findings, over all contrasts of their question, are stricter."
    )


def _comparable(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep one student, one teacher and one variant of each method: only such runs can be compared.

    Runs without a teacher stay.
    """
    with st.container(horizontal=True):
        for column in ("student", "teacher"):
            names = sorted(frame.loc[frame["status"] == "done", column].dropna().unique())
            if len(names) > 1:
                name = st.selectbox(column.capitalize(), names, key=column, bind="query-params", width=320)
                frame = frame[(frame[column] == name) | frame[column].isna()]
        named = labels(frame)
        for method, part in frame[frame["status"] == "done"].groupby("method"):
            variants = sorted(named[part.index].unique())
            if len(variants) > 1:
                chosen = st.selectbox(f"Which {method}", variants, key=f"options-{method}", width=640)
                frame = frame[(frame["method"] != method) | (named[frame.index] == chosen)]
    return frame


def _counts(frame: pd.DataFrame, cells: list[CellState]) -> None:
    for what, found in (("Runs", frame["status"].tolist()), ("Notebooks", [cell.status for cell in cells])):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{what}**", width=100)
            for status in STATUSES:
                states.badge(status, found.count(status))


def _coverage(frame: pd.DataFrame) -> None:
    """Show how many runs each budget has of each method, so that a gap is seen."""
    known = frame.dropna(subset=["method", "budget_examples"])
    if known.empty:
        return
    seeds = known["seed"].nunique()
    with st.expander("Runs by budget and method"):
        counted = (
            known.groupby(["budget_examples", "method"]).apply(_standing, seeds).unstack().fillna(f"{seeds} missing")
        )
        st.dataframe(counted.rename_axis("budget (examples)"), alt="Runs by budget, method and status")
        st.caption(f"Of {seeds} seeds in this study.")


def _standing(part: pd.DataFrame, seeds: int) -> str:
    counts = [(int((part["status"] == status).sum()), status) for status in STATUSES]
    counts.append((seeds - part["seed"].nunique(), "missing"))
    return ", ".join(f"{count} {status}" for count, status in counts if count)


def _unfinished(frame: pd.DataFrame, cells: list[CellState]) -> None:
    """Lead to the runs and name the notebooks that are not done."""
    missing = sorted(frame.loc[frame["status"] != "done", "status"].unique())
    if missing:
        links.to_page("runs", f"Runs that are not done: {(frame['status'] != 'done').sum()}", status=missing)
    broken = [
        {
            "status": cell.status,
            "notebook": cell.spec.notebook if cell.spec else cell.cell_id,
            "parameters": cell.spec.parameters if cell.spec else None,
            "error": cell.error,
        }
        for cell in cells
        if cell.status != "done"
    ]
    if broken:
        st.markdown("#### Notebooks that are not done")
        st.dataframe(
            pd.DataFrame(broken).astype("string"), hide_index=True, alt="Notebooks that are not done, with their error"
        )


page()
