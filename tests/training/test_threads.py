"""The number of threads: the fewest that are fast, the same at every repetition, and nothing else changed by asking."""

import json
import pickle
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from studykit.data import Inputs
from studykit.spec import RunSpec
from studykit.study.pin import pin
from studykit.training import loop, train
from studykit.training import threads as room
from studykit.training.threads import allowance, chosen_threads, fewest_as_fast

PLAN = [np.arange(4), np.arange(4, 8), np.array([6, 13, 20, 27])]


@pytest.fixture
def two_threads(monkeypatch, one_thread):
    """Allow two threads, on machines with one core as well."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def prefers(monkeypatch):
    """Make training believe that this number of threads is fastest, and record each measurement's maximum."""

    def make(number):
        asked = []
        monkeypatch.setattr(room, "fewest_as_fast", lambda step, maximum: (asked.append(maximum), step(), number)[2])
        return asked

    return make


def sleeping(seconds):
    """Return a step that takes a known time with each number of threads, and how often it ran with each."""
    ran = []

    def step():
        ran.append(torch.get_num_threads())
        time.sleep(seconds[torch.get_num_threads()])

    return step, ran


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 0.004, 2: 0.008, 4: 0.012}, 1),
        ({1: 0.012, 2: 0.006, 4: 0.010}, 2),
        ({1: 0.030, 2: 0.012, 4: 0.006}, 4),
        ({1: 0.020, 2: 0.020, 4: 0.020}, 1),
        ({1: 0.012, 2: 0.009, 3: 0.006}, 3),
    ],
)
def test_the_fewest_threads_that_are_as_fast_as_any_are_chosen(seconds, expected, two_threads):
    step, ran = sleeping(seconds)
    assert fewest_as_fast(step, max(seconds)) == expected
    assert ran.count(expected) >= 3


def test_a_large_model_is_timed_once_with_each_number_and_hopeless_ones_are_left_out(two_threads):
    step, ran = sleeping({1: 9.0, 2: 0.9, 4: 0.3, 8: 0.2})
    assert fewest_as_fast(step, 8) == 8
    assert ran == [8, 8, 4, 2]


def test_the_allowance_is_what_the_environment_the_cores_and_torch_allow(two_threads, monkeypatch):
    assert allowance() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert allowance() == 1
    monkeypatch.setattr(room.os, "sched_getaffinity", lambda process: {0}, raising=False)
    for unclear in ("", "4,2"):
        monkeypatch.setenv("OMP_NUM_THREADS", unclear)
        assert allowance() == 1
    monkeypatch.setattr(room.os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    assert allowance() == 2  # set_num_threads in a notebook is meant


def test_the_choice_holds_for_the_training_and_no_longer(
    two_threads, prefers, plain_spec, stage, tmp_path, empty_cache, monkeypatch
):
    prefers(1)
    seen = []
    step = loop.train_step
    monkeypatch.setattr(
        loop, "train_step", lambda t, batches: (seen.append(torch.get_num_threads()), step(t, batches))[1]
    )
    run = pin(RunSpec.parse(plain_spec(stage(), stage())), Inputs(tmp_path / "results"))
    trained = train(run, tmp_path)
    assert set(seen) == {1}
    again = train(
        pin(RunSpec.parse(plain_spec(stage(), stage())), Inputs(tmp_path / "results")), tmp_path
    )  # reads what is finished
    assert trained.threads == again.threads == [1, 1]
    assert torch.get_num_threads() == 2
    assert "threads" not in trained.cost


def test_threads_are_restored_when_training_fails(two_threads, prefers, make_training, tiny_model, empty_cache):
    prefers(1)
    with pytest.raises(RuntimeError, match="on purpose"), chosen_threads(*make_training(tiny_model(), PLAN)):
        raise RuntimeError("on purpose")
    assert torch.get_num_threads() == 2


def choose(training):
    with chosen_threads(*training) as threads:
        assert torch.get_num_threads() == threads
        return threads


def test_a_choice_is_made_once_and_read_again(two_threads, prefers, make_training, tiny_model, empty_cache):
    asked = prefers(1)
    assert choose(make_training(tiny_model(seed=1), PLAN)) == 1
    prefers(2)
    assert choose(make_training(tiny_model(seed=2), PLAN)) == 1  # other weights, the same work
    assert asked == [2]
    assert choose(make_training(tiny_model(hidden_size=32), PLAN)) == 2
    assert choose(make_training(tiny_model(), [rows[:2] for rows in PLAN])) == 2
    assert choose(make_training(tiny_model(), PLAN, bf16=True)) == 2


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"threads": 64}', '{"threads": "1"}', None])
def test_a_damaged_or_deleted_choice_is_made_again(
    damage, two_threads, prefers, make_training, tiny_model, empty_cache
):
    prefers(1)
    choose(make_training(tiny_model(), PLAN))
    (file,) = (empty_cache / "threads").glob("*.json")
    if damage is None:
        file.unlink()
    else:
        file.write_text(damage)
    asked = prefers(2)
    assert choose(make_training(tiny_model(), PLAN)) == 2
    assert asked == [2]
    assert json.loads(file.read_text()) == {"threads": 2}


def test_two_that_start_together_measure_once(two_threads, make_training, tiny_model, empty_cache, monkeypatch):
    numbers = iter([1, 2])
    monkeypatch.setattr(room, "fewest_as_fast", lambda step, maximum: (time.sleep(0.2), next(numbers))[1])
    stages, chosen = [make_training(tiny_model(), PLAN) for _ in range(2)], []
    workers = [threading.Thread(target=lambda s=s: chosen.append(room._choose(*s))) for s in stages]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert chosen == [1, 1]


def test_one_allowed_thread_is_not_measured(prefers, one_thread, make_training, tiny_model, empty_cache):
    asked = prefers(1)
    assert choose(make_training(tiny_model(), PLAN)) == 1
    assert asked == []
    assert not (empty_cache / "threads").exists()


def test_an_accelerator_is_left_alone(two_threads, prefers, make_training, tiny_model, empty_cache):
    asked, (training, planned) = prefers(1), make_training(tiny_model(), PLAN)
    training.accelerator = SimpleNamespace(device=torch.device("meta"))
    with chosen_threads(training, planned) as threads:
        assert threads is None
        assert torch.get_num_threads() == 2
    assert asked == []


def test_measuring_leaves_random_state_gradients_mode_and_costs_alone(
    two_threads, make_training, tiny_model, empty_cache
):
    model = tiny_model(seed=3, attention_dropout=0.3).eval()
    (training, planned), before = make_training(model, PLAN), {name: p.clone() for name, p in model.named_parameters()}
    torch.manual_seed(11)
    state, numpy_state = torch.get_rng_state(), pickle.dumps(np.random.get_state())
    assert choose((training, planned)) in (1, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert pickle.dumps(np.random.get_state()) == numpy_state
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert not model.training
    assert training.cost == {"student_tokens": 0, "padding_tokens": 0}
    assert training.averages.state_dict()["sums"] == {}


def test_what_is_timed_computes_in_the_precision_of_the_training(
    two_threads, prefers, make_training, tiny_model, empty_cache
):
    prefers(1)
    rounded = []
    for asked in (None, True):
        model = tiny_model()
        layer = model.model.layers[0].mlp.down_proj
        layer.register_forward_hook(lambda module, inputs, output: rounded.append(output.dtype))
        choose(make_training(model, PLAN, bf16=asked))
    assert rounded == [torch.float32, torch.bfloat16]


def test_training_is_bitwise_that_without_measuring(
    two_threads, plain_spec, stage, tmp_path, empty_cache, monkeypatch, tiny_config
):
    """With dropout, so that a number drawn while measuring would be seen in the weights."""
    student = {"name": "lexicon/tokenizer", "random_config": tiny_config | {"attention_dropout": 0.2}}
    spec, ends = RunSpec.parse(plain_spec(stage(), student=student)), []
    measured = train(pin(spec, Inputs(tmp_path / "results")), tmp_path / "measured")
    (number,) = measured.threads
    assert len(list((empty_cache / "threads").glob("*.json"))) == 1
    monkeypatch.setattr(room, "_choose", lambda training, planned: number)
    for trained in (measured, train(pin(spec, Inputs(tmp_path / "results")), tmp_path / "plain")):
        ends.append(torch.cat([p.detach().flatten() for p in trained.model.parameters()]))
    assert torch.equal(*ends)
