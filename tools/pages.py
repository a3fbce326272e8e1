"""Write the figures and tables of README and docs from the committed results: `python -m tools.pages [FILE]`.

The text between the markers of a page is generated, that of docs/provenance.md from docstrings; a test compares it with
its source, so that no number in it is typed by hand. Drawing figures needs Chromium or Chrome (kaleido drives it);
checking the text does not.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks import tables as benchmarks
from benchmarks.simulation import format_checks
from studykit import results
from studykit.discovery import options_of
from studykit.figures.difference_against_bytes import difference_against_bytes
from studykit.figures.methods_compared import methods_compared
from studykit.figures.score_against_budget import score_against_budget
from studykit.findings import Finding, markdown_table
from studykit.findings.data_size import data_size
from studykit.findings.methods import methods
from studykit.findings.teacher_cache import teacher_cache
from studykit.methods import METHODS
from studykit.results.record import EvaluationRecord
from studykit.scorers import metric
from studykit.study.released import released
from tools import findings_page, models_page, provenance, records_page

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Page:
    """A page with one generated block.

    Attributes:
        file: relative to the repository.
        study: the folder under results/ with its numbers.
    """

    file: str
    study: str

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return ROOT / "results" / self.study

    @property
    def markers(self) -> tuple[str, str]:
        """The lines before and after the generated block."""
        return f"<!-- generated: results/{self.study} -->", "<!-- end generated -->"

    def generated(self) -> str:
        """Return the text between the markers."""
        raise NotImplementedError

    def draw(self) -> None:
        """Write the figures of the block, and other files beside the results; a page of text and tables has none."""

    def compared(self, block: str) -> str:
        """Return what must be the same in the page and in the text that would be generated: all of it."""
        return block

    def replaced(self, text: str) -> str:
        """Return the page's text with a fresh block."""
        start, end = self.markers
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        return f"{before}{start}\n\n{self.generated()}\n\n{end}{after}"

    def write(self) -> None:
        """Draw the figures and rewrite the block."""
        self.draw()
        file = ROOT / self.file
        file.write_text(self.replaced(file.read_text(encoding="utf-8")), encoding="utf-8")


@dataclass(frozen=True)
class StudyPage(Page):
    """A page about the runs of a study.

    Attributes:
        find: the finding.
        block: finding, finished runs and number of held-out items to Markdown.
        figures: writes the figures that the block shows.
    """

    find: Callable[..., Finding]
    block: Callable[[Finding, pd.DataFrame, int], str]
    figures: Callable[[Finding, pd.DataFrame], None]

    def frame(self) -> pd.DataFrame:
        """Return the runs of the study, also those that were trained for another question."""
        return results.primary(results.load(self.folder))

    def finding(self, frame: pd.DataFrame) -> Finding:
        """Return the finding, which reads stored items where it can."""
        folder = {"folder": self.folder} if "folder" in options_of(self.find) else {}
        return self.find(frame, **folder)

    def generated(self) -> str:
        """Return the text between the markers."""
        frame = self.frame()
        done = frame[frame["status"] == "done"]
        run = results.run_folder(self.folder, done["run_id"].iloc[0]) if len(done) else None
        evaluation = results.find_evaluation(run, done["eval_id"].iloc[0]) if run else None
        return self.block(self.finding(frame), done, _count_items(evaluation.record if evaluation else None))

    def draw(self) -> None:
        """Draw the figures and write the finding as JSON; without runs do nothing."""
        frame = self.frame()
        if frame.empty:
            return
        finding = self.finding(frame)
        self.figures(finding, frame)
        content = {"sentence": finding.sentence, **finding.numbers}
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        (self.folder / "finding.json").write_text(text, encoding="utf-8")


def _count_items(record: EvaluationRecord | None) -> int:
    if record is None:
        return 0
    return record.held_out.examples if record.held_out else record.evaluation.items or 0


class RecordsPage(Page):
    """The page on the files of a study: a table of keys per record; the JSON schemas are in the same folder."""

    @property
    def markers(self) -> tuple[str, str]:
        """The lines before and after the generated block."""
        return "<!-- generated: studykit/results/record.py -->", "<!-- end generated -->"

    def generated(self) -> str:
        """Return the text between the markers."""
        return records_page.format_page()

    def draw(self) -> None:
        """Write the JSON schemas."""
        for name, text in records_page.schemas().items():
            (ROOT / "docs" / name).write_text(text, encoding="utf-8")


class FindingsPage(Page):
    """The page about what all committed studies found."""

    @property
    def folder(self) -> Path:
        """The folder of all results."""
        return ROOT / "results"

    @property
    def markers(self) -> tuple[str, str]:
        """The lines before and after the generated block."""
        return "<!-- generated: results -->", "<!-- end generated -->"

    def generated(self) -> str:
        """Return the text between the markers."""
        return findings_page.format_page(self.folder, "../results")

    def draw(self) -> None:
        """Draw the figures."""
        findings_page.draw_figures(self.folder)


class BenchmarksPage(Page):
    """The page about speed and memory."""

    @property
    def reports(self) -> dict[str, list[benchmarks.Report]]:
        """The reports by benchmark."""
        return benchmarks.read_reports(self.folder, f"../results/{self.study}")

    def generated(self) -> str:
        """Return the text between the markers."""
        return benchmarks.format_page(self.reports)

    def draw(self) -> None:
        """Draw the figures."""
        benchmarks.draw_figures(self.reports, self.folder)


class ModelsPage(Page):
    """The page about architectures and chat templates."""

    def generated(self) -> str:
        """Return the text between the markers."""
        return models_page.format_page(self.folder)


class StatisticsPage(Page):
    """The page about verdicts: what a simulation counted."""

    def generated(self) -> str:
        """Return the text between the markers."""
        file = self.folder / "simulation.json"
        return format_checks(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else "Not simulated yet."


class ProvenancePage(Page):
    """The page about where each method comes from."""

    @property
    def markers(self) -> tuple[str, str]:
        """The lines before and after the generated block."""
        return "<!-- generated: docstrings of studykit/methods and their parts -->", "<!-- end generated -->"

    def generated(self) -> str:
        """Return the text between the markers."""
        return provenance.format_page(METHODS.names())

    def compared(self, block: str) -> str:
        """Return the sections of released methods: a new method is one file, and no edit of this page."""
        found = provenance.sections(block).items()
        return "\n".join(f"{name}: {text}" for name, text in found if f"method.{name}" in released())


def _data_size_block(finding: Finding, done: pd.DataFrame, items: int) -> str:
    table = finding.table[[name for name in finding.table if not str(name).endswith(("reads", "GiB"))]]
    return "\n\n".join(
        (
            f"> {finding.sentence}",
            "![Exact match on held-out words against the number of training examples, for fine-tuning and "
            "distillation, with 95% intervals over seeds](results/lexicon/data_size.svg)",
            markdown_table(table, digits=finding.digits),
            f"From the {len(done)} runs in [`results/lexicon`](results/lexicon): exact match in points and NLL in nats "
            f"per token, on {items:,} held-out words; means over seeds, paired differences with {finding.intervals}. "
            f"{_about_tuning(done)}{_about_verdicts('the budgets')}",
            "What the paper found, and what is found here, where it was tested with the most seeds "
            "([all findings, with tokens and memory](docs/findings.md)):",
            findings_page.report(ROOT / "results").claim_lines(),
        )
    )


def _about_tuning(done: pd.DataFrame) -> str:
    """Return how many trials chose the settings of each arm at each budget; nothing where none were tuned."""
    if "trials" not in done or done["trials"].isna().any():
        return ""
    least, most = int(done["trials"].min()), int(done["trials"].max())
    number = f"{least}" if least == most else f"{least} to {most}"
    return f"The learning rate of each arm at each budget was chosen by {number} trials on validation words. "


def _about_verdicts(contrasts: str) -> str:
    """Return what the verdicts of a page mean."""
    points, nats = (f"{metric(name).margin:g} {metric(name).unit}" for name in ("exact_match", "nll"))
    return (
        f"*Verdict*: a tie where the whole interval is within ±{points} (or ±{nats}); helps or hurts where it is clear "
        f"of zero and the t test's p is at most 5% after Holm's correction over {contrasts}; otherwise cannot tell, "
        "with the number of seeds that would be needed, or that it is test items. *Detectable*: the smallest "
        "difference that these seeds and items would find with 80% power after the correction."
    )


def _draw_data_size(_: Finding, frame: pd.DataFrame) -> None:
    target = ROOT / "results" / "lexicon" / "data_size.svg"
    score_against_budget(frame).write_image(target, width=860, height=400)


def _methods_block(finding: Finding, done: pd.DataFrame, items: int) -> str:
    parts = [f"> {finding.sentence}"]
    for budget, part in finding.table.groupby("budget", sort=True):
        steps = int(done[done["budget_examples"] == budget]["steps"].iloc[0])
        image = f"../results/methods/methods_{budget}.svg"
        parts += [
            f"### {budget:,} examples, {steps:,} optimizer steps",
            f"![Difference to fine-tuning in exact match, with {finding.intervals}, and the margin of a tie, and "
            f"seconds of training, one line per method, at {budget:,} examples]({image})",
            _tried(done[done["budget_examples"] == budget]["run_id"]),
            markdown_table(part.drop(columns="budget"), digits=finding.digits),
        ]
    parts.append(
        f"From the {len(done)} runs in [`results/methods`](../results/methods): exact match in points and NLL in nats "
        f"per token, on {items:,} held-out words; means over seeds, paired differences with {finding.intervals}. "
        "*generated*: tokens drawn from any model during training; *teacher reads*: tokens that went through the "
        "teacher; *seconds*: of training, on shared machines of two cores with other work beside; some methods' runs "
        "are those of another study, measured there, so that equal work differs by up to a factor of two. "
        + _about_verdicts("all methods and budgets")
    )
    return "\n\n".join(parts)


def _tried(runs: pd.Series) -> str:
    found = {findings_page.tried(ROOT / "results" / "methods", run) for run in runs}
    return f"Learning rates tried for every method: {' or '.join(sorted(found))}."


def _draw_methods(finding: Finding, _: pd.DataFrame) -> None:
    for budget in map(int, finding.table["budget"].unique()):
        target = ROOT / "results" / "methods" / f"methods_{budget}.svg"
        methods_compared(finding, budget).write_image(target, width=860)


def _teacher_cache_block(finding: Finding, done: pd.DataFrame, items: int) -> str:
    parts = [f"> {finding.sentence}"]
    if done.empty:
        return parts[0]
    for budget, part in finding.table.groupby("budget", sort=True):
        steps = int(done[done["budget_examples"] == budget]["steps"].iloc[0])
        image = f"../results/teacher_cache/signals_{budget}.svg"
        parts += [
            f"### {budget:,} examples, {steps:,} optimizer steps",
            "![Difference to the dense teacher in exact match and NLL against bytes per response token, for top-k and "
            f"sampled teachers, with {finding.intervals}, and for fine-tuning, at {budget:,} examples]({image})",
            markdown_table(part.drop(columns="budget"), digits=finding.digits),
        ]
    parts.append(
        f"From the {len(done)} runs in [`results/teacher_cache`](../results/teacher_cache): exact match in points and "
        f"NLL in nats per token, on {items:,} held-out words; means over seeds, paired differences with "
        f"{finding.intervals}. *bytes*: on disk per response token, keys and all; *kept mass*: mean probability of the "
        "tokens that are kept by themselves, 1 for samples by construction; *cosine*: of the gradient in the untrained "
        "student's logits with the dense teacher's; *teacher reads*: tokens that go through the teacher, for a cache "
        "those that fill an empty one. " + _about_verdicts("all signals in both metrics")
    )
    return "\n\n".join(parts)


def _draw_teacher_cache(_: Finding, frame: pd.DataFrame) -> None:
    for budget, part in frame[frame["status"] == "done"].groupby("budget_examples"):
        target = ROOT / "results" / "teacher_cache" / f"signals_{budget}.svg"
        difference_against_bytes(part, folder=ROOT / "results").write_image(target, width=860)


PAGES = (
    StudyPage("README.md", "lexicon", data_size, _data_size_block, _draw_data_size),
    StudyPage("docs/methods.md", "methods", methods, _methods_block, _draw_methods),
    StudyPage("docs/teacher-cache.md", "teacher_cache", teacher_cache, _teacher_cache_block, _draw_teacher_cache),
    BenchmarksPage("docs/benchmarks.md", "benchmarks"),
    StatisticsPage("docs/statistics.md", "benchmarks"),
    RecordsPage("docs/records.md", "results"),
    FindingsPage("docs/findings.md", "lexicon"),
    ModelsPage("docs/models.md", "architectures"),
    ProvenancePage("docs/provenance.md", "methods"),
)


if __name__ == "__main__":
    for page in PAGES:
        if page.file in sys.argv[1:] or not sys.argv[1:]:
            page.write()
