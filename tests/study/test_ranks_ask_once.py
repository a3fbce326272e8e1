"""What two processes of a run tell others: a server gets each sequence once, a tracker each point."""

import gc
import os
import socket

import processes
import pytest
import torch
import torch.distributed as dist
from completions_server import MODEL, Answers, serving
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

from studykit import study
from studykit.models import loading
from studykit.models.names import Models
from studykit.results import read_metrics

K = 8


def work(rank, port, spec, root):
    """Compute the run as one of two processes, and follow it with a tracker."""
    gc.freeze()  # each end of a training asks for a collection
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1", NO_PROXY="127.0.0.1")
    study.run(spec, study="two", root=root, report_to="tensorboard")
    dist.destroy_process_group()


@pytest.fixture
def asked(tmp_path, monkeypatch, empty_cache, teacher_folder, plain_spec, stage, data_file):
    """Return the sequences that a server got while two processes computed a run."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    model = Models().find(str(teacher_folder))
    answers = Answers(loading.load_teacher(model), model.tokenizer)
    with serving(answers) as url:
        evaluation = {"data": {"source": "jsonl", "options": {"path": str(data_file)}}, "items": 4, "max_new_tokens": 4}
        endpoint = {"url": url, "model": MODEL, "logprobs": K, "requests": 4, "retries": 2}
        teacher = {"name": "lexicon/tokenizer", "endpoint": endpoint}
        spec = plain_spec(stage("kd"), evaluation=evaluation) | {"teacher": teacher}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        started = [processes.start(work, rank, port, spec, tmp_path) for rank in (0, 1)]
        assert [processes.join(process) for process in started] == [0, 0]
    return answers.asked


def test_two_processes_ask_a_server_once_and_tell_a_tracker_once(asked, tmp_path):
    assert len(asked) == len(set(asked)) > 0
    [folder] = (tmp_path / "two" / "runs").iterdir()
    curve, _ = read_metrics(folder)
    read = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "two" / "tensorboard")).Reload()
    assert list(read.Runs()) == [folder.name]
    assert [event.step for event in read.Scalars(folder.name, "loss")] == list(range(1, len(curve) + 1))
    assert [event.value for event in read.Scalars(folder.name, "loss")] == pytest.approx(curve["loss"].tolist())
    assert len(read.Scalars(folder.name, "exact_match")) == 1
    assert len(list((tmp_path / "two" / "tensorboard").rglob("events*"))) == 1
