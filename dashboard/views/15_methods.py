"""Methods

Every method of the study side by side at one budget: score against what it cost, and the difference to a baseline.
"""

import pandas as pd
import streamlit as st

from dashboard import charts, evaluations, readings, states, tables
from studykit.figures import title
from studykit.figures.methods_compared import methods_compared
from studykit.findings import COSTS, Finding, with_costs
from studykit.findings.methods import methods
from studykit.scorers import metric as metric_of


def page() -> None:
    """Show the comparison at one budget, with the verdicts of the finding over all of them."""
    st.title("Methods")
    frame = evaluations.choose(readings.runs())
    done = frame[(frame["status"] == "done") & frame["budget_examples"].notna()]
    if done.empty:
        st.info("No run of this study has finished yet.", icon=":material/hourglass_empty:")
        return
    done, budget, metric, cost = _choices(done)
    baseline = _baseline(done[done["budget_examples"] == budget])
    try:
        finding = methods(done, baseline=baseline, score=metric, folder=readings.study())
    except ValueError as error:
        st.warning(f"No comparison: {states.plain(str(error))}", icon=":material/rule:")
        return
    st.info(states.plain(finding.sentence), icon=":material/insights:")
    figure = methods_compared(finding, budget, cost)
    if figure.data:
        st.markdown(f"#### Difference to {states.plain(baseline)}, and cost")
        charts.show(figure, _described(finding, budget), f"cost-{metric}")
        st.caption(
            f"Mean over seeds of the paired difference to {states.plain(baseline)} with {finding.intervals}, best "
            "first; grey band: the margin of a tie; open marks: cannot tell. The cost is on a logarithmic axis."
        )
    _table(finding, budget)


def _choices(done: pd.DataFrame) -> tuple[pd.DataFrame, int, str, str]:
    """Let people choose student, budget, metric and cost; pickers with one choice are left out."""
    with st.container(horizontal=True):
        students = sorted(done["student"].unique())
        student = students[0]
        if len(students) > 1:
            student = st.selectbox("Student", students, key="student", bind="query-params", width=320) or student
        done = done[done["student"] == student]
        budgets = sorted(int(budget) for budget in done["budget_examples"].unique())
        budget = st.selectbox("Budget (examples)", budgets, key="budget", bind="query-params", width=200)
        budget = budget or budgets[0]
        metrics = readings.metrics_first(done)
        metric = st.selectbox("Metric", metrics, key="measure", bind="query-params", width=260)
        metric = metric or readings.primary_metric()
        spent = with_costs(done)
        known = [cost for cost in COSTS if cost in spent and spent[cost].any()]
        cost = st.selectbox("Cost", known, format_func=title, key="cost", bind="query-params", width=260) or "train_s"
    return done, budget, metric, cost


def _baseline(done: pd.DataFrame) -> str:
    names = sorted(done["method"].unique(), key=lambda m: (m != "sft", m))
    if len(names) < 3:
        return names[0]
    return st.selectbox("Baseline", names, key="against", bind="query-params", width=200) or names[0]


def _described(finding: Finding, budget: int) -> str:
    parts = [
        f"{line['method']} {line['score_difference']['mean']:+.3g}, {line['verdict']['phrase']}"
        for line in finding.numbers["lines"]
        if line["budget_examples"] == budget and "verdict" in line
    ]
    return f"Mean paired difference to {finding.numbers['baseline']} by method, with verdict: " + "; ".join(parts)


def _table(finding: Finding, budget: int) -> None:
    if finding.table.empty:
        return
    shown = finding.table[finding.table["budget"] == budget].drop(columns="budget")
    tables.show(finding, shown, "Score, NLL, differences to the baseline, verdicts and cost of every method")
    st.caption(
        f"Score: {metric_of(finding.numbers['score']).label}; NLL in nats per token; in brackets {finding.intervals}. "
        "Detectable: what these seeds and items would find with 80% power after Holm's correction. Teacher reads: "
        "tokens read by the teacher."
    )


page()
