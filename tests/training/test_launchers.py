"""How launchers start the processes of a run: the configurations that come with the kit, and what is refused."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import studykit.training
from studykit.errors import InputError
from studykit.models import sharding, zero
from studykit.results import read_record
from studykit.results.environment import SHARDING
from studykit.training import ranks

FOLDER = Path(studykit.training.__file__).parent


def environment_of(name):
    """Return the environment that `accelerate launch` gives the processes of a run."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    command = ["--config_file", str(FOLDER / name), "-m", "studykit", "run", "SPEC.json"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    assert (arguments.num_processes, arguments.use_fsdp) == (2 if name == "multi_cpu.yaml" else 8, name == "fsdp2.yaml")
    assert arguments.use_deepspeed == (name == "zero3.yaml")
    assert (arguments.module, arguments.training_script, arguments.training_script_args[0]) == (True, "studykit", "run")
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ""
        return prepare_deepspeed_cmd_env(arguments)[1]
    return prepare_multi_gpu_env(arguments)


@pytest.fixture
def launched(monkeypatch):
    """Set the environment of a launched process."""

    def set_all(environment):
        for name in ("ACCELERATE_USE_FSDP", zero.ASKED, "ACCELERATE_DEEPSPEED_ZERO_STAGE", SHARDING):
            monkeypatch.setenv(name, "")
        for name in environment:
            if name.startswith(("ACCELERATE_USE", "ACCELERATE_DEEPSPEED", "FSDP")):
                monkeypatch.setenv(name, environment[name])
        monkeypatch.setattr(zero, "find_spec", lambda name: name)  # DeepSpeed need not be installed

    return set_all


@pytest.mark.parametrize("name", ["multi_gpu.yaml", "multi_cpu.yaml", "fsdp2.yaml", "zero3.yaml"])
def test_a_configuration_is_valid_and_says_whether_weights_are_divided(name, launched, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    launched(environment_of(name))
    sharding.take_over()
    assert (os.environ[SHARDING] == "1") == (name in ("fsdp2.yaml", "zero3.yaml"))
    assert zero.is_chosen() == (name == "zero3.yaml")
    for asked in ("ACCELERATE_USE_FSDP", zero.ASKED):
        assert os.environ[asked] != "true"  # or transformers and accelerate would do it, too
    assert not sharding.is_sharding()  # no other process is there


@pytest.mark.slow
@pytest.mark.parametrize("name", ["multi_cpu.yaml", "zero3.yaml"])
def test_two_processes_on_cpus_compute_a_run(name, plain_spec, tmp_path):
    if name == "zero3.yaml" and find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed")
    (tmp_path / "spec.json").write_text(json.dumps(plain_spec(teacher=False)))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(FOLDER / name)]
    launch += ["--num_processes", "2", "--main_process_port", "0"]
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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ZERO_STAGE": "2"}, "zero_stage 2 is not supported: write 3, or take studykit/training/zero3.yaml"),
        ({"CONFIG_FILE": "ds.json"}, "deepspeed_config_file ds.json is not supported"),
        ({"ZERO_STAGE": "3", "OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, "offload_optimizer_device cpu is not supported"),
        ({"ZERO_STAGE": "3", "OFFLOAD_PARAM_DEVICE": "nvme"}, "offload_param_device nvme is not supported"),
    ],
)
def test_what_deepspeed_does_beyond_dividing_is_refused(given, message, launched):
    launched({zero.ASKED: "true"} | {f"ACCELERATE_DEEPSPEED_{name}": value for name, value in given.items()})
    with pytest.raises(InputError, match=message):
        ranks.join()


def test_a_missing_deepspeed_is_one_line(launched, monkeypatch):
    launched({zero.ASKED: "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"})
    monkeypatch.setattr(zero, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"DeepSpeed is not installed: pip install 'studykit\[deepspeed\]'"):
        ranks.join()
