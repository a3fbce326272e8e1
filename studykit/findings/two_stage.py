"""Few human annotations and many answers of a teacher: one of them, both mixed, or one after the other?"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from studykit import results
from studykit.findings import Finding
from studykit.findings._contrasts import Contrast, Question, difference_of_gains
from studykit.findings._lines import choose_headline, finished, require_one
from studykit.findings._sentences import best_of, describe
from studykit.statistics.verdicts import Verdict

FIGURE = "differences_by_setting"

HUMAN, SYNTHETIC = "human", "synthetic"
_EXPLAINED = ("inputs", "method", "mix", "source", "split", "source_options")
_TUNED_STEPS = ("tuned.steps", "tuned.epochs")
_FACTORS = {"synthetic_examples": "synthetic", "written": "written by"}
_DETAILS = re.compile(r" \((?:steps (?P<steps>[\d:]+))?(?:, )?(?:learning rates (?P<rates>[\d.e:-]+))?\)$")
"""Ends the name of a way whose stages have unequal steps or learning rates."""


def two_stage(
    frame: pd.DataFrame,
    *,
    baseline: str = HUMAN,
    arm: str = f"{SYNTHETIC} > {HUMAN}",
    score: str = "exact_match",
    nll: str = "nll",
    tie: float | None = None,
    folder: str | Path | None = None,
) -> Finding:
    """Return score and gain of every way to combine both kinds of data, by number of human annotations.

    A way is a list of stages; each trains on `human` or `synthetic` examples or on a share of both, and is named with
    its method where that is not sft, with the steps of stages that do not share them equally, and with the ratio of
    learning rates that differ. A run on synthetic data alone belongs to every number of human annotations at which the
    others take as many steps.

    Args:
        frame: from `results.load`.
        baseline: the way that the others are compared with.
        arm: the way that the question is about.
        score, nll: the two metrics.
        tie: largest difference that does not matter, in the unit of the first; None: the metric's.
        folder: of all results, whose stored items the intervals are over too; None: over seeds alone.

    Raises:
        ValueError: the rows mix students or options.
    """
    runs = finished(frame, score)
    require_one(runs, "student", "two_stage")
    score, why, tie = choose_headline(runs, score, nll, tie)
    named = name_data(runs)
    explained = [column for column in map(str, named.columns) if _field(column) in _EXPLAINED]
    options = {"share": "share", "synthetic_examples": "synthetic"}
    question = Question(
        baseline=baseline,
        score=score,
        nll=nll,
        tie=tie,
        folder=folder,
        setting="data",
        factors=_FACTORS,
        explained=explained,
        options=options,
    )
    rows = question.contrasts(named)
    rows.sort(key=lambda row: (row.line.budget, *row.where.values(), row.rank))
    pairs = {name: pair for part in _places(rows) for name, pair in _further(part, arm).items()}
    found = question.judge(rows, {name: difference_of_gains(*pair) for name, pair in pairs.items()})
    parts = [f"{best_of(part, found, baseline)}{_of_arm(part, arm, found)}" for part in _places(rows)]
    return question.answer(frame, rows, found, why, " ".join(parts), pairs=pairs)


def name_data(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs with the number of human annotations as budget, their data as `name`, and what is synthetic of it."""
    columns = ["method", "budget_examples", *results.option_columns(runs), *results.schedule_columns(runs)]
    columns = [name for name in dict.fromkeys(columns) if name in runs]
    rates = [name for name in columns if _field(name) == "learning_rate"]
    by_run = zip(results.settings(runs, columns, defaults=True), results.settings(runs, rates, tuned=True), strict=True)
    settings = [values | own_rates for values, own_rates in by_run]
    stages = [_stages(values) for values in settings]
    data = pd.DataFrame(
        {
            "name": [_name(one, values) for one, values in zip(stages, settings, strict=True)],
            "budget_examples": [max((stage.human for stage in one), default=0) for one in stages],
            "synthetic_examples": [max((stage.synthetic for stage in one), default=0) or None for one in stages],
            "written": [next((stage.written for stage in one if stage.written), None) for one in stages],
            "share": [sum(stage.share for stage in one) / len(one) for one in stages],
        },
        index=runs.index,
        columns=["name", "budget_examples", "synthetic_examples", "written", "share"],
    )
    named = runs.assign(**{str(name): data[name] for name in data})
    without = named[named["budget_examples"] == 0]
    with_human = named[named["budget_examples"] > 0].astype({"budget_examples": int})
    budgets, alone = with_human[["budget_examples", "steps"]].drop_duplicates(), without.drop(columns="budget_examples")
    if any(name in runs for name in _TUNED_STEPS):  # arms differ in their steps anyway
        alone = alone.merge(budgets[["budget_examples"]].drop_duplicates(), how="cross")
    else:
        alone = alone.merge(budgets, on="steps")
    return pd.concat([with_human, alone], ignore_index=True)


@dataclass(frozen=True)
class _Stage:
    """What one stage trains on: numbers of examples, the share of synthetic ones in a step, and how they were made."""

    method: str
    human: int
    synthetic: int
    share: float
    written: str

    @property
    def name(self) -> str:
        kind = HUMAN if not self.share else SYNTHETIC if self.share == 1 else f"{self.share:.0%} {SYNTHETIC}"
        return kind if self.method == "sft" else f"{kind} ({self.method})"


def _name(stages: Sequence[_Stage], run: Mapping[str, Any]) -> str:
    """Return the name of a way, such as "synthetic > human (steps 360:40, learning rates 1:0.1)" where these differ."""
    steps, rates = (_by_stage(run, name, len(stages)) for name in ("steps", "learning_rate"))
    details = [f"steps {':'.join(f'{count:g}' for count in steps)}"] if steps and max(steps) - min(steps) > 1 else []
    details += [f"learning rates {':'.join(f'{rate / rates[0]:g}' for rate in rates)}"] if len(set(rates)) > 1 else []
    return " > ".join(stage.name for stage in stages) + (f" ({', '.join(details)})" if details else "")


def _by_stage(run: Mapping[str, Any], name: str, count: int) -> list[float]:
    """Return a value of each stage; none where it is not known of all."""
    values = [run.get(f"stage_{number}.{name}") for number in range(1, count + 1)]
    known = [value for value in values if value is not None]
    return known if len(known) == count else []


def _stages(run: Mapping[str, Any]) -> list[_Stage]:
    methods = str(run["method"]).split(" > ")
    return [_stage(run, number, method, len(methods)) for number, method in enumerate(methods, 1)]


def _stage(run: Mapping[str, Any], number: int, method: str, count: int) -> _Stage:
    mix = json.loads(_value(run, number, "mix") or "[]")
    total = _value(run, number, "examples") or run["budget_examples"] // count
    main = {
        "source": _value(run, number, "source"),
        "examples": total - sum(part["data"]["budget"]["examples"] for part in mix),
        "weight": 1 - sum(part["weight"] for part in mix),
        "options": {
            name: _value(run, number, f"source_options.{name}") for name in ("teacher", "temperature", "min_logp")
        },
    }
    others = [part["data"] | {"examples": part["data"]["budget"]["examples"], "weight": part["weight"]} for part in mix]
    synthetic = [part for part in (main, *others) if part["source"] == SYNTHETIC]
    human = [part for part in (main, *others) if part["source"] != SYNTHETIC]
    return _Stage(
        method,
        sum(part["examples"] for part in human),
        sum(part["examples"] for part in synthetic),
        round(sum(part["weight"] for part in synthetic), 6),
        _written(synthetic[0]["options"]) if synthetic else "",
    )


def _value(run: Mapping[str, Any], number: int, name: str) -> Any:
    """Return a stage's value of a column, under the stage's name or the one that all stages share."""
    return run.get(f"stage_{number}.{name}", run.get(name))


def _written(options: Mapping[str, Any]) -> str:
    temperature, least = options.get("temperature"), options.get("min_logp")
    text = f"{options.get('teacher')}, {f'T = {temperature:g}' if temperature else 'greedy'}"
    return text if least is None else f"{text}, from {least:g} nats"


def _field(column: str) -> str:
    """Return the field of a column: `stage_2.source_options.teacher` is of source_options."""
    parts = column.split(".")
    return parts[1] if parts[0].startswith("stage_") else parts[0]


def _places(rows: Sequence[Contrast]) -> list[list[Contrast]]:
    """Return the rows with a difference to the baseline, those with equal budget and synthetic data together."""
    places: dict[tuple[Any, ...], list[Contrast]] = {}
    for row in rows:
        if row.gain is not None:
            places.setdefault((row.line.budget, *row.where.values()), []).append(row)
    return list(places.values())


def _further(rows: Sequence[Contrast], arm: str) -> dict[str, tuple[Contrast, Contrast]]:
    """Return the arm, with equal and other steps, beside the best mixture and the other order."""
    by_name = {row.line.name: row for row in rows}
    mixed = min((row for name, row in by_name.items() if "%" in name), key=lambda row: row.rank, default=None)
    found = {}
    for name, row in sorted(by_name.items(), key=lambda item: bool(_DETAILS.search(item[0]))):  # equal stages first
        if _DETAILS.sub("", name) == arm:
            turned = by_name.get(_in_other_order(name))
            others = {"the best mixture": mixed, "the other order": turned}
            found |= {
                f"{row.key} - {which} ({other.line.name})": (row, other)
                for which, other in others.items()
                if other is not None
            }
    return found


def _in_other_order(name: str) -> str:
    """Return the name of a way with its stages in the other order; "" where their learning rates differ.

    >>> _in_other_order("human > synthetic (steps 360:40)"), _in_other_order("human > synthetic")
    ('synthetic > human (steps 40:360)', 'synthetic > human')
    """
    found = _DETAILS.search(name)
    way = " > ".join(reversed(_DETAILS.sub("", name).split(" > ")))
    if found is None:
        return way
    return "" if found["rates"] else f"{way} (steps {':'.join(reversed(found['steps'].split(':')))})"


def _of_arm(rows: Sequence[Contrast], arm: str, verdicts: Mapping[str, Verdict]) -> str:
    """Give the arm's differences with equal stages, and the best of those with other steps or learning rates."""
    found: dict[str, list[tuple[str, Verdict]]] = {}
    for name in (name for name in _further(rows, arm) if name in verdicts):
        found.setdefault(name.rpartition(" - ")[2].partition(" (")[0], []).append((name, verdicts[name]))
    text = ""
    for several in found.values():
        name, first = several[0]
        text += f" {name.partition(' at ')[0]} - {name.rpartition(' - ')[2]}: {describe(first)}"
        if others := several[1:]:
            name, best = max(others, key=lambda one: rows[0].sign * one[1].difference.mean)
            text += f"; of {len(others)} with other steps or learning rates at best {describe(best)}"
            text += f" ({name.partition(' at ')[0]})"
        text += "."
    return text


def written_answers(records: Mapping[str, Any]) -> pd.DataFrame:
    """Return what teachers wrote for some runs: number of answers, how they were sampled, and what filters dropped.

    Args:
        records: of runs, by the names of their arms.
    """
    rows = []
    for arm, record in records.items():
        manifests = [manifest.model_dump() for manifest in record.data]
        parts = [part for manifest in manifests for part in (manifest, *(manifest.get("mix") or ()))]
        rows += [{"arm": arm} | part["written"] for part in parts if part.get("written")]
    columns = ["arm", "teacher", "temperature", "answers", "cut", "kept", "dropped", "generated_tokens"]
    return pd.DataFrame(rows).reindex(columns=columns)
