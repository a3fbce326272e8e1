"""SIGTERM during a training: a checkpoint, and the same weights when it goes on."""

import os
import signal
import threading

import pytest
import torch

from studykit.data import Inputs
from studykit.spec import RunSpec
from studykit.study.pin import pin
from studykit.training import loop, train
from studykit.training.checkpoints import is_complete
from studykit.training.stopping import Stopped, until_stopped


def test_a_training_that_is_stopped_saves_a_checkpoint_and_goes_on_to_the_same_weights(
    plain_spec, stage, tmp_path, results_root, monkeypatch
):
    spec = RunSpec.parse(plain_spec(stage(steps=6), teacher=False))
    whole = train(pin(spec, Inputs(results_root)), tmp_path / "whole")
    with monkeypatch.context() as patch:
        compute_loss = loop.compute_loss

        def stop(training, batch, denominator):
            if training.step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return compute_loss(training, batch, denominator)

        patch.setattr(loop, "compute_loss", stop)
        with pytest.raises(Stopped, match="stopped by SIGTERM after 4 steps, with a checkpoint"):
            train(pin(spec, Inputs(results_root)), tmp_path / "run")
    assert is_complete(tmp_path / "run" / "checkpoints" / "stage-0" / "checkpoint-4")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    resumed = train(pin(spec, Inputs(results_root)), tmp_path / "run")
    weights = whole.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in resumed.model.state_dict().items())


def test_outside_the_main_thread_a_training_is_not_stopped():
    seen = []

    def train_elsewhere():
        with until_stopped() as is_stopped:
            seen.append(is_stopped())

    thread = threading.Thread(target=train_elsewhere)
    thread.start()
    thread.join()
    assert seen == [False]
