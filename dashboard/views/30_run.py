"""Run

One run: its options, scores and cost, how to repeat it, its curves, answers and notebook.
"""

import shlex
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import answers, charts, links, notebooks, progress, readings, states
from studykit import results
from studykit.errors import InputError
from studykit.figures.loss_curves import loss_curves
from studykit.scorers import metric

AXES = {"step": "step", "num_tokens": "tokens", "time_s": "time"}
NO_CURVE = {"stage", "step", "time_s", "epoch", "num_tokens"}


@dataclass(frozen=True)
class Opened:
    """The run of the page.

    Attributes:
        run_id: its id.
        status: as in the table of runs.
        record: None while there is none, or where it is damaged.
        spec: its specification as plain data; empty where it is damaged.
    """

    run_id: str
    status: str
    record: results.RunRecord | None
    spec: dict[str, Any]


def page() -> None:
    """Show the run that the address names."""
    frame = readings.runs()
    run_id = _chosen(frame)
    if run_id is None:
        return
    line = frame[frame["run_id"] == run_id].iloc[0]
    run = _opened(line)
    _head(line, run)
    parts = {
        "Curves": _curves,
        "Items": _items,
        "Cost": _cost,
        "Specification": _specification,
        "Environment": _environment,
        "Notebook": _notebook,
    }
    for tab, show in zip(st.tabs(list(parts), key="show", bind="query-params"), parts.values(), strict=True):
        with tab:
            show(run)


def _chosen(frame: pd.DataFrame) -> str | None:
    """Show the picker of runs; the address decides, so that a link or a step back opens the same run."""
    ids = frame["run_id"].tolist()
    asked = st.query_params.get("run")
    if asked is not None and asked not in ids:
        st.title("No such run")
        st.error(f"The link asks for run {states.plain(asked)}, which is not in this study.")
        links.to_page("runs", "All runs of this study")
        return None
    if not ids:
        st.title("Run")
        st.info("This study holds no runs yet.", icon=":material/hourglass_empty:")
        return None
    names = {line["run_id"]: _name(line) for _, line in frame.iterrows()}
    st.session_state["run_choice"] = asked or ids[0]
    st.selectbox("Run", ids, format_func=names.__getitem__, key="run_choice", on_change=_follow_choice)
    return st.session_state["run_choice"]


def _follow_choice() -> None:
    st.query_params["run"] = st.session_state["run_choice"]


def _name(line: pd.Series) -> str:
    return f"{progress.name(line)} ({line['status']}, {line['run_id']})"


def _opened(line: pd.Series) -> Opened:
    """Read the run's record and specification; a record that is missing or damaged leaves what else is known."""
    folder = results.run_folder(readings.study(), line["run_id"])
    record = None
    try:
        record = results.read_record(folder)
    except InputError as error:
        st.error(f"The record of this run is damaged: {states.plain(str(error))}", icon=":material/warning:")
    return Opened(line["run_id"], line["status"], record, results.read_spec(folder) or {})


def _head(line: pd.Series, run: Opened) -> None:
    """Show identity, options and scores; of a failed run its error."""
    st.title(states.plain(progress.name(line)))
    states.badge(run.status)
    progress.show(pd.DataFrame([line]))
    st.text(" · ".join(_facts(line, run)))
    if run.record is not None:
        if run.record.error:
            st.code(run.record.error, language=None, wrap_lines=True)
        _numbers({metric(name).label: value * metric(name).scale for name, value in run.record.metrics.items()})
        _coverage(run.record)
    _options(pd.DataFrame([line]))


def _coverage(record: results.RunRecord) -> None:
    """Say how many items were scored, and how many of the split's different answers they ask for."""
    if (items := record.held_out) is not None:
        scored = f"Scored on {items.examples:,} of {items.pool_examples:,} held-out items"
        st.caption(f"{scored}, with {items.references:,} of {items.pool_references:,} different answers.")


def _options(row: pd.DataFrame) -> None:
    """Show the options that are not default, one a line."""
    options = results.settings(row, results.option_columns(row))[0]
    if options:
        with st.expander(f"Options other than the default: {len(options)}"):
            lines = [f"{name} = {value}" for name, value in options.items()]
            st.code("\n".join(lines), language=None, wrap_lines=True)


def _facts(line: pd.Series, run: Opened) -> list[str]:
    facts = [f"student {line['student']}", f"teacher {line['teacher']}", f"{line['steps']} steps"]
    known = [fact for fact, value in zip(facts, line[["student", "teacher", "steps"]], strict=True) if pd.notna(value)]
    if run.record is not None:
        known += [f"started {_time(run.record.started)}", f"finished {_time(run.record.finished)}"]
    return known


def _time(text: str) -> str:
    """Return 2026-01-31T10:00:00+00:00 as 2026-01-31 10:00:00 UTC."""
    return text.replace("T", " ").replace("+00:00", " UTC")


def _numbers(numbers: dict[str, float]) -> None:
    with st.container(horizontal=True):
        for name, value in numbers.items():
            st.metric(states.plain(name), f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}", width=230)


def _curves(run: Opened) -> None:
    stages = [stage["method"] for stage in run.spec.get("stages", [])]
    st.fragment(_drawn, run_every=5 if run.record is None else None)(run.run_id, stages)


def _drawn(run_id: str, stages: list[str]) -> None:
    """Draw one column of the training log; a run that is still training is read again every few seconds."""
    curve, damaged = readings.metrics(results.run_folder(readings.study(), run_id))
    columns = [c for c in map(str, curve.select_dtypes("number")) if c not in NO_CURVE]
    if damaged:
        st.warning(f"{damaged} damaged line{'s' if damaged > 1 else ''} of the training log left out")
    if not columns:
        st.info("This run has no training log.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        column = st.selectbox("Curve", columns, key="curve", bind="query-params", width=260)
        axes = [axis for axis in AXES if axis in curve]
        x = st.segmented_control(
            "Against", axes, format_func=AXES.__getitem__, default=axes[0], required=True, key="x", bind="query-params"
        )
        log = st.toggle("Logarithmic", key="log", bind="query-params")
    figure = loss_curves(_by_stage(curve, stages), column, x or axes[0])
    if log:
        figure.update_yaxes(type="log")
    last = curve[column].dropna().iloc[-1]
    charts.show(figure, f"{column} against {AXES[x or axes[0]]}; its last value is {last:.4g}", f"curve-{column}")


def _by_stage(curve: pd.DataFrame, stages: list[str]) -> dict[str, pd.DataFrame]:
    """Name the curve by its method, or each stage's part by stage and method."""
    if len(stages) < 2 or "stage" not in curve:
        return {stages[0] if stages else "this run": curve}
    return {f"stage {place + 1}, {method}": curve[curve["stage"] == place] for place, method in enumerate(stages)}


def _items(run: Opened) -> None:
    items, damaged = readings.items(results.run_folder(readings.study(), run.run_id))
    if damaged:
        st.warning(f"{damaged} damaged line{'s' if damaged > 1 else ''} of the items left out")
    answers.show(items, run.run_id)


def _cost(run: Opened) -> None:
    if run.record is not None and run.record.cost:
        _numbers(run.record.cost)
    else:
        st.info("Cost is recorded when a run is done.", icon=":material/hourglass_empty:")


def _specification(run: Opened) -> None:
    st.markdown("The command that repeats this run:")
    study = readings.study()
    words = ["studykit", "run", str(study / "runs" / run.run_id / "spec.json"), "--study", study.name]
    st.code(shlex.join([*words, "--results", str(study.parent)]), language="bash")
    st.json(run.spec, expanded=True)


def _environment(run: Opened) -> None:
    if run.record is not None:
        parts = ("environment", "device", "parameters", "train_threads", "data", "files")
        st.json({part: value for part, value in run.record.to_json().items() if part in parts}, expanded=2)
    else:
        st.info("The environment is recorded when the run ends.", icon=":material/hourglass_empty:")


def _notebook(run: Opened) -> None:
    """Show the executed notebook that trained or read this run, with its log."""
    cells = [cell for cell in readings.cells() if run.run_id in cell.runs]
    if not cells:
        st.info("No executed notebook of this study has this run.")
        return
    names = {cell.cell_id: f"{cell.spec.notebook if cell.spec else 'notebook'}, cell {cell.cell_id}" for cell in cells}
    chosen = cells[0].cell_id
    if len(cells) > 1:
        chosen = st.selectbox("Executed for", list(names), format_func=names.__getitem__) or chosen
    cell = next(cell for cell in cells if cell.cell_id == chosen)
    states.badge(cell.status)
    st.text(names[chosen] + (f", {cell.wall_s:.0f} s" if cell.wall_s is not None else ""))
    try:
        notebooks.show(results.read_notebook(cell.folder))
    except InputError as error:
        st.error(states.plain(str(error)))
    if log := results.read_log(cell.folder):
        with st.expander("Log"):
            st.code(log, language=None, height=320)


page()
