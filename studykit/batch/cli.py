"""The commands that run batches: `studykit batch | work | status`.

Heavy imports happen inside the commands, so that `--help` stays fast.
"""

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studykit.errors import InputError

if TYPE_CHECKING:
    from studykit.batch.grid import Cell

Results = Annotated[Path, typer.Option("--results", envvar="STUDYKIT_RESULTS", help="Folder of the results.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Name = Annotated[str, typer.Argument(help="A file in notebooks/batches/ without .yaml, or the path of a YAML file.")]
Jobs = Annotated[int, typer.Option(min=1, help="Number of notebooks that run at the same time.")]
Timeout = Annotated[int, typer.Option(min=1, help="Time limit of one notebook, in seconds.")]
Processes = Annotated[
    int | None, typer.Option(min=1, envvar="STUDYKIT_PROCESSES", help="Processes that compute each run together.")
]
Shard = Annotated[
    bool, typer.Option("--shard", envvar="STUDYKIT_SHARDING", help="Divide the weights of models among them.")
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("-p", "--parameter", help="name=value for every notebook; the value is JSON, or text."),
]
Notebooks = Annotated[Path, typer.Option(help="Folder of the notebooks.")]
ReportTo = Annotated[
    str,
    typer.Option(
        "--report-to",
        envvar="STUDYKIT_REPORT_TO",
        help="Trackers that follow the runs, with commas: mlflow, tensorboard, trackio, wandb.",
    ),
]
_DAY_S = 24 * 3600
_WATCH_EVERY_S = 5.0


def batch_command(
    name: Name,
    executor: Annotated[str, typer.Option(help="Where the notebooks run: see `studykit list executors`.")] = "local",
    option: Annotated[
        list[str] | None,
        typer.Option("-o", "--option", help="name=value for the executor: see `studykit list executors NAME`."),
    ] = None,
    jobs: Jobs = 1,
    processes: Processes = None,
    shard: Shard = False,
    timeout: Timeout = _DAY_S,
    parameter: Parameters = None,
    notebooks: Notebooks = Path("notebooks"),
    results: Results = Path("results"),
    report_to: ReportTo = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, and show what it would take; train nothing.")
    ] = False,
) -> None:
    """Execute a grid of notebooks; finished ones are skipped, interrupted ones continue."""
    from studykit.batch.elsewhere import Workers
    from studykit.batch.estimates import counted
    from studykit.batch.grid import preflight
    from studykit.batch.terminal import BatchReport, describe_done
    from studykit.batch.work import run_batch
    from studykit.executors import WorkersElsewhere, get_executor

    follow(report_to)
    set_processes(processes, shard)
    cells = _plan(name, parameter, notebooks, results)
    runner = get_executor(executor, jobs, _assignments(option or [], "-o"))
    todo = [cell for cell in cells if cell.status() != "done"]
    estimates: dict[str, dict[str, float]] = {}
    workers = None
    if isinstance(runner, WorkersElsewhere) and todo:
        command = _worker_command(name, timeout, parameter or [], notebooks, results)
        workers = Workers(runner, command, results / f"{Path(name).stem}.log", cells)
        if not dry_run:
            workers.check()
    with BatchReport(cells) as report:
        if todo:
            report.say(f"{counted(len(cells), 'cell')}, {len(cells) - len(todo)} already done; checking the others")
            checked = preflight(todo, 1 if workers else jobs)
            for line in checked.lines:
                report.say(line)
            estimates = checked.estimates
            report.expect(estimates, jobs, whole=dry_run)
        elif dry_run:
            report.say(describe_done(cells))
        if dry_run:
            if workers:
                typer.echo(workers.preview(estimates.values()))
            return
        if workers:
            if workers.start(estimates.values()):
                typer.echo(f"{workers.description}; to follow them: studykit status {name} --watch")
                return
            failed = workers.follow(report.update)
        else:
            failed = run_batch(cells, runner, timeout_s=timeout, on_change=report.update, watch=report.watch)
    _print_failures(failed)
    _print_dashboard_hint(results)


def work_command(
    name: Name,
    jobs: Jobs = 1,
    processes: Processes = None,
    shard: Shard = False,
    timeout: Timeout = _DAY_S,
    parameter: Parameters = None,
    notebooks: Notebooks = Path("notebooks"),
    results: Results = Path("results"),
    report_to: ReportTo = "",
    wait: Annotated[
        bool, typer.Option(help="Wait for the cells of other workers, and take over those of workers that die.")
    ] = True,
) -> None:
    """Take the free cells of a batch, one after the other: start as many workers as you like, on any machine.

    All of them must see the results folder. Cells that have failed are left: `studykit batch` tries them again.
    """
    from studykit.batch.work import describe_counts, work
    from studykit.executors._processes import end_with_parent
    from studykit.executors.local import Local

    end_with_parent()
    follow(report_to)
    set_processes(processes, shard)
    cells = _plan(name, parameter, notebooks, results)
    if not results.is_dir():
        raise InputError(f"{platform.node()} sees no folder {results}: workers share one; make it, or set --results")

    def say(counts: dict[str, int]) -> None:
        typer.echo(describe_counts(counts))

    left = work(cells, Local(jobs), timeout_s=timeout, wait=wait, on_change=say)
    _print_failures([cell for cell in left if cell.status() == "failed"])


def status_command(
    name: Name,
    parameter: Parameters = None,
    notebooks: Notebooks = Path("notebooks"),
    results: Results = Path("results"),
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every few seconds until all is over.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the cells of a batch: the worker of each, the age of its heartbeat, and the time left."""
    from rich.console import Console
    from rich.live import Live

    from studykit.batch.overview import Overview

    cells = _plan(name, parameter, notebooks, results)
    overview = Overview.of(cells)
    if as_json:
        typer.echo(json.dumps(overview.to_json()))
    elif not watch:
        Console().print(overview.table(), overview.line(), sep="\n")
    else:
        with Live(overview.view(), auto_refresh=False) as live:
            while not overview.is_over:
                time.sleep(_WATCH_EVERY_S)
                overview = Overview.of(cells)
                live.update(overview.view(), refresh=True)


def set_processes(processes: int | None, shard: bool) -> None:
    """Have each run computed by several processes, here and in all that is started from here."""
    from studykit.results.environment import PROCESSES, SHARDING

    os.environ.update({PROCESSES: str(processes)} if processes else {})
    if shard and not processes and "WORLD_SIZE" not in os.environ:
        raise InputError("--shard divides weights among processes: give their number, such as --processes 8")
    os.environ.update({SHARDING: "1"} if shard else {})


def _plan(name: str, parameters: list[str] | None, notebooks: Path, results: Path) -> list["Cell"]:
    from studykit.batch.grid import plan

    return plan(name, folder=notebooks, results_root=results, overrides=_assignments(parameters or []))


def _worker_command(name: str, timeout: int, parameters: list[str], notebooks: Path, results: Path) -> list[str]:
    """Return the command of a worker on another machine, which sees the same folders."""
    from studykit.results.environment import SHARDING, processes_wanted

    batch = str(Path(name).resolve()) if name.endswith((".yaml", ".yml")) else name
    command = [sys.executable, "-m", "studykit.cli", "work", batch, "--no-wait", "--timeout", str(timeout)]
    folders = ["--notebooks", str(notebooks.resolve()), "--results", str(results.resolve())]
    followed = ["--report-to", names] if (names := os.environ.get("STUDYKIT_REPORT_TO")) else []
    together = [f"--processes={processes_wanted()}"] if processes_wanted() > 1 else []
    together += ["--shard"] if os.environ.get(SHARDING) == "1" else []
    return [*command, *together, *folders, *followed, *(part for pair in parameters for part in ("-p", pair))]


def follow(report_to: str) -> None:
    """Check the names of trackers, and pass them to the runs of this process and of those that it starts."""
    from studykit.results.report_to import REPORT_TO, chosen

    os.environ[REPORT_TO] = ",".join(chosen(report_to))


def _assignments(pairs: list[str], flag: str = "-p") -> dict[str, Any]:
    """Return the values of name=value pairs; a value that is not JSON is a text."""
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"{flag} {pair!r}: write name=value")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def _print_failures(failed: list[Any]) -> None:
    """Name the cells that failed, and end with exit code 1 if there are any."""
    from studykit.batch.grid import failures

    for line in failures(failed):
        typer.echo(f"failed: cell {line['cell']}: {line['error']}  (log: {line['log']})", err=True)
    if failed:
        raise typer.Exit(1)


def _print_dashboard_hint(results: Path) -> None:
    option = "" if results == Path("results") else f" --results {results}"
    typer.echo(f"\nTo look at the results: .venv/bin/studykit dashboard{option}   (http://127.0.0.1:8501)")
