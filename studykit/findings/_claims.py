"""What the paper found, the planned contrast that tests each finding, and further runs on why one is not there.

Torch-free.

checks = check_claims(answers)          # answers: of `find_answers`, with the names of their studies
reasons = check_reasons(answers)        # those that some run has tested
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from studykit.findings import format_interval
from studykit.findings._answers import Answer, seconds_of
from studykit.findings._verdicts import cells_of
from studykit.statistics.verdicts import Verdict

Answers = Sequence[tuple[str, Answer]]
Pick = Callable[[Sequence[str]], str | None]


@dataclass(frozen=True)
class Reason:
    """What may be the reason that a finding of the paper is or is not there, and the further run that tests it.

    Attributes:
        text: the reason, and what follows from it.
        question: name of the finding that the run is read by.
        pick: returns the name of the contrast among those of the finding, or None where it has none.
        expected: the verdicts with which it is the reason.
        study: the study that was run for it; None for any.
    """

    text: str
    question: str
    pick: Pick
    expected: tuple[str, ...]
    study: str | None = None


@dataclass(frozen=True)
class Claim:
    """What the paper found, and which planned contrast of which finding says whether it is so here.

    Attributes:
        text: the paper's finding.
        question: name of the finding.
        pick: returns the name of the contrast among those of the finding, or None where it has none.
        expected: the verdicts that agree with the paper.
        reasons: what may be why it is not there.
        doubts: what may be why it only seems to be there.
    """

    text: str
    question: str
    pick: Pick
    expected: tuple[str, ...] = ("helps",)
    reasons: tuple[Reason, ...] = ()
    doubts: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Check:
    """A finding of the paper or a possible reason, and the contrast that tests it in the study with the most seeds.

    Attributes:
        of: what is tested.
        here: what came of it, in words.
        study, contrast: where it was tested; empty where it was not.
        verdict: on the contrast.
        at_edge: what tuning chose at the edge of its grid in some arm of that study.
        seconds: mean seconds of training of the contrast's setting and of its baseline; None where not known.
    """

    of: Claim | Reason
    here: str
    study: str = ""
    contrast: str = ""
    verdict: Verdict | None = None
    at_edge: tuple[str, ...] = ()
    seconds: tuple[float, float] | None = None

    def row(self) -> dict[str, object]:
        """Return study, contrast and verdict as people read them."""
        nothing: dict[str, object] = {"difference": "", "seeds": 0, **cells_of(None)}
        shown = nothing if self.verdict is None else show(self.verdict)
        return {"study": self.study, "contrast": self.contrast} | shown | show_seconds(self.seconds)


def show(verdict: Verdict) -> dict[str, object]:
    """Return difference, seeds, phrase and minimum detectable effect of a verdict as people read them."""
    difference = format_interval(verdict.difference, verdict.digits, sign=True)
    shown: dict[str, object] = {"difference": f"{difference} {verdict.unit}".strip(), "seeds": verdict.difference.n}
    return shown | cells_of(verdict)


def show_seconds(seconds: tuple[float, float] | None) -> dict[str, str]:
    """Return what a contrast cost as people read it: the seconds of a run, and in those of its baseline.

    >>> show_seconds((31.4, 15.7)), show_seconds(None)
    ({'seconds': '31 (2.0 times)'}, {'seconds': ''})
    """
    return {"seconds": f"{seconds[0]:,.0f} ({seconds[0] / seconds[1]:.1f} times)" if seconds else ""}


def _first(*parts: str, without: str = "\n") -> Pick:
    return lambda names: next((name for name in names if all(p in name for p in parts) and without not in name), None)


def _second(part: str) -> Pick:
    return lambda names: next(iter([name for name in names if part in name][1:]), None)


def _last(part: str = "") -> Pick:
    return lambda names: next((name for name in reversed(names) if part in name), None)


_MIXTURE = "the best mixture"
_THREE_TIMES = "fine-tuning is not finished at the largest budget, so that with three times the steps"
CLAIMS = (
    Claim(
        "distillation beats fine-tuning at the smallest budget",
        "data_size",
        _first(),
        doubts=(
            Reason(
                "one trial seed chose a bad learning rate for fine-tuning, so that the gain is gone at the default one",
                "data_size",
                _first(),
                ("tie", "hurts"),
                "default_rate",
            ),
        ),
    ),
    Claim(
        "its advantage is gone at the largest budget",
        "data_size",
        _last(),
        ("tie", "hurts"),
        (
            Reason(
                f"{_THREE_TIMES} the advantage is gone", "teacher_strength", _first(), ("tie", "hurts"), "more_steps"
            ),
        ),
    ),
    Claim(
        "a stronger teacher gives more at the largest budget",
        "teacher_strength",
        _last(" - "),
        reasons=(
            Reason(
                f"{_THREE_TIMES} the stronger gives more", "teacher_strength", _last(" - "), ("helps",), "more_steps"
            ),
        ),
    ),
    Claim(
        "the smallest student gains most",
        "student_size",
        _first(" - "),
        reasons=(
            Reason(
                "the smallest budget teaches a small student little with any method, so that at the next it gains most",
                "student_size",
                _second(" - "),
                ("helps",),
            ),
            Reason(
                "it only learns more slowly, so that with up to eight times the steps it gains as much",
                "student_size",
                _first(" - "),
                ("tie", "helps"),
                "longer_training",
            ),
        ),
    ),
    Claim(
        "two stages beat naive mixing",
        "two_stage",
        _first(_MIXTURE),
        reasons=(
            Reason(
                "the last stage is long and undoes the first, so that few of the steps in it bring the order back",
                "two_stage",
                _first("(steps ", _MIXTURE, without="learning rates"),
                ("tie", "helps"),
            ),
            Reason(
                "the last stage begins at the full learning rate, so that few steps at a tenth bring the order back",
                "two_stage",
                _first("(steps ", "learning rates", _MIXTURE),
                ("tie", "helps"),
            ),
        ),
    ),
)
"""The findings of "Understanding Knowledge Distillation in Post-Training" (arXiv 2606.22942)."""


def check_claims(answers: Answers) -> list[Check]:
    """Return each finding of the paper: as in the paper, otherwise, open, or not measured."""
    return [_check(claim, answers, ("as in the paper", "otherwise", "open", "not measured")) for claim in CLAIMS]


def check_reasons(answers: Answers, claims: Sequence[Claim] = CLAIMS) -> list[Check]:
    """Return possible reasons and doubts: confirmed, not confirmed, or open; without those not tested."""
    reasons = chain.from_iterable((*claim.reasons, *claim.doubts) for claim in claims)
    checks = (_check(reason, answers, ("confirmed", "not confirmed", "open", "")) for reason in reasons)
    return [check for check in checks if check.here]


def _check(tested: Claim | Reason, answers: Answers, words: tuple[str, str, str, str]) -> Check:
    """Return what came of a test by the study that has the most seeds for it, in the first, second or third word."""
    found: list[tuple[str, str, Verdict, Answer]] = []
    for study, answer in answers:
        verdicts = answer.finding.verdicts
        if answer.name == tested.question and _may_test(study, tested) and (name := tested.pick(list(verdicts))):
            found.append((study, name, verdicts[name], answer))
    yes, no, undecided, nothing = words
    if not found:
        return Check(tested, nothing)
    study, name, verdict, answer = max(found, key=lambda one: one[2].difference.n)
    here = undecided if verdict.word == "cannot tell" else yes if verdict.word in tested.expected else no
    return Check(tested, here, study, name, verdict, _at_edge(answer), seconds_of(answer, name))


def _may_test(study: str, tested: Claim | Reason) -> bool:
    """Whether a study was run for this: one for a single reason tests no claim."""
    if isinstance(tested, Reason):
        return tested.study in (None, study)
    return all(study != reason.study for claim in CLAIMS for reason in (*claim.reasons, *claim.doubts))


def _at_edge(answer: Answer) -> tuple[str, ...]:
    """Return the names of what tuning chose at the edge of its grid, in words."""
    texts = answer.runs["tuned_at_edge"].dropna() if "tuned_at_edge" in answer.runs else ()
    names = {name for text in texts for name in str(text).split(", ") if name != "no"}
    return tuple(sorted(name.replace("_", " ") for name in names))
