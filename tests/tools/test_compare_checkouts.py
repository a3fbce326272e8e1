"""Two checkouts: equal numbers are called equal, and every kind of difference is named."""

import json
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tools import compare_checkouts
from tools.compare_checkouts import SPECS, Outcome, compare, list_differences, read_outcome, run_spec
from tools.structure import ROOT


def outcome(**changes) -> Outcome:
    plain: dict[str, Any] = {"scores": {"metrics nll": 1.5}, "losses": {"line 1 loss": 0.25}, "step_s": 0.1}
    plain["weights"] = {"w": torch.tensor([1.0, 2.0])}
    return Outcome(**(plain | changes))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, None),
        ({"step_s": 9.0}, None),
        ({"scores": {"metrics nll": 1.5000000000000002}}, "metrics nll: 1.5 and 1.5000000000000002"),
        ({"losses": {"line 1 loss": 0.25, "line 2 loss": 0.1}}, "line 2 loss: only in one checkout"),
        ({"weights": {"w": torch.tensor([1.0, 2.5])}}, "weights w: up to 0.5 apart"),
        ({"weights": {"v": torch.tensor([1.0, 2.0])}}, "weights v: only in one checkout"),
        ({"weights": {"w": torch.ones(3)}}, "weights w: torch.float32 (2,) and torch.float32 (3,)"),
    ],
)
def test_every_kind_of_difference_is_named(changes, line):
    found = list_differences(outcome(), outcome(**changes))
    assert found == [] if line is None else line in found


@pytest.mark.parametrize("scores_in", ["", "evaluations/0123456789ab"])
def test_a_run_is_read_without_times_and_memory(scores_in, tmp_path):
    """Also one of an earlier schema, whose own record has its scores."""
    run = tmp_path / "study" / "runs" / "abc"
    (run / "model").mkdir(parents=True)
    (run / scores_in).mkdir(parents=True, exist_ok=True)
    cost, scores = {"train_s": 3.0, "peak_mem_gib": 1, "tokens": 7}, {"metrics": {"nll": 1.0}, "teacher_metrics": {}}
    for folder, record in ((run, {"cost": cost}), (run / scores_in, scores | ({} if scores_in else {"cost": cost}))):
        (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    lines = [{"step": n, "time_s": 2.0 * n, "loss": 1 / n} for n in (1, 2)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    save_file({"w": torch.ones(2)}, run / "model" / "model.safetensors")
    read = read_outcome(tmp_path)
    assert read.scores == {"metrics nll": 1.0, "cost tokens": 7}
    assert read.losses == {"line 1 step": 1, "line 1 loss": 1.0, "line 2 step": 2, "line 2 loss": 0.5}
    assert list(read.weights) == ["w"]
    assert read.step_s == 2.0


def test_checkouts_take_turns_in_changing_order_and_are_compared_with_the_first_old_run(monkeypatch, tmp_path):
    old, new, seen = tmp_path / "old", tmp_path / "new", []

    def run(checkout, spec):
        seen.append(checkout.name)
        loss = 0.5 if len(seen) == 3 else 0.25  # the second run of the new checkout
        return outcome(losses={"line 1 loss": loss}, step_s=0.1 if checkout == old else 0.2)

    monkeypatch.setattr(compare_checkouts, "run_spec", run)
    differences, pairs = compare(old, new, {}, 3)
    assert seen == ["old", "new", "new", "old", "old", "new"]
    assert differences == ["new, line 1 loss: 0.25 and 0.5"]
    assert pairs == [(0.1, 0.2)] * 3


def test_a_run_that_fails_is_shown_with_its_error(tmp_path):
    (tmp_path / "studykit").mkdir()
    (tmp_path / "studykit" / "__init__.py").write_text("raise ImportError('a checkout that is broken')")
    with pytest.raises(RuntimeError, match="a checkout that is broken"):
        run_spec(tmp_path, SPECS["sft"])


@pytest.mark.slow
def test_a_checkout_is_run_and_read():
    spec = json.loads(json.dumps(SPECS["sft"]))
    spec["stages"][0]["steps"], spec["evaluation"]["items"] = 4, 10
    found = run_spec(ROOT, spec)
    assert {"metrics exact_match", "metrics nll", "cost student_tokens"} <= set(found.scores)
    assert {"line 1 loss", "line 4 loss"} <= set(found.losses)
    assert found.weights
    assert found.step_s
