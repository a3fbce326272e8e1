"""The command line: `studykit batch | run | cache | results | list | dashboard`.

Exit codes: 0 well, 1 some runs failed, 2 wrong input (one line, what and how to mend). Heavy imports happen inside the
commands, so that `--help` answers at once.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from studykit.errors import Failure, InputError, unknown

app = typer.Typer(
    help="Does distillation beat fine-tuning? Run grids of notebooks, and look at what they found.\n\n"
    "Exit codes: 0 well, 1 some runs failed, 2 wrong input (one line says what, and how to mend it).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Results = Annotated[Path, typer.Option("--results", envvar="STUDYKIT_RESULTS", help="The results folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]

ROOMS = {
    "methods": "studykit.methods",
    "losses": "studykit.losses",
    "samplers": "studykit.samplers",
    "rollouts": "studykit.rollouts",
    "sources": "studykit.sources",
    "scorers": "studykit.scorers",
    "findings": "studykit.findings",
    "executors": "studykit.executors",
}


@app.command("batch")
def batch_command(
    name: Annotated[str, typer.Argument(help="A file in notebooks/batches/, or a path to a YAML file.")],
    executor: Annotated[str, typer.Option(help="Where to run: see `studykit list executors`.")] = "local",
    jobs: Annotated[int, typer.Option(min=1, help="Notebooks at a time.")] = 1,
    timeout: Annotated[int, typer.Option(min=1, help="Seconds for one notebook.")] = 24 * 3600,
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="name=value for every cell; value as JSON.")
    ] = None,
    notebooks: Annotated[Path, typer.Option(help="The folder of the notebooks.")] = Path("notebooks"),
    results: Results = Path("results"),
) -> None:
    """Execute a grid of notebooks; what is done is skipped, what was interrupted goes on."""
    from studykit.batch import grid as batch
    from studykit.batch.terminal import BatchReport
    from studykit.executors import EXECUTORS

    cells = batch.plan(name, folder=notebooks, results_root=results, overrides=_assignments(parameter or []))
    place = EXECUTORS.member(executor)(jobs=jobs)
    todo = [cell for cell in cells if cell.status() != "done"]
    with BatchReport(cells) as report:
        if todo:
            report.say(f"{len(cells)} cells, {len(cells) - len(todo)} done before; checking the rest")
            batch.preflight(todo)
        failed = batch.run_batch(cells, place, timeout_s=timeout, watch=report.update)
    for line in batch.failures(failed):
        typer.echo(f"failed: cell {line['cell']}: {line['error']}  (log: {line['log']})", err=True)
    if failed:
        raise typer.Exit(1)
    _say_where_to_look(results)


@app.command("run")
def run_command(
    spec: Annotated[Path, typer.Argument(help="A run specification in JSON, such as a run's spec.json.")],
    study: Annotated[str, typer.Option(help="The study the run belongs to.")] = "scratch",
    results: Results = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Train and score one specification, or show it where it is already done."""
    try:
        content = json.loads(spec.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the specification {spec}: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"the specification {spec} must be a JSON object, received {type(content).__name__}")
    from studykit import study as studies
    from studykit.spec import RunSpec

    row = studies.run(RunSpec.parse(content), study=study, root=results)
    shown = {name: value for name, value in row.items() if value is not None}
    typer.echo(json.dumps(shown, allow_nan=False) if as_json else "\n".join(f"{k:18} {v}" for k, v in shown.items()))


@app.command("cache")
def cache_command(
    teacher: Annotated[str, typer.Argument(help="A hub id, a folder, a run's id, or an embedded model.")],
    student: Annotated[str, typer.Option(help="Gives the tokenizer, and the logits that gradients are compared in.")],
    source: Annotated[str, typer.Option(help="See `studykit list sources`.")] = "lexicon",
    options: Annotated[str, typer.Option(help="The source's options, as JSON.")] = "{}",
    split: Annotated[str, typer.Option(help="The split that budgets are drawn from.")] = "train",
    top_k: Annotated[int | None, typer.Option(min=1, help="Keep so many probabilities and the rest as one.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, max=255, help="Keep so many sampled ids instead.")] = None,
    max_length: Annotated[int, typer.Option(min=2, help="Tokens; longer examples are refused.")] = 2048,
    results: Results = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Ask a teacher about a whole pool once, ahead of the runs that need it; say its bytes and its quality."""
    try:
        read = json.loads(options)
    except ValueError as error:
        raise InputError(f"--options {options!r} is no JSON: {error}") from None
    from studykit.batch.terminal import CaptureProgress
    from studykit.data import Inputs
    from studykit.spec import RunSpec
    from studykit.study.capture import capture
    from studykit.study.pin import pin

    stage = {"data": {"source": source, "options": read, "split": split}, "method": "kd", "steps": 1}
    spec = RunSpec.parse(
        {
            "student": {"name": student},
            "teacher": {"name": teacher, "top_k": top_k, "samples": samples},
            "stages": [stage | {"learning_rate": 1.0, "max_length": max_length}],
        }
    )
    with CaptureProgress() as progress:
        report = capture(pin(spec, Inputs(results)), progress.update).as_dict()
    typer.echo(json.dumps(report) if as_json else "\n".join(f"{name:20} {value}" for name, value in report.items()))


@app.command("results")
def results_command(
    study: Annotated[str | None, typer.Argument(help="One study; without it, all of them.")] = None,
    results: Results = Path("results"),
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Read every record anew.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the table of runs."""
    from studykit import results as store

    root = results / study if study else results
    if study and not (root / "study.json").is_file():
        raise unknown("study", study, [folder.name for folder in store.studies(results)])
    if rebuild:
        for folder in store.studies(root):
            typer.echo(f"{folder.name}: {store.rebuild_index(folder)} runs", err=True)
    frame = store.load(root)
    if as_json:
        typer.echo(frame.to_json(orient="records"))
    elif frame.empty:
        typer.echo(f"no runs under {root}; `make quickstart` makes some")
    else:
        typer.echo(frame.dropna(axis="columns", how="all").to_string(index=False, float_format=lambda x: f"{x:.4g}"))


@app.command("list")
def list_command(
    what: Annotated[str, typer.Argument(help="One of: " + ", ".join(ROOMS))],
    as_json: AsJson = False,
) -> None:
    """List what is there by name, with its one-line description and the paper it comes from."""
    if what not in ROOMS:
        raise unknown("list", what, ROOMS)
    from studykit.discovery import Room

    room = Room(ROOMS[what], kind=what)
    described = {name: {"description": room.describe(name), "source": room.source(name)} for name in room.names()}
    if as_json:
        typer.echo(json.dumps(described, ensure_ascii=False))
        return
    width = max(map(len, described), default=0)
    for name, about in described.items():
        typer.echo(f"{name:{width}}  {about['description']}")
        if about["source"]:
            typer.echo(f"{'':{width}}    {about['source']}")


@app.command("dashboard")
def dashboard_command(
    results: Results = Path("results"),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8501,
) -> None:
    """Open the dashboard on this machine."""
    server = Path(__file__).parents[1] / "dashboard" / "server.py"
    if not server.is_file():
        raise InputError(f"{server} is missing: the dashboard runs from a clone of the repository")
    environment = {**os.environ, "STUDYKIT_RESULTS": str(results.resolve())}
    typer.echo(f"dashboard of {results} on http://127.0.0.1:{port}   (Ctrl-C ends it)")
    os.execve(sys.executable, [sys.executable, str(server), "--port", str(port)], environment)


def main() -> None:
    """Run the command line, turning wrong input into one line and exit code 2, other failures into code 1."""
    try:
        app()
    except (InputError, Failure, FloatingPointError) as error:
        typer.echo(f"studykit: {error}", err=True)
        sys.exit(2 if isinstance(error, InputError) else 1)


def _assignments(pairs: list[str]) -> dict[str, Any]:
    """Read name=value pairs; the value is JSON, or text where it is not."""
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"-p {pair!r}: write name=value")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def _say_where_to_look(results: Path) -> None:
    option = "" if results == Path("results") else f" --results {results}"
    typer.echo(f"\nLook at it: .venv/bin/studykit dashboard{option}   (http://127.0.0.1:8501)")
