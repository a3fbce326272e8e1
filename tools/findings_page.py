"""The page about what all committed studies found: every number and sentence is computed from results/."""

import json
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from studykit import results
from studykit.figures import figures_of
from studykit.findings import markdown_table
from studykit.findings._answers import Answer
from studykit.findings._report import Report, Section, read_report

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
_WORDS = (
    "the paper",
    "question",
    "here",
    "study",
    "contrast",
    "difference",
    "verdict",
    "student",
    "arm",
    "at the edge",
    "tried",
)
_ABOUT_COSTS = (
    "Tokens are counted, seconds were measured, on shared machines with other work beside, and those of runs that "
    "several studies have where the first of them ran: between runs of equal work they differ by up to a factor of "
    "two. What a teacher reads to fill a cache counts for the run that filled it, so that others show 0; in the study "
    "of the cache alone it counts for each run."
)
_COSTS = ("study", "runs", "hours", "student reads", "teacher reads", "generated", "tuning runs", "tuning hours")


def committed() -> list[str]:
    """Return the names of the studies that are part of the repository; others in results/ are somebody's own."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("!results/").strip("/") for line in lines if line.startswith("!results/")]


@cache
def report(root: Path) -> Report:
    """Return the report on the committed studies; reading their items takes a while, so it is made once."""
    return read_report(root, committed())


def studied(root: Path) -> list[Section]:
    """Return the findings of committed studies in the notebooks' order."""
    found = [section for section in report(root).sections if not section.answer.finding.table.empty]
    return sorted(found, key=lambda section: (_notebook(section.answer.name).name, section.folder.name))


def format_page(root: Path, link: str) -> str:
    """Return the page's text.

    Args:
        root: folder of all results.
        link: to it, from the page.
    """
    known = report(root)
    costs = known.costs[[name for name in _COSTS if name in known.costs]] if len(known.costs) else known.costs
    parts = ["## The paper's findings, and what was found here", known.abstract()]
    for question, sections in groupby(studied(root), key=lambda section: section.answer.name):
        notebook = _notebook(question)
        parts += [f"## {_title(notebook)}", f"Notebook [{notebook.name}](../notebooks/{notebook.name})."]
        for section in sections:
            parts += _section(section.folder, section.answer, link)
    return "\n\n".join([*parts, "## What it cost", _ABOUT_COSTS, markdown_table(costs, left=_WORDS)])


def draw_figures(root: Path) -> None:
    """Write the figures of all findings beside the results of their studies, as SVG."""
    for section in studied(root):
        if figure := figures_of(section.answer, section.folder).get(None):
            figure.write_image(_image(section.folder, section.answer), width=860)


def _section(folder: Path, answer: Answer, link: str) -> Iterator[str]:
    done = _done(answer)
    yield f"### Study [{folder.name}]({link}/{folder.name})"
    yield f"> {answer.finding.sentence}"
    if _image(folder, answer).exists():
        yield f"![The figure of this finding: {folder.name}]({link}/{folder.name}/{_image(folder, answer).name})"
    yield markdown_table(answer.finding.table, digits=answer.finding.digits)
    if tuned := results.tuning_columns(done):
        yield (
            "What tuning chose, of how many trials each, whether the best one was at the edge of its grid, and what "
            "was tried:"
        )
        yield markdown_table(_chosen(folder, done, tuned), left=_WORDS)
    yield f"From {len(done)} finished runs with seeds {_listed(done['seed'])}{_machines(folder, done)}."


def tried(folder: Path, run: str) -> str:
    """Return what the tuning of a run tried, such as "0.001, 0.002, 0.004"; empty where nothing was tuned."""
    records = results.read_tunings(results.run_folder(folder, run))
    trials = [trial.values for trial in records[0].trials] if records else []
    names = list(dict.fromkeys(name for trial in trials for name in trial))
    listed = [f"{name.replace('_', ' ')}: " * (len(names) > 1) + _distinct(trials, name) for name in names]
    return "; ".join(listed)


def _distinct(trials: list[dict[str, Any]], name: str) -> str:
    values = {str(trial[name]): trial[name] for trial in trials}.values()
    ordered = sorted(values, key=lambda value: (str(type(value)), value))
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in ordered)


def _chosen(folder: Path, done: pd.DataFrame, tuned: list[str]) -> pd.DataFrame:
    """Return what tuning chose, a row for each arm and setting that it was tuned for."""
    done, tuned = done.assign(tried=[tried(folder, run) for run in done["run_id"]]), [*tuned, "tried"]
    columns = [name for name in ("student", "arm", "budget_examples", *tuned) if name in done and name != "tuning_s"]
    table = (
        done[columns].astype(object).drop_duplicates().sort_values(columns[: -len(tuned) + 1 or None], kind="stable")
    )
    varied = [name for name in table if name != "student" or table[name].nunique() > 1]
    for name in (name for name in tuned if name in table):
        table[name] = [f"{value:g}" if isinstance(value, float) else value for value in table[name]]
    names = {name: str(name).removeprefix("tuned.").replace("_", " ") for name in varied}
    return table[varied].rename(columns=names | {"budget_examples": "budget", "tuned_at_edge": "at the edge"})


def _listed(values: pd.Series) -> str:
    return ", ".join(str(int(value)) for value in sorted(values.unique()))


def _machines(folder: Path, done: pd.DataFrame) -> str:
    """Return the processors that the records of runs name, with "on" before them; older records name none."""
    records = (results.read_record(results.run_folder(folder, run)) for run in done["run_id"].unique())
    machines = [record.environment for record in records if record and record.environment]
    known = sorted({machine.processor for machine in machines if machine.processor})
    return f", on {' and '.join(known)}" if known else ""


def _done(answer: Answer) -> pd.DataFrame:
    return answer.runs[answer.runs["status"] == "done"]


def _image(folder: Path, answer: Answer) -> Path:
    return folder / f"finding_{answer.name}.svg"


def _notebook(question: str) -> Path:
    return next(iter(sorted(NOTEBOOKS.glob(f"[0-9][0-9]_{question}.ipynb"))), NOTEBOOKS / f"{question}.ipynb")


def _title(notebook: Path) -> str:
    """Return the title of a notebook."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "".join(cells[0]["source"]).partition("\n")[0].removeprefix("# ")
