"""A run on two processes: the same steps as on one, whatever is trained, whole or sharded, also killed and resumed."""

import os
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist
from two_processes import assert_equal, become, fail, found, interrupt, running, start_two

from studykit import study
from studykit.errors import Failure, InputError
from studykit.results.environment import PROCESSES, SHARDING
from studykit.study import launch
from studykit.training import train

GENERATING = {"max_new_tokens": 6}
CASES: dict[str, dict[str, Any]] = {
    "sft": {"gradient_accumulation_steps": 2},
    "cached kd": {"method": "kd", "top_k": 8, "method_options": {"kd_ratio": 0.7}},
    "live kd": {"method": "kd", "method_options": {"loss": "curriculum_temperature"}, "tied": True},
    "gkd": {"method": "gkd", "method_options": GENERATING | {"lmbda": 0.7}},
    "skd": {"method": "skd", "method_options": GENERATING},
    "lora": {"method": "kd", "lora": {"lora_r": 2}},
}
SHARDED = ("live kd", "gkd", "lora")
ON_POLICY: dict[str, Any] = {"method": "gkd", "method_options": GENERATING | {"lmbda": 0.7}, "lora": {"lora_r": 2}}


@pytest.fixture(scope="module")
def specs(plain_spec, stage, tiny_config, data_file):
    """Return the specification of each case, and of those that are interrupted."""

    def make(lora=None, top_k=None, tied=False, **changes):
        config = tiny_config | {"tie_word_embeddings": tied}
        data = {"source": "jsonl", "options": {"path": str(data_file)}}
        evaluation = {"data": data, "items": 4, "batch_size": 3, "max_new_tokens": 6}
        spec = plain_spec(stage(steps=4, **changes), lora=lora, top_k=top_k, evaluation=evaluation)
        spec["student"]["random_config"] = config
        return spec

    made = {name: make(**case) for name, case in CASES.items()}
    dropping: dict[str, Any] = ON_POLICY | {"lora": {"lora_r": 2, "lora_dropout": 0.2}}
    return made | {"on policy": make(**ON_POLICY), "dropout": make(**dropping)}


def work(rank: int, port: int, specs: dict, root: Path, killed: bool) -> None:
    """Compute the cases as one of two processes, or die within one of them."""
    become(rank, port, root)
    if killed:
        interrupt(lambda: os._exit(9))
        study.run(specs["dropout"], study="killed", root=root)
    study.run(specs["dropout"], study="killed", root=root)
    for name in (*CASES, "dropout"):
        study.run(specs[name], study="two", root=root)
    os.environ[SHARDING] = "1"
    study.run(specs["on policy"], study="begun", root=root)
    restore = interrupt(fail)
    with pytest.raises(RuntimeError, match="interrupted"):
        study.run(specs["on policy"], study="interrupted", root=root)
    restore()
    for name in SHARDED:
        study.run(specs[name], study="sharded", root=root)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def root(tmp_path_factory, specs):
    """Return the folder of all results: of two processes and of one."""
    root = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDYKIT_CACHE", str(root / "cache of one"))  # no other test has asked this teacher here
        with patch.context() as saving:
            saving.setattr(running, "train", partial(train, checkpoint_every_s=0.0))
            restore = interrupt(fail)
            with pytest.raises(RuntimeError, match="interrupted"):
                study.run(specs["on policy"], study="begun", root=root)
            restore()
        for killed in (True, False):
            codes = start_two(work, specs, root, killed)
            assert 9 in codes if killed else codes == [0, 0]
        study.run(specs["on policy"], study="interrupted", root=root)
        for name in (*CASES, "on policy"):
            study.run(specs[name], study="one", root=root)
    return root


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(case, root, specs):
    one, two = (found(root, name, specs, case) for name in ("one", "two"))
    assert_equal(one, two)
    assert (one[0]["environment"].get("processes"), two[0]["environment"]["processes"]) == (None, 2)


@pytest.mark.parametrize("case", SHARDED)
def test_two_processes_that_share_the_weights_equal_one(case, root, specs):
    assert_equal(found(root, "one", specs, case), found(root, "sharded", specs, case))


def test_killed_and_resumed_equals_undisturbed_to_the_last_bit(root, specs):
    resumed, whole = (found(root, name, specs, "dropout") for name in ("killed", "two"))
    assert resumed[0]["cost"]["attempts"] == 2
    assert all(torch.equal(value, resumed[2][key]) for key, value in whole[2].items())
    assert [line["loss"] for line in resumed[1]] == [line["loss"] for line in whole[1]]


@pytest.mark.parametrize("name", ["interrupted", "begun"])
def test_a_run_goes_on_with_another_number_of_processes(name, root, specs):
    """`interrupted` was begun by two that share the weights and goes on with one, `begun` the other way round."""
    changed = found(root, name, specs, "on policy")
    assert changed[0]["cost"]["attempts"] == 2
    assert_equal(found(root, "one", specs, "on policy"), changed)


def test_started_from_here_they_compute_the_same(root, specs, monkeypatch):
    """Several processes wait for one another, and this one for all of them."""
    monkeypatch.setattr(launch, "_START", "forkserver")  # as elsewhere here: it has imported everything already
    monkeypatch.setenv(PROCESSES, "2")
    lines, listening = [], set()
    before = {process.pid for process in psutil.Process().children(recursive=True)}  # such as other tests' servers

    def show(line):
        lines.append(line)
        started = [one for one in psutil.Process().children(recursive=True) if one.pid not in before]
        for process in (psutil.Process(), *started):
            with suppress(psutil.NoSuchProcess):
                listening.update(it.laddr.ip for it in process.net_connections() if it.status == psutil.CONN_LISTEN)

    row = study.run(specs["cached kd"], study="started", root=root, show=show)
    assert listening == {"127.0.0.1"}
    assert_equal(found(root, "one", specs, "cached kd"), found(root, "started", specs, "cached kd"), counted=False)
    assert any(line.startswith("training") for line in lines)
    started = []
    monkeypatch.setattr(launch, "_work", started.append)
    assert study.run(specs["cached kd"], study="started", root=root) == row
    with pytest.raises(InputError, match="batch_size 3 does not divide by 2 processes: take 2 or 4"):
        study.run(specs["sft"] | {"stages": [specs["sft"]["stages"][0] | {"batch_size": 3}]}, root=root)
    assert not started


def test_the_first_error_of_a_process_ends_all(root, specs, monkeypatch):
    monkeypatch.setattr(launch, "_START", "forkserver")
    monkeypatch.setenv(PROCESSES, "2")
    monkeypatch.setattr(launch, "_work", die)
    with pytest.raises(Failure, match="process 1 of the run ended with exit code 7"):
        study.run(specs["lora"], study="started", root=root)


def die(index, place, job, queue):
    """Stand for one of the processes, the second of which is killed while the first one waits for it."""
    os._exit(7) if index else time.sleep(600)
