"""Methods that generate: a run that broke off ends with bitwise the weights, curve and cost of one that did not."""

import json
from typing import Any

import pytest
import torch
from rows import case_of

from studykit.data import Inputs
from studykit.methods import METHODS
from studykit.spec import RunSpec
from studykit.study.pin import pin
from studykit.training import loop, train

STEPS, BROKEN_IN = 6, 3


def options_for(method: str) -> dict[str, Any]:
    """Return the options of a method for a run of few steps, from the test file of its rollout."""
    case = case_of(METHODS.member(method).rollout)
    chosen = {"max_new_tokens": 6, "reference": "lexicon/reference"} | getattr(case, "METHOD_OPTIONS", {})
    return {option: value for option, value in chosen.items() if option in METHODS.options(method)}


VARIANTS = {name: options_for(name) for name in METHODS.names() if not METHODS.member(name).parts[1].keeps_rows}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Read data and models once."""
    return Inputs(tmp_path_factory.mktemp("results"))


@pytest.fixture
def trained(tmp_path, plain_spec, stage, data_file, inputs):
    """Train a variant in a folder of that name and return its weights, its curve and its cost in tokens."""

    def run(method, name, seed=0, steps=STEPS, **changes):
        data = {"source": "jsonl", "options": {"path": str(data_file)}, "budget": {"examples": 8}}  # each seen thrice
        validation = data | {"budget": {"examples": 4, "seed": 1}}
        options = {"data": data, "validation": validation, "method_options": VARIANTS[method]}
        plain = stage(method, steps=steps, **options, **changes)
        (tmp_path / name).mkdir(exist_ok=True)
        spec = RunSpec.parse(plain_spec(plain, seed=seed))
        made = train(pin(spec, inputs), tmp_path / name, checkpoint_every_s=0.0)
        weights = {key: value.clone() for key, value in made.model.state_dict().items()}
        cost = {key: value for key, value in made.cost.items() if key.endswith("tokens")} | made.manifests[0]
        return weights, curve(tmp_path / name), cost

    return run


def curve(folder) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "time_s"} for line in lines]


def differing(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> list[str]:
    assert left.keys() == right.keys()
    return [key for key, value in left.items() if not torch.equal(value, right[key])]


@pytest.fixture
def break_in(monkeypatch):
    """Let the next training fail inside the given step, before its weights are updated, and the one after it not."""
    compute_loss = loop.compute_loss

    def prepare(step):
        def failing(training, batch, denominator):
            if training.step == step:
                monkeypatch.setattr(loop, "compute_loss", compute_loss)
                raise InterruptedError("the machine goes down")
            return compute_loss(training, batch, denominator)

        monkeypatch.setattr(loop, "compute_loss", failing)

    return prepare


@pytest.mark.parametrize(("method", "accumulation"), [*((method, 1) for method in VARIANTS), ("distillm", 2)])
def test_broken_off_and_resumed_is_bitwise_the_same(method, accumulation, trained, break_in):
    """And hence two runs of one seed are: the second one starts anew, too."""
    changes = {"gradient_accumulation_steps": accumulation}
    weights, lines, cost = trained(method, "whole", **changes)
    break_in(BROKEN_IN)
    with pytest.raises(InterruptedError):
        trained(method, "broken", **changes)
    resumed_weights, resumed_lines, resumed_cost = trained(method, "broken", **changes)
    assert resumed_lines == lines
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert differing(resumed_weights, weights) == []
    assert resumed_cost == cost


def test_another_seed_gives_other_weights(trained):
    (weights, _, _), (other, _, _) = (trained("gkd", str(seed), seed, steps=2) for seed in (0, 1))
    assert differing(weights, other) != []


def test_a_threshold_and_its_buffer_take_part(trained):
    """Or the tests above would say nothing about the state of `replay`."""
    _, lines, cost = trained("distillm", "run")
    thresholds = [line["threshold"] for line in lines]
    assert thresholds[0] == 0.5
    assert thresholds[-1] > 0.8
    assert cost["generated_tokens"] > 0


def test_progress_reaches_the_rollout_of_the_step_it_belongs_to(trained, monkeypatch):
    seen = []
    choose = loop.choose_sequences

    def record(training, batch):
        seen.append(training.context.progress)
        return choose(training, batch)

    monkeypatch.setattr(loop, "choose_sequences", record)
    trained("distillm", "run")
    assert seen == [step / STEPS for step in range(STEPS)]
