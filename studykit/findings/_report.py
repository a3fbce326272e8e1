"""All results on one page: what each study found and how sure, at what cost, and where the paper found otherwise.

    report = read_report("results")
    report.contrasts, report.claims, report.costs       # tables
    report.sentences                                    # the findings in words, by study and question

Every number is computed from the results at hand. Torch-free.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from studykit import results
from studykit.errors import InputError
from studykit.findings import format_interval
from studykit.findings._advice import advise
from studykit.findings._answers import Answer, find_answers
from studykit.statistics.verdicts import Verdict

Verdicts = Mapping[str, Verdict]
_SECONDS = ("train_s", "teacher_s", "failed_s", "evaluate_s", "failed_evaluate_s")
_TOTALS = (
    *_SECONDS,
    "student_tokens",
    "teacher_tokens",
    "generated_tokens",
    "scored_tokens",
)


@dataclass(frozen=True)
class Claim:
    """What the paper found, and which planned contrast of which finding says whether it is so here.

    Attributes:
        text: the paper's finding.
        question: name of the finding.
        pick: returns the name of the contrast among those of the finding, or None where it has none.
        expected: the verdicts that agree with the paper.
    """

    text: str
    question: str
    pick: Callable[[Sequence[str]], str | None]
    expected: tuple[str, ...] = ("helps",)


def _first(part: str = "") -> Callable[[Sequence[str]], str | None]:
    return lambda names: next((name for name in names if part in name), None)


def _last(part: str = "") -> Callable[[Sequence[str]], str | None]:
    return lambda names: next((name for name in reversed(names) if part in name), None)


CLAIMS = (
    Claim("distillation beats fine-tuning at the smallest budget", "data_size", _first()),
    Claim("its advantage is gone at the largest budget", "data_size", _last(), ("tie", "hurts")),
    Claim("a stronger teacher gives more at the largest budget", "teacher_strength", _last(" - ")),
    Claim("the smallest student gains most", "student_size", _first(" - ")),
    Claim("two stages beat naive mixing", "two_stage", _first("the best mixture")),
)
"""The findings of "Understanding Knowledge Distillation in Post-Training" (arXiv 2606.22942)."""


@dataclass(frozen=True)
class Report:
    """What all studies of a folder found.

    Attributes:
        contrasts: every planned contrast with difference, interval, number of seeds and verdict.
        claims: the paper's findings, each with the contrast that tests it and whether it agrees.
        costs: runs, seconds and tokens of each study; those of tuning apart.
        sentences: the findings in words, by study and question.
        frames: the runs of each study, for `advise`.
    """

    contrasts: pd.DataFrame
    claims: pd.DataFrame
    costs: pd.DataFrame
    sentences: dict[str, str]
    frames: tuple[pd.DataFrame, ...]

    def advice(self, budget: int, *, gap: float | None = None, max_cost: float | None = None) -> str:
        """Return what to do at a budget, the evidence and what it does not know; where it refuses, why.

        Args:
            budget: in examples.
            gap: of the user's teacher to the student without one, in the unit of the score.
            max_cost: of training, in that of fine-tuning.
        """
        try:
            advice = advise(self.frames, budget=budget, gap=gap, max_cost=max_cost)
        except InputError as refused:
            return f"No advice: {refused}"
        return "\n".join([advice.sentence, *(f"- {line}" for line in advice.unknown)])


def read_report(root: str | Path = "results", studies: Sequence[str] | None = None) -> Report:
    """Return the report on the studies under a folder; empty tables where there are none.

    Args:
        root: folder of all results.
        studies: names of those that are read; None for all.
    """
    folders = [folder for folder in results.studies(root) if studies is None or folder.name in studies]
    frames = [results.load(folder) for folder in folders]
    answers = [
        (folder.name, answer)
        for folder, frame in zip(folders, frames, strict=True)
        for answer in find_answers(frame, results.cells(folder), folder)
    ]
    rows = [row for study, answer in answers for row in _contrasts(study, answer)]
    columns = ["study", "question", "contrast", "difference", "seeds", "verdict"]
    return Report(
        pd.DataFrame(rows, columns=columns),
        pd.DataFrame([_checked(claim, answers) for claim in CLAIMS]),
        pd.DataFrame([_cost(folder.name, results.load(folder, trials=True)) for folder in folders]),
        {f"{study}, {answer.name}": answer.finding.sentence for study, answer in answers},
        tuple(frames),
    )


def _contrasts(study: str, answer: Answer) -> list[dict[str, object]]:
    found = answer.finding.verdicts.items()
    return [{"study": study, "question": answer.name, "contrast": name} | _shown(verdict) for name, verdict in found]


def _shown(verdict: Verdict) -> dict[str, object]:
    difference = format_interval(verdict.difference, verdict.digits, sign=True)
    return {
        "difference": f"{difference} {verdict.unit}".strip(),
        "seeds": verdict.difference.n,
        "verdict": str(verdict),
    }


def _checked(claim: Claim, answers: Sequence[tuple[str, Answer]]) -> dict[str, object]:
    """Return a claim with the contrast of the study that has the most seeds for it."""
    found: list[tuple[str, str, Verdict]] = []
    for study, answer in answers:
        verdicts: Verdicts = answer.finding.verdicts
        if answer.name == claim.question and (name := claim.pick(list(verdicts))) is not None:
            found.append((study, name, verdicts[name]))
    content: dict[str, object] = {"the paper": claim.text, "question": claim.question}
    nothing = {"here": "not measured", "study": "", "contrast": "", "difference": "", "seeds": 0, "verdict": ""}
    if not found:
        return content | nothing
    study, name, verdict = max(found, key=lambda one: one[2].difference.n)
    agrees = "as in the paper" if verdict.word in claim.expected else "otherwise"
    here = "open" if verdict.word == "cannot tell" else agrees
    return content | {"here": here, "study": study, "contrast": name} | _shown(verdict)


def _cost(study: str, frame: pd.DataFrame) -> dict[str, object]:
    """Return what the finished runs of a study took; trials of a tuning are counted apart."""
    done = results.primary(frame)
    done = done[done["status"] == "done"]
    is_trial = done["trial"].eq(True) if "trial" in done else pd.Series(False, index=done.index)
    parts = {"": done[~is_trial], "tuning ": done[is_trial]}
    content: dict[str, object] = {"study": study}
    for name, part in parts.items():
        sums = {column: float(part[column].sum()) for column in _TOTALS if column in part}
        seconds = sum(sums.get(column, 0.0) for column in _SECONDS)
        read_by_teacher = sums.get("teacher_tokens", 0.0) + sums.get("scored_tokens", 0.0)
        content |= {
            f"{name}runs": len(part),
            f"{name}hours": round(seconds / 3600, 2),
            f"{name}student reads": round(sums.get("student_tokens", 0.0)),
            f"{name}teacher reads": round(read_by_teacher),
            f"{name}generated": round(sums.get("generated_tokens", 0.0)),
        }
    peak = done["peak_mem_gib"].max() if "peak_mem_gib" in done else None
    return content | {"peak GiB": None if pd.isna(peak) else round(float(peak), 2)}
