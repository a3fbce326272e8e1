"""Findings

Every finding that the study has: its verdicts, figure, table and the runs and notebooks that it rests on.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import charts, links, readings, states, tables
from studykit.figures import figures_of, title
from studykit.figures.score_against_cost import score_against_cost
from studykit.findings import COSTS, FINDINGS, Finding
from studykit.findings._answers import Answer, find_answers
from studykit.results.cells import hypothesis_time
from studykit.statistics.verdicts import Verdict

COLOURS: dict[str, Any] = {"helps": "green", "hurts": "red", "tie": "blue", "cannot tell": "gray"}


def page() -> None:
    """Show a card for each finding."""
    st.title("Findings")
    answers = find_answers(readings.runs(), readings.cells(), readings.study())
    if not answers:
        st.info("No notebook of this study has a finding yet.", icon=":material/hourglass_empty:")
    for number, answer in enumerate(answers):
        with st.container(border=True):
            _card(answer, f"{answer.name}-{number}")


def _card(answer: Answer, key: str) -> None:
    st.markdown(f"### {states.plain(FINDINGS.describe(answer.name))}")
    _verdicts(answer.finding.verdicts)
    st.info(states.plain(answer.finding.sentence), icon=":material/insights:")
    if list(Path(__file__).parent.glob(f"[0-9]*_{answer.name}.py")):
        links.to_page(answer.name, "Figure and table on a separate page")
    elif not answer.finding.table.empty:
        _figures(answer, key)
        _table(answer.finding)
        _costs(answer.finding, key)
    _evidence(answer)


def _verdicts(found: dict[str, Verdict]) -> None:
    """Count the verdicts by word, each with its colour."""
    if found:
        counts = Counter(one.word for one in found.values())
        with st.container(horizontal=True):
            for word, colour in COLOURS.items():
                if counts[word]:
                    st.badge(f"{counts[word]} {word}", color=colour)


def _figures(answer: Answer, key: str) -> None:
    for budget, figure in figures_of(answer, readings.study()).items():
        where = "" if budget is None else f" at {budget:,} examples"
        st.caption(f"{answer.name.replace('_', ' ')}{where}")
        charts.show(figure, f"{FINDINGS.describe(answer.name)}{where}: {answer.finding.sentence}", f"{key}-{budget}")


def _table(finding: Finding) -> None:
    tables.show(finding, finding.table, "The finding's table, with verdicts")
    st.caption(
        f"In brackets {finding.intervals}. The verdicts are corrected over all planned contrasts together (Holm). "
        "Detectable: the smallest difference that seeds and items at hand would find with 80% power at this level."
    )


def _costs(finding: Finding, key: str) -> None:
    """Show each setting's score against a cost, at one budget."""
    spent: dict[int, list[dict[str, float]]] = {}
    for line in (
        line for line in finding.numbers.get("lines", ()) if "score" in line and any(line.get("cost", {}).values())
    ):
        spent.setdefault(line["budget_examples"], []).append(line["cost"])
    if not spent:
        return
    with st.expander("Score against cost"):
        with st.container(horizontal=True):
            budgets = sorted(spent)
            budget = st.selectbox("Budget (examples)", budgets, key=f"{key}-budget", width=200) or budgets[0]
            known = [cost for cost in COSTS if any(costs.get(cost) for costs in spent[budget])]
            cost = st.selectbox("Cost", known, format_func=title, key=f"{key}-cost", width=260) or known[0]
        alt = f"Score against {title(cost)} at {budget:,} examples, and the settings that no cheaper one equals"
        charts.show(score_against_cost(finding, cost, budget), alt, f"{key}-cost-{cost}-{budget}")


def _evidence(answer: Answer) -> None:
    """Show the runs and the executed notebooks."""
    runs, cells = answer.runs, answer.cells
    done = int((runs["status"] == "done").sum())
    with st.expander(f"Evidence: {done} runs, {runs['seed'].nunique()} seeds, {len(cells)} notebooks"):
        columns = ["run_id", "arm", "method", "budget_examples", "seed", "status", answer.finding.numbers.get("score")]
        st.dataframe(
            runs[[column for column in columns if column in runs]], hide_index=True, alt="The runs of this finding"
        )
        if len(runs):
            links.to_page("run", f"Open its first run, {runs['run_id'].iloc[0]}", run=runs["run_id"].iloc[0])
        if cells:
            st.dataframe(_cells(answer), hide_index=True, alt="The notebooks of this finding")


def _cells(answer: Answer) -> pd.DataFrame:
    """Return a row for each notebook, and before which of the runs that it shows its hypothesis was written."""
    return pd.DataFrame(
        {
            "cell": cell.cell_id,
            "notebook": cell.spec.notebook if cell.spec else "",
            "status": cell.status,
            "hypothesis written": str(hypothesis_time(cell) or "not recorded"),
        }
        for cell in answer.cells
    )


page()
