"""Run

One run: its options, evaluations and cost, how to repeat it, its curves, answers and notebook.
"""

import shlex
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import answers, charts, evaluations, links, notebooks, progress, readings, states, tuning
from studykit import results
from studykit.errors import InputError
from studykit.figures.loss_curves import loss_curves
from studykit.scorers import ANSWERS_CUT, metric

AXES = {"step": "step", "num_tokens": "tokens", "time_s": "time"}
NO_CURVE = {"stage", "step", "time_s", "epochs", "share_of_steps", "num_tokens"}


@dataclass(frozen=True)
class Opened:
    """The run of the page.

    Attributes:
        run_id: its id.
        status: as in the table of runs.
        record: None while there is none, or where it is damaged.
        spec: what it trains, as plain data; empty where it is damaged.
        evaluation: the one that is shown; None without any.
    """

    run_id: str
    status: str
    record: results.RunRecord | None
    spec: dict[str, Any]
    evaluation: results.StoredEvaluation | None


def page() -> None:
    """Show the run that the address names."""
    frame = readings.runs(trials=True)
    run_id = _chosen(frame)
    if run_id is None:
        return
    line = _evaluation(frame[frame["run_id"] == run_id].iloc[0])
    run = _opened(line)
    _head(line, run)
    parts = {
        "Curves": _curves,
        "Items": _items,
        "Evaluations": _evaluations,
        "Cost": _cost,
        "Tuning": _tuning,
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
    trial = "trial of tuning, " if _is_trial(line) else ""
    return f"{progress.name(line)} ({trial}{line['status']}, {line['run_id']})"


def _is_trial(line: pd.Series) -> bool:
    return line.get("trial") is True


def _evaluation(line: pd.Series) -> pd.Series:
    """Show the picker of the run's evaluations, where there are several, and return the row of the chosen one."""
    rows = readings.evaluations(line["run_id"])
    if len(rows) < 2:
        return line
    names = evaluations.names(rows)
    chosen = st.selectbox(
        "Evaluation",
        list(names),
        index=list(names).index(str(line["eval_id"])),
        format_func=lambda eval_id: f"{names[eval_id]} ({eval_id})",
        key=f"evaluation-{line['run_id']}",
    )
    return rows[rows["eval_id"] == chosen].iloc[0]


def _opened(line: pd.Series) -> Opened:
    """Read the run's record and specification; a record that is missing or damaged leaves what else is known."""
    folder = results.run_folder(readings.study(), line["run_id"])
    record = None
    try:
        record = results.read_record(folder)
    except InputError as error:
        st.error(f"The record of this run is damaged: {states.plain(str(error))}", icon=":material/warning:")
    evaluation = results.find_evaluation(folder, line["eval_id"]) if isinstance(line["eval_id"], str) else None
    if evaluation is not None and evaluation.record is None and evaluation.error:
        st.error(f"The evaluation's record is damaged: {states.plain(evaluation.error)}", icon=":material/warning:")
    return Opened(line["run_id"], line["status"], record, results.read_spec(folder) or {}, evaluation)


def _head(line: pd.Series, run: Opened) -> None:
    """Show identity, options and scores; of a failed run its error."""
    st.title(states.plain(progress.name(line)))
    states.badge(run.status)
    progress.show(pd.DataFrame([line]))
    if _is_trial(line):
        st.info(
            "A trial of tuning: it is scored on validation items, and stands in no finding, figure or average.",
            icon=":material/tune:",
        )
    st.text(" · ".join(_facts(line, run)))
    folder = results.run_folder(readings.study(), run.run_id)
    folders = [folder, *([run.evaluation.folder] if run.evaluation is not None else [])]
    for damage in (damage for place in dict.fromkeys(folders) for damage in readings.changed_files(place)):
        st.warning("A file of this run has changed since the run wrote it:")
        st.text(damage)
    measured = None if run.evaluation is None else run.evaluation.record
    for record in (run.record, measured):
        if record is not None and record.error:
            st.code(record.error, language=None, wrap_lines=True)
    if measured is not None:
        metrics = {name: value for name, value in measured.metrics.items() if value or name != ANSWERS_CUT}
        _numbers({metric(name).label: value * metric(name).scale for name, value in metrics.items()})
        _coverage(measured)
    _options(pd.DataFrame([line]))


def _coverage(record: results.EvaluationRecord) -> None:
    """Say how many items were scored, and how many of the split's different answers they ask for."""
    if (items := record.held_out) is not None:
        scored = f"Scored on {items.examples:,} of {items.pool_examples:,} held-out items"
        st.caption(f"{scored}, with {items.references:,} of {items.pool_references:,} different answers.")


def _options(row: pd.DataFrame) -> None:
    """Show the options that are not default, one a line."""
    options = results.settings(row, results.option_columns(row), tuned=True)[0]
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


def _evaluations(run: Opened) -> None:
    """Show what was measured of the run, one evaluation a row."""
    rows = readings.evaluations(run.run_id).dropna(subset=["eval_id"])
    if rows.empty:
        st.info("This run has no evaluation. The command below adds one.", icon=":material/hourglass_empty:")
    else:
        options = [name for name in results.option_columns(rows) if name.startswith("evaluation_")]
        shown = rows[["eval_id", "status", *options, *results.metric_columns(rows)]].dropna(axis="columns", how="all")
        st.dataframe(shown, hide_index=True, alt="Evaluations of this run, with what they score and the scores")
    st.markdown("The command that scores this run by other scorers, or on other items with `--evaluation`:")
    words = ["studykit", "score", run.run_id, "--scorers", "exact_match,nll", "--results", str(readings.root())]
    st.code(shlex.join(words), language="bash")


def _items(run: Opened) -> None:
    items, damaged = readings.items(run.evaluation) if run.evaluation else ([], 0)
    if damaged:
        st.warning(f"{damaged} damaged line{'s' if damaged > 1 else ''} of the items left out")
    key = f"{run.run_id}-{run.evaluation.eval_id if run.evaluation else ''}"
    answers.show(items, key, readings.primary_metric())


def _cost(run: Opened) -> None:
    if run.record is not None and run.record.cost:
        measured = run.evaluation.record if run.evaluation else None
        _numbers(run.record.cost | (measured.cost if measured else {}))
    else:
        st.info("Cost is recorded when a run is done.", icon=":material/hourglass_empty:")


def _tuning(run: Opened) -> None:
    folder = results.run_folder(readings.study(), run.run_id)
    tuning.show(results.read_tunings(folder))


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
