"""How the settings of a run were chosen: the best trial, all others with their scores, and what they cost."""

from typing import Any

import pandas as pd
import streamlit as st

from dashboard import states
from studykit.results import TuningRecord
from studykit.scorers import metric as metric_of


def show(records: list[TuningRecord]) -> None:
    """Show how the settings of a run were chosen; of several tunings that chose it, one at a time.

    Args:
        records: from `results.read_tunings`; none for a run whose settings were given.
    """
    if not records:
        st.info("The settings of this run were given, not tuned.", icon=":material/tune:")
        return
    record = records[0]
    if len(records) > 1:
        names = {one.tuning: f"{one.arm}, {len(one.trials)} trials ({one.tuning})" for one in records}
        chosen = st.selectbox("Chosen by", list(names), format_func=names.__getitem__)
        record = next(one for one in records if one.tuning == chosen)
    st.markdown(f"**{states.plain(_values(record.chosen))}**: {states.plain(_choice(record))}")
    _edges(record)
    with st.container(horizontal=True):
        for name, value in record.cost.items():
            st.metric(states.plain(f"{name} of all trials"), f"{value:,.0f}", width=230)
    st.caption("The cost of tuning is no part of the run's cost. Every arm of this notebook had this many trials.")
    _table(record)


def _choice(record: TuningRecord) -> str:
    items = record.evaluation.data.budget.examples
    scored = f"{items:,} items" if items else "all items"
    seeds = ", ".join(map(str, record.seeds))
    title = metric_of(record.metric).title
    return (
        f"the best of {len(record.trials)} trials by {title}, on {scored} of split {record.evaluation.data.split}, "
        f"seed{'s' if len(record.seeds) > 1 else ''} {seeds}. No test item was looked at."
    )


def _edges(record: TuningRecord) -> None:
    """Say where the best value is the first or last of the grid, and that the grid was widened."""
    if record.widened:
        names = states.plain(", ".join(record.widened))
        st.caption(
            f"The grid of {names} was widened once, for all arms alike: the best trial of an arm was at its edge."
        )
    if record.at_edge:
        names = states.plain(", ".join(record.at_edge))
        st.warning(f"Best at the edge of the grid: {names}. Values beyond it were not tried.", icon=":material/rule:")


def _table(record: TuningRecord) -> None:
    rows = [_row(trial, record) for trial in record.trials]
    shown = pd.DataFrame(rows)
    scores = [name for name in shown if name in {key for trial in record.trials for key in trial.scores}]
    columns: dict[Any, Any] = {name: st.column_config.NumberColumn(format="%.4f") for name in scores}
    st.dataframe(shown, hide_index=True, column_config=columns, alt="Trials with values, scores, seconds and runs")


def _row(trial: Any, record: TuningRecord) -> dict[str, Any]:
    return {
        "chosen": trial.values == record.chosen,
        **trial.values,
        **{record.metric: trial.scores.get(record.metric)},
        **trial.scores,
        "status": trial.status,
        "widened": trial.widened,
        "seconds": trial.cost.get("seconds"),
        "runs": ", ".join(trial.runs),
    }


def _values(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
