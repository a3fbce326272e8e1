"""Run

One run: what it was, what it gave, what it cost, how to repeat it, its curves, answers and notebook.
"""

import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import answers, charts, links, notebooks, readings, states
from studykit import results
from studykit.errors import InputError
from studykit.figures.loss_curves import loss_curves

AXES = {"step": "step", "num_tokens": "tokens", "time_s": "time"}
NO_CURVE = {"stage", "step", "time_s", "epoch", "num_tokens"}


def page() -> None:
    """Show the run that the address names."""
    frame = readings.runs()
    run_id = _chosen(frame)
    if run_id is None:
        return
    line = frame[frame["run_id"] == run_id].iloc[0]
    record = _record(run_id)
    _head(line, record)
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
            show(run_id, record)


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
    names = {line.run_id: _name(line) for line in frame.itertuples()}
    st.session_state["run_choice"] = asked or ids[0]
    st.selectbox("Run", ids, format_func=names.__getitem__, key="run_choice", on_change=_follow_choice)
    return st.session_state["run_choice"]


def _follow_choice() -> None:
    st.query_params["run"] = st.session_state["run_choice"]


def _name(line: Any) -> str:
    budget = "" if pd.isna(line.budget_examples) else f", {line.budget_examples:,} examples"
    seed = "" if pd.isna(line.seed) else f", seed {line.seed}"
    method = "unreadable" if pd.isna(line.method) else line.method
    return f"{method}{budget}{seed} ({line.status}, {line.run_id})"


def _record(run_id: str) -> dict[str, Any]:
    """Return the run's record; what is known without one where it is missing or damaged."""
    folder = results.run_folder(readings.study(), run_id)
    try:
        record = results.read_record(folder)
    except InputError as error:
        st.error(f"The record of this run is damaged: {states.plain(str(error))}", icon=":material/warning:")
        record = None
    return record or {"spec": results.read_spec(folder) or {}}


def _head(line: pd.Series, record: dict[str, Any]) -> None:
    """Show identity and scores; of a failed run its error."""
    st.title(states.plain(_name(line).rpartition(" (")[0]))
    states.badge(line["status"])
    st.text(" · ".join(_facts(line, record)))
    if "error" in record:
        st.code(record["error"], language=None, wrap_lines=True)
    _numbers(record.get("metrics", {}))


def _facts(line: pd.Series, record: dict[str, Any]) -> list[str]:
    facts = [f"student {line['student']}", f"teacher {line['teacher']}", f"{line['steps']} steps"]
    known = [fact for fact, value in zip(facts, line[["student", "teacher", "steps"]], strict=True) if pd.notna(value)]
    return [*known, *(f"{what} {_time(record[what])}" for what in ("started", "finished") if what in record)]


def _time(text: str) -> str:
    """Return 2026-01-31T10:00:00+00:00 as 2026-01-31 10:00:00 UTC."""
    return text.replace("T", " ").replace("+00:00", " UTC")


def _numbers(numbers: dict[str, float]) -> None:
    with st.container(horizontal=True):
        for name, value in numbers.items():
            st.metric(states.plain(name), f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}", width=170)


def _curves(run_id: str, record: dict[str, Any]) -> None:
    running = "status" not in record
    stages = [stage["method"] for stage in record["spec"].get("stages", [])]
    st.fragment(_drawn, run_every=5 if running else None)(run_id, stages)


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


def _items(run_id: str, record: dict[str, Any]) -> None:
    items, damaged = readings.items(results.run_folder(readings.study(), run_id))
    if damaged:
        st.warning(f"{damaged} damaged line{'s' if damaged > 1 else ''} of the items left out")
    answers.show(items, run_id)


def _cost(run_id: str, record: dict[str, Any]) -> None:
    if record.get("cost"):
        _numbers(record["cost"])
    else:
        st.info("Cost is recorded when a run is done.", icon=":material/hourglass_empty:")


def _specification(run_id: str, record: dict[str, Any]) -> None:
    st.markdown("The command that repeats this run:")
    study = readings.study()
    words = ["studykit", "run", str(study / "runs" / run_id / "spec.json"), "--study", study.name]
    st.code(shlex.join([*words, "--results", str(study.parent)]), language="bash")
    st.json(record["spec"], expanded=True)


def _environment(run_id: str, record: dict[str, Any]) -> None:
    known = {part: record[part] for part in ("environment", "device", "parameters", "data", "files") if part in record}
    if known:
        st.json(known, expanded=2)
    else:
        st.info("The environment is recorded when the run ends.", icon=":material/hourglass_empty:")


def _notebook(run_id: str, record: dict[str, Any]) -> None:
    """Show the executed notebook that asked for this run, with its log."""
    cells = [cell for cell in readings.cells() if run_id in cell.get("runs", [])]
    if not cells:
        st.info("No executed notebook of this study asked for this run.")
        return
    names = [f"{cell['notebook']}, cell {Path(cell['folder']).name}" for cell in cells]
    cell = cells[names.index(st.selectbox("Executed for", names))] if len(cells) > 1 else cells[0]
    states.badge(cell["status"])
    st.text(names[cells.index(cell)] + (f", {cell['wall_s']:.0f} s" if "wall_s" in cell else ""))
    try:
        notebooks.show(results.read_notebook(cell["folder"]))
    except InputError as error:
        st.error(states.plain(str(error)))
    if log := results.read_log(cell["folder"]):
        with st.expander("Log"):
            st.code(log, language=None, height=320)


page()
