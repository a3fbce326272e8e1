"""Training on two processes: the loss is divided by the tokens of both, and the gradients are averaged."""

import json
import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from studykit.data import Inputs
from studykit.spec import RunSpec
from studykit.study.pin import pin
from studykit.training import loop, train

METHODS = {
    "sft": {"method": "sft"},
    "learned temperature": {"method": "kd", "method_options": {"loss": "curriculum_temperature"}},
}


def train_as(rank: int, port: int, spec: RunSpec, folder: Path, stop_at: int | None) -> None:
    """Train as one of two processes, with a checkpoint at every step; die inside a step where `stop_at` names one."""
    torch.set_num_threads(1)
    resolved = pin(spec, Inputs(folder / "results"))
    compute_loss = loop.compute_loss

    def deadly(training, batch, denominator):
        if training.step == stop_at:
            os._exit(9)
        return compute_loss(training, batch, denominator)

    loop.compute_loss = deadly
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    trained = train(resolved, folder, checkpoint_every_s=0.0)
    if rank == 0:
        torch.save({"weights": trained.model.state_dict(), "cost": dict(trained.cost)}, folder / "end.pt")
    dist.destroy_process_group()


def curve(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def train_on_two(start, join, tmp_path):
    """Train on two processes in a folder of that name and return weights, cost and curve; None where they died."""

    def run(spec, name, stop_at=None):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        codes = [join(p) for p in [start(train_as, rank, port, spec, folder, stop_at) for rank in (0, 1)]]
        assert 9 in codes if stop_at else codes == [0, 0]  # the second may also die of the first one's end
        return None if stop_at else {**torch.load(folder / "end.pt"), "curve": curve(folder)}

    return run


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_equal_one_that_accumulates(name, train_on_two, plain_spec, stage, tmp_path):
    """Two processes take the micro-batches of a step side by side which one process takes one after the other."""
    one, two = (RunSpec.parse(plain_spec(stage(gradient_accumulation_steps=n, **METHODS[name]))) for n in (2, 1))
    alone = train(pin(one, Inputs(tmp_path / "results")), tmp_path)
    both = train_on_two(two, "both")
    for key, expected in alone.model.state_dict().items():
        torch.testing.assert_close(both["weights"][key], expected, rtol=1e-4, atol=1e-5)
    for line, expected in zip(both["curve"], curve(tmp_path), strict=True):
        for key in ("loss", "grad_norm", "ce_loss", "mean_token_accuracy", "num_tokens", "learning_rate"):
            assert line[key] == pytest.approx(expected[key], rel=1e-4)
    for key in ("student_tokens", "padding_tokens"):
        assert both["cost"][key] == alone.cost[key]


def test_two_processes_resume_bitwise(train_on_two, plain_spec, stage):
    lora = {"lora_r": 2, "lora_dropout": 0.2}
    spec = RunSpec.parse(plain_spec(stage(learning_rate=0.05), lora=lora))
    whole = train_on_two(spec, "whole")
    train_on_two(spec, "broken", stop_at=3)
    resumed = train_on_two(spec, "broken")
    assert all(torch.equal(value, resumed["weights"][key]) for key, value in whole["weights"].items())
    assert [line["loss"] for line in resumed["curve"]] == [line["loss"] for line in whole["curve"]]
