"""The command line: `studykit COMMAND`, of which those that run batches are in `studykit.batch.cli`.

Exit codes: 0 success, 1 some runs failed, 2 wrong input (one line: what is wrong, and how to correct it). Heavy imports
happen inside the commands, so that `--help` stays fast.
"""

import json
import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studykit.batch.cli import (
    AsJson,
    Processes,
    ReportTo,
    Results,
    Shard,
    batch_command,
    follow,
    set_processes,
    status_command,
    work_command,
)
from studykit.errors import Failure, InputError, unknown

if TYPE_CHECKING:
    from studykit.discovery import Room

app = typer.Typer(
    help="Does distillation beat fine-tuning? Run grids of notebooks, and look at the results.\n\n"
    "Exit codes: 0 success, 1 some runs failed, 2 wrong input (one line: what is wrong, and how to correct it).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _rooms() -> dict[str, str]:
    """Return the import path of every package that declares a room, by the folder's name, importing none of them.

    Read as text, since even `studykit.discovery` takes a while to import and `--help` shows the names.
    """
    files = sorted(Path(__file__).parent.glob("*/__init__.py"))
    texts = {file.parent.name: file.read_text(encoding="utf-8") for file in files}
    return {
        name: f"studykit.{name}" for name, text in texts.items() if re.search(rf'= Room\(\s*"studykit\.{name}"', text)
    }


ROOMS = _rooms()


app.command("batch")(batch_command)
app.command("work")(work_command)
app.command("status")(status_command)


@app.command("run")
def run_command(
    spec: Annotated[Path, typer.Argument(help="File of a run specification in JSON, such as a run's spec.json.")],
    study: Annotated[str, typer.Option(help="Study that the run belongs to.")] = "scratch",
    keep: Annotated[str, typer.Option(help="Weights that stay on disk: none, adapter, bf16 or full.")] = "full",
    report_to: ReportTo = "",
    processes: Processes = None,
    shard: Shard = False,
    results: Results = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Train and score one specification; what is already trained or scored is read.

    Processes that torchrun or `accelerate launch` start compute it together, too.
    """
    set_processes(processes, shard)
    content = _json_object(spec, "specification")
    follow(report_to)
    from studykit import study as studies
    from studykit.batch.terminal import RunProgress
    from studykit.spec import RunSpec

    is_main = os.environ.get("RANK", "0") == "0"
    with RunProgress() if is_main else nullcontext() as progress:
        show = progress.show if progress else None
        row = studies.run(RunSpec.parse(content), study=study, root=results, keep=keep, show=show)
    if is_main:
        _print({name: value for name, value in row.items() if value is not None}, as_json)


@app.command("score")
def score_command(
    run: Annotated[str, typer.Argument(help="Id of a finished run.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="File of an evaluation in JSON; without it the run's first evaluation.")
    ] = None,
    scorers: Annotated[
        str, typer.Option(help="Names of scorers, with commas, in place of the evaluation's: see `list scorers`.")
    ] = "",
    results: Results = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Score a finished run on other items or by other scorers, without training it again."""
    content = None if evaluation is None else _json_object(evaluation, "evaluation")
    from studykit import study as studies

    names = [name.strip() for name in scorers.split(",") if name.strip()]
    row = studies.score(run, content, scorers=names or None, root=results)
    _print({name: value for name, value in row.items() if value is not None}, as_json)


@app.command("cache")
def cache_command(
    teacher: Annotated[str, typer.Argument(help="Teacher: a hub id, a folder, a run's id, or an embedded model.")],
    student: Annotated[
        str, typer.Option(help="Student: its tokenizer is used, and its logits for the gradient cosine.")
    ],
    source: Annotated[str, typer.Option(help="Data source: see `studykit list sources`.")] = "lexicon",
    options: Annotated[str, typer.Option(help="Options of the source, as JSON.")] = "{}",
    split: Annotated[str, typer.Option(help="Split that budgets are drawn from.")] = "train",
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Store the k largest probabilities, and the sum of the others.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, max=255, help="Store this many sampled token ids instead.")
    ] = None,
    max_length: Annotated[
        int, typer.Option(min=2, help="Maximum number of tokens; longer examples are an error.")
    ] = 2048,
    endpoint: Annotated[
        str, typer.Option(help='Server that is the teacher, as JSON: {"url": ..., "model": ..., "logprobs": 64}.')
    ] = "",
    imported: Annotated[
        list[Path] | None,
        typer.Option("--import", help="File with answers captured elsewhere (jsonl, safetensors, npz); repeat it."),
    ] = None,
    results: Results = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Compute a teacher's outputs for a whole pool, ahead of the runs that need them; report their size and quality."""
    source_options = _json_option("options", options)
    server = _json_option("endpoint", endpoint) if endpoint else None
    for file in (file for file in imported or () if not file.is_file()):
        raise InputError(f"--import {file}: no such file")
    from studykit.batch.terminal import CaptureProgress
    from studykit.data import Inputs
    from studykit.spec import RunSpec
    from studykit.study.capture import capture
    from studykit.study.pin import pin

    stage = {"data": {"source": source, "options": source_options, "split": split}, "method": "kd", "epochs": 1}
    spec = RunSpec.parse(
        {
            "student": {"name": student},
            "teacher": {"name": teacher, "top_k": top_k, "samples": samples, "endpoint": server},
            "stages": [stage | {"learning_rate": 1.0, "max_length": max_length}],
        }
    )
    with CaptureProgress() as progress:
        report = capture(pin(spec, Inputs(results)), progress.update, imported or ()).as_dict()
    _print(report, as_json)


@app.command("results")
def results_command(
    study: Annotated[str | None, typer.Argument(help="Name of one study; all studies without it.")] = None,
    results: Results = Path("results"),
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Read every record again, and write the index anew.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the table of runs; trials of tunings have True in the column `trial`."""
    from studykit import results as store
    from studykit.batch.estimates import counted
    from studykit.results.status import running

    root = results / study if study else results
    if study and not store.is_study(root):
        raise unknown("study", study, [folder.name for folder in store.studies(results)])
    if rebuild:
        for folder in store.studies(root):
            typer.echo(f"{folder.name}: {counted(store.rebuild_index(folder), 'run')}", err=True)
    frame = store.load(root, trials=True)
    for folder in store.studies(root):
        for reason in store.damaged_records(folder).values():
            typer.echo(f"damaged: {reason}", err=True)
    if as_json:
        typer.echo(frame.to_json(orient="records"))
    elif frame.empty:
        typer.echo(f"no runs under {root}; `make quickstart` trains some")
    else:
        uncut = [name for name in map(str, frame) if name.endswith("answers_cut") and not frame[name].any()]
        shown = frame.drop(columns=uncut)
        typer.echo(shown.dropna(axis="columns", how="all").to_string(index=False, float_format=lambda x: f"{x:.4g}"))
        for folder in store.studies(root):
            for run_id, status in running(folder).items():
                typer.echo(f"run {run_id} of {folder.name}: {status.line()}")


@app.command("advise")
def advise_command(
    budget: Annotated[int, typer.Option(min=1, help="Examples to train on.")],
    gap: Annotated[float | None, typer.Option(help="Score of the teacher less that of a fine-tuned student.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Limit on the seconds, in those of fine-tuning.")] = None,
    student: Annotated[str | None, typer.Option(help="The student whose runs count.")] = None,
    metric: Annotated[str, typer.Option(help="Metric that the advice is about.")] = "exact_match",
    rows: Annotated[int, typer.Option(min=1, help="Rows of evidence to show.")] = 10,
    results: Results = Path("results"),
) -> None:
    """Say which arm to train at a budget, what that rests on, and what the results do not show."""
    from rich.console import Console

    from studykit.findings._advice import advise
    from studykit.findings._evidence import read_answers

    with Console(stderr=True).status("Reading all findings and the items that their intervals are over"):
        answers = read_answers(results, metric)
    advice = advise(answers, budget=budget, gap=gap, max_cost=max_cost, student=student, score=metric)
    shown, left = advice.table.head(rows), len(advice.table) - rows
    more = [f"({left} more rows: --rows)"] if left > 0 else []
    typer.echo("\n".join([advice.sentence, "", shown.to_string(index=False), *more, "", *advice.unknown]))


@app.command("verify")
def verify_command(
    study: Annotated[str | None, typer.Argument(help="Name of one study; all studies without it.")] = None,
    results: Results = Path("results"),
) -> None:
    """Compare every file of finished runs with the hash kept of it; one line per damage, and exit code 1 for any."""
    from studykit import results as store

    root = results / study if study else results
    if study and not store.is_study(root):
        raise unknown("study", study, [folder.name for folder in store.studies(results)])
    folders = store.studies(root)
    damages = [damage for folder in folders for damage in store.verify(folder)]
    for damage in damages:
        typer.echo(str(damage))
    typer.echo(f"{len(folders)} studies, {len(damages) or 'no'} damaged files", err=True)
    if damages:
        raise typer.Exit(1)


@app.command("list")
def list_command(
    what: Annotated[str, typer.Argument(help="Kind: " + ", ".join(ROOMS) + ".")],
    name: Annotated[str | None, typer.Argument(help="One of them: list its options.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the names of one kind, each with a one-line description and the paper that it comes from."""
    if what not in ROOMS:
        raise unknown("list", what, ROOMS)
    from studykit.discovery import Room

    room = Room(ROOMS[what], kind=what)
    if name is not None:
        _list_options(room, name, as_json)
        return
    described = {name: {"description": room.describe(name), "source": room.source(name)} for name in room.names()}
    if as_json:
        typer.echo(json.dumps(described, ensure_ascii=False))
        return
    width = max(map(len, described), default=0)
    for name, about in described.items():
        typer.echo(f"{name:{width}}  {about['description']}")
        if about["source"]:
            typer.echo(f"{'':{width}}    {about['source']}")


def _list_options(room: "Room", name: str, as_json: bool) -> None:
    """Show the options of one loss, method, ... with default, type and range, and documentation."""
    described = {option.name: option.describe() for option in room.options(name).values()}
    if as_json:
        typer.echo(json.dumps(described, ensure_ascii=False, default=str))
        return
    typer.echo(room.describe(name))
    for option, about in described.items():
        default = f" = {about['default']!r}" if "default" in about else ", required"
        typer.echo(f"  {option}{default}   {about['type']}\n    {about['description']}")


@app.command("dashboard")
def dashboard_command(
    results: Results = Path("results"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the local web server.")] = 8501,
) -> None:
    """Serve the dashboard on this machine."""
    server = Path(__file__).parents[1] / "dashboard" / "server.py"
    if not server.is_file():
        raise InputError(f"{server} is missing: the dashboard runs from a clone of the repository")
    environment = {**os.environ, "STUDYKIT_RESULTS": str(results.resolve())}
    typer.echo(f"dashboard of {results} on http://127.0.0.1:{port}   (Ctrl-C ends it)")
    os.execve(sys.executable, [sys.executable, str(server), "--port", str(port)], environment)


def main() -> None:
    """Run the command line; wrong input becomes one line and exit code 2, any other failure exit code 1."""
    try:
        app()
    except (InputError, Failure, FloatingPointError) as error:
        if os.environ.get("RANK", "0") == "0":  # of several processes one says it
            typer.echo(f"studykit: {error}", err=True)
        sys.exit(2 if isinstance(error, InputError) else 1)


def _json_option(name: str, text: str) -> Any:
    """Return what an option holds as JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"--{name} {text!r} is not JSON: {error}") from None


def _json_object(file: Path, what: str) -> dict[str, Any]:
    """Return the JSON object in a file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read the {what} {file}: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"the {what} {file} must be a JSON object, received {type(content).__name__}")
    return content


def _print(values: dict[str, Any], as_json: bool) -> None:
    """Print names and values as one JSON object, or as lines."""
    width = max(map(len, values), default=0)
    lines = "\n".join(f"{name:{width}} {value}" for name, value in values.items())
    typer.echo(json.dumps(values, allow_nan=False) if as_json else lines)


if __name__ == "__main__":
    main()
