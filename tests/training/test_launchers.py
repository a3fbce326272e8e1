"""How launchers start the processes of a run: the configurations that come with the kit, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import studykit.training
from studykit.errors import InputError
from studykit.models import sharding
from studykit.results import read_record
from studykit.results.environment import SHARDING
from studykit.training import ranks

FOLDER = Path(studykit.training.__file__).parent


def environment_of(name):
    """Return the environment that `accelerate launch` gives the processes of a run."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    command = ["--config_file", str(FOLDER / name), "-m", "studykit", "run", "SPEC.json"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    assert (arguments.num_processes, arguments.use_fsdp) == (2 if name == "multi_cpu.yaml" else 8, name == "fsdp2.yaml")
    assert (arguments.module, arguments.training_script, arguments.training_script_args[0]) == (True, "studykit", "run")
    return prepare_multi_gpu_env(arguments)


@pytest.fixture
def launched(monkeypatch):
    """Set the environment of a launched process."""

    def set_all(environment):
        for name in ("ACCELERATE_USE_FSDP", SHARDING):
            monkeypatch.setenv(name, "")
        for name in [name for name in environment if name.startswith(("ACCELERATE_USE", "FSDP"))]:
            monkeypatch.setenv(name, environment[name])

    return set_all


@pytest.mark.parametrize("name", ["multi_gpu.yaml", "multi_cpu.yaml", "fsdp2.yaml"])
def test_a_configuration_is_valid_and_says_whether_weights_are_divided(name, launched, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    launched(environment_of(name))
    sharding.take_over()
    assert (os.environ[SHARDING] == "1") == (name == "fsdp2.yaml")
    assert os.environ["ACCELERATE_USE_FSDP"] != "true"  # or transformers and accelerate would do it, too
    assert not sharding.is_sharding()  # no other process is there


@pytest.mark.slow
def test_two_processes_on_cpus_compute_a_run(plain_spec, tmp_path):
    (tmp_path / "spec.json").write_text(json.dumps(plain_spec(teacher=False)))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(FOLDER / "multi_cpu.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = f"{FOLDER.parents[1]}:{os.environ.get('PYTHONPATH', '')}"
    command = [*launch, "-m", "studykit", "run", "spec.json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "results" / "scratch" / "runs").iterdir()
    record = read_record(run)
    assert record is not None
    assert record.environment is not None
    assert (record.status, record.environment.processes) == ("done", 2)
    assert done.stdout.count("train_s") == 1  # one of the two says what the run has cost


def test_the_first_version_of_fsdp_is_refused(launched):
    launched({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"})
    with pytest.raises(InputError, match="fsdp_version 1 is not supported: write 2"):
        sharding.take_over()


def test_deepspeed_is_refused(launched):
    launched({"ACCELERATE_USE_DEEPSPEED": "true"})
    with pytest.raises(InputError, match=r"DeepSpeed is not supported.*fsdp2\.yaml"):
        ranks.join()
