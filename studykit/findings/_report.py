"""All results as a short paper: what each study found and how sure, at what cost, and where the paper found otherwise.

    report = read_report("results")
    report.abstract(), report.claims, report.reasons    # against the paper
    report.settings, report.contrasts, report.costs     # tables
    report.sections                                     # the answer of each study to each question, in words

Every number is computed from the results at hand. Torch-free.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from studykit import results
from studykit.errors import InputError
from studykit.findings import FINDINGS
from studykit.findings._advice import advise
from studykit.findings._answers import Answer, find_answers, seconds_of
from studykit.findings._claims import CLAIMS, Check, Claim, check_claims, check_reasons, show, show_seconds
from studykit.findings._sentences import describe
from studykit.findings._verdicts import count_words
from studykit.scorers import metric

_SECONDS = ("train_s", "teacher_s", "synthetic_s", "failed_s", "evaluate_s", "failed_evaluate_s")
_TEACHER_READS = ("teacher_tokens", "scored_tokens", "synthetic_prompt_tokens", "synthetic_tokens")
_GENERATED = ("generated_tokens", "synthetic_tokens")
_TOTALS = {*_SECONDS, *_TEACHER_READS, *_GENERATED, "student_tokens"}


ALL = "all, shared runs once"


@dataclass(frozen=True)
class Section:
    """The answer of one study to one question.

    Attributes:
        folder: of the study.
        answer: the finding with its runs.
        is_first: whether no section before it has the same question.
    """

    folder: Path
    answer: Answer
    is_first: bool = True

    @property
    def title(self) -> str:
        """The question that the finding answers."""
        return FINDINGS.describe(self.answer.name)

    @property
    def done(self) -> pd.DataFrame:
        """The finished runs."""
        return self.answer.runs[self.answer.runs["status"] == "done"]

    def text(self) -> str:
        """Return it as Markdown: the runs, the answer, and how many planned contrasts have which verdict."""
        done, found = self.done, [*self.answer.finding.verdicts.values()]
        runs = f"Study *{self.folder.name}*, {len(done):,} runs with {done['seed'].nunique()} seeds."
        counts = f"Planned contrasts: {count_words(found)}." if found else ""
        title = f"### {self.title}" if self.is_first else ""
        return "\n\n".join(part for part in (title, runs, self.answer.finding.sentence, counts) if part)

    def setting(self) -> dict[str, object]:
        """Return whom the study trained, on what, how often, and how it was tuned."""
        done, score = self.done, self.answer.finding.numbers.get("score")
        trials = int(done["trials"].max()) if "trials" in done and done["trials"].notna().any() else 0
        return {
            "study": self.folder.name,
            "question": self.answer.name,
            "students": _listed(done, "student"),
            "teachers": _teachers(done, score),
            "examples": ", ".join(f"{budget:,.0f}" for budget in sorted(done["budget_examples"].dropna().unique())),
            "arms": max(done[column].nunique() for column in ("arm", "method")),
            "seeds": done["seed"].nunique(),
            "test items": _items(done),
            "most trials of an arm": trials,
        }


@dataclass(frozen=True)
class Report:
    """What all studies of a folder found.

    Attributes:
        sections: the answer of each study to each of its questions, in the order of the notebooks.
        checks: the paper's findings and possible reasons where they are not there, each with what tests it.
        contrasts: every planned contrast with difference, interval, number of seeds, verdict, the minimum detectable
            effect in the unit of the difference, and the seconds of a run, in brackets in those of its baseline.
        costs: runs, seconds and tokens of each study, and last of all, where runs of several studies count once; those
            of tuning apart.
        studies: their names.
    """

    sections: tuple[Section, ...]
    checks: tuple[Check, ...]
    contrasts: pd.DataFrame
    costs: pd.DataFrame
    studies: tuple[str, ...]

    @property
    def claims(self) -> pd.DataFrame:
        """The paper's findings, each with the contrast that tests it and whether it agrees."""
        return pd.DataFrame(
            {"the paper": check.of.text, "question": check.of.question, "here": check.here} | check.row()
            for check in self.checks
            if isinstance(check.of, Claim)
        )

    @property
    def reasons(self) -> pd.DataFrame:
        """Possible reasons for what is not as in the paper, each with the further run that tested it."""
        rows = [
            {"possible reason": check.of.text, "tested": check.here} | check.row()
            for check in self.checks
            if not isinstance(check.of, Claim)
        ]
        return pd.DataFrame(rows, columns=["possible reason", "tested", *Check(self.checks[0].of, "").row()])

    @property
    def settings(self) -> pd.DataFrame:
        """Whom each study trained, on what, how often, and how it was tuned."""
        return pd.DataFrame([section.setting() for section in self.sections])

    def abstract(self) -> str:
        """Return what was done and found in a few sentences, as Markdown."""
        if not self.sections:
            return "No study has a finding yet."
        costs, noun = self.costs.iloc[-1], "study" if len(self.studies) == 1 else "studies"
        words = Counter(str(here) for here in self.claims["here"])
        tested = ", ".join(f"{count} {word}" for word, count in words.items())
        lines = [
            f"{len(self.studies)} {noun}, {costs['runs']:,.0f} finished runs and {costs['tuning runs']:,.0f} trials "
            f"of tuning took {costs['hours'] + costs['tuning hours']:.1f} hours of training and scoring. The paper "
            f"makes {len(self.claims)} claims that are tested here: {tested}.",
            "\n".join(_line(check) for check in self.checks),
        ]
        return "\n\n".join(lines)

    def claim_lines(self) -> str:
        """Return the paper's findings and what came of each here, as a Markdown list."""
        return "\n".join(_line(check) for check in self.checks if isinstance(check.of, Claim))

    def advice(self, budget: int, *, gap: float | None = None, max_cost: float | None = None) -> str:
        """Return what to do at a budget, the evidence and what it does not know; where it refuses, why.

        Args:
            budget: in examples.
            gap: of the user's teacher to the student without one, in the unit of the score.
            max_cost: of training, in that of fine-tuning.
        """
        try:
            answers = [(section.folder.name, section.answer) for section in self.sections]
            advice = advise(answers, budget=budget, gap=gap, max_cost=max_cost)
        except InputError as refused:
            return f"No advice: {refused}"
        return "\n".join([advice.sentence, *(f"- {line}" for line in advice.unknown)])


def read_report(root: str | Path = "results", studies: Sequence[str] | None = None) -> Report:
    """Return the report on the studies under a folder that trained something; empty tables where there are none.

    Args:
        root: folder of all results.
        studies: names of those that are read; None for all.
    """
    known = [folder for folder in results.studies(root) if studies is None or folder.name in studies]
    trained = {folder.name: frame for folder in known if len(frame := results.load(folder, trials=True))}
    folders = [folder for folder in known if folder.name in trained]
    sections = [
        Section(folder, answer)
        for folder in folders
        for answer in find_answers(results.load(folder), results.cells(folder), folder)
    ]
    sections.sort(key=_order)
    before = ["", *(section.answer.name for section in sections)]
    sections = [replace(one, is_first=one.answer.name != name) for one, name in zip(sections, before, strict=False)]
    answers = [(section.folder.name, section.answer) for section in sections]
    if trained:
        trained[ALL] = pd.concat(trained.values(), ignore_index=True).drop_duplicates(["run_id", "eval_id"])
    columns = ["study", "question", "contrast", "difference", "seeds", "verdict", "detectable", "seconds"]
    return Report(
        tuple(sections),
        (*_in_turn(check_claims(answers), check_reasons(answers)),),
        pd.DataFrame([row for study, answer in answers for row in _contrasts(study, answer)], columns=columns),
        pd.DataFrame([_cost(name, frame) for name, frame in trained.items()]),
        tuple(folder.name for folder in folders),
    )


def _in_turn(claims: Sequence[Check], reasons: Sequence[Check]) -> Iterator[Check]:
    """Yield each claim, and after it the reasons why it may not be there, or the doubts where it is."""
    for check in claims:
        yield check
        if isinstance(check.of, Claim):
            wanted = check.of.doubts if check.here == "as in the paper" else check.of.reasons
            yield from (reason for reason in reasons if reason.of in wanted)


def _order(section: Section) -> tuple[str, str]:
    notebooks = [cell.spec.notebook for cell in section.answer.cells if cell.spec]
    return min(notebooks, default=section.answer.name), section.folder.name


def _line(check: Check) -> str:
    """Return a claim as an item of a list, a reason as one below it."""
    found = "" if check.verdict is None else f" {check.contrast}: {describe(check.verdict)} (*{check.study}*)."
    if check.at_edge:
        found += f" There tuning chose {' and '.join(check.at_edge)} at the edge of a grid that was widened once."
    if check.seconds:
        found += (
            f" It took {check.seconds[0]:,.0f} s a run, {check.seconds[0] / check.seconds[1]:.1f} times the other's."
        )
    text = f"{check.of.text[0].upper()}{check.of.text[1:]}"
    if isinstance(check.of, Claim):
        return f"- {text}: **{check.here}**.{found}"
    kind = "Doubt" if any(check.of in claim.doubts for claim in CLAIMS) else "Possible reason"
    return f"    - {kind}, tested by a further run: {check.of.text}: **{check.here}**.{found}"


def _listed(runs: pd.DataFrame, column: str) -> str:
    return ", ".join(sorted(runs[column].dropna().unique())) if column in runs else ""


def _teachers(runs: pd.DataFrame, score: str | None) -> str:
    """Return the teachers, each with its score where that was measured."""
    if "teacher" not in runs:
        return ""
    names, shown = sorted(runs["teacher"].dropna().unique()), {}
    if score and (column := f"teacher_{score}") in runs:
        known = metric(score)
        means = runs.groupby("teacher")[column].mean().dropna() * known.scale
        shown = {name: f" ({mean:.{known.digits}f})" for name, mean in means.items()}
    return ", ".join(f"{name}{shown.get(name, '')}" for name in names)


def _items(runs: pd.DataFrame) -> str:
    """Return how many test items were scored, "all" where no number was given."""
    known = runs["evaluation_items"].dropna() if "evaluation_items" in runs else pd.Series(dtype=float)
    return f"{known.max():,.0f}" if len(known) else "all"


def _contrasts(study: str, answer: Answer) -> list[dict[str, object]]:
    found = answer.finding.verdicts.items()
    return [
        {"study": study, "question": answer.name, "contrast": name}
        | show(verdict)
        | show_seconds(seconds_of(answer, name))
        for name, verdict in found
    ]


def _cost(study: str, frame: pd.DataFrame) -> dict[str, object]:
    """Return what the finished runs of a study took; trials of a tuning are counted apart."""
    done = results.primary(frame)
    done = done[done["status"] == "done"]
    is_trial = done["trial"].eq(True) if "trial" in done else pd.Series(False, index=done.index)
    parts = {"": done[~is_trial], "tuning ": done[is_trial]}
    content: dict[str, object] = {"study": study}
    for name, part in parts.items():
        sums = {column: float(part[column].sum()) for column in _TOTALS if column in part}
        seconds, read_by_teacher, generated = (
            sum(sums.get(column, 0.0) for column in columns) for columns in (_SECONDS, _TEACHER_READS, _GENERATED)
        )
        content |= {
            f"{name}runs": len(part),
            f"{name}hours": round(seconds / 3600, 2),
            f"{name}student reads": round(sums.get("student_tokens", 0.0)),
            f"{name}teacher reads": round(read_by_teacher),
            f"{name}generated": round(generated),
        }
    peak = done["peak_mem_gib"].max() if "peak_mem_gib" in done else None
    return content | {"peak GiB": None if pd.isna(peak) else round(float(peak), 2)}
