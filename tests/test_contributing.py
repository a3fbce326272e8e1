"""The examples of CONTRIBUTING.md and docs/one-step.md work: each is put into a package and used."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from streamlit.testing.v1 import AppTest

from dashboard import readings
from studykit import findings, losses, methods, rollouts, samplers, scorers, sources
from studykit.discovery import Room
from studykit.errors import InputError
from studykit.executors.local import Local
from studykit.losses import LossInputs
from studykit.rollouts.student import Student
from studykit.spec import Budget

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE, flags=re.DOTALL))
DISCOVERED = sorted(path for path in EXAMPLES if path.startswith("studykit/"))


@pytest.fixture
def room(tmp_path, monkeypatch):
    """Put the examples of one kind into a temporary package, and return it as a room."""
    made = []

    def make(kind: str) -> Room:
        package = f"contributed_{kind}"
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("", encoding="utf-8")
        for path in DISCOVERED:
            if path.startswith(f"studykit/{kind}/"):
                (tmp_path / package / Path(path).name).write_text(EXAMPLES[path], encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        made.append(package)
        return Room(package, kind=kind)

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] in made]:
        del sys.modules[name]


def pool() -> list[sources.Example]:
    talk = [({"role": "user", "content": "q"}, {"role": "assistant", "content": "a" * n}) for n in (5, 1, 3, 1)]
    return [sources.Example(f"e{number}", turns, "s", "human", "train") for number, turns in enumerate(talk)]


@pytest.mark.parametrize("path", DISCOVERED)
def test_an_example_is_found_described_and_named_like_its_file(path, room):
    _, kind, file = path.split("/")
    found = room(kind)
    name = file.removesuffix(".py")
    assert name in found.names()
    assert found.describe(name)
    assert callable(found.member(name)) or kind == "methods"


@pytest.fixture
def repository(tmp_path):
    """Make a copy of package and tests, linked file by file (also what is compiled), with all examples in it."""
    for folder in ("studykit", "tests", "tools", "notebooks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, copy_function=os.symlink)
    for path, code in EXAMPLES.items():
        if path.startswith(("studykit/", "tests/")):
            (tmp_path / path).write_text(code, encoding="utf-8")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def passed(repository, names, *arguments):
    """Run those tests of a copy whose names match, all of which must pass; return how many did."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", names, *arguments],
        cwd=repository,
        env=os.environ | {"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return int(re.findall(r"(\d+) passed", done.stdout)[-1])


def test_the_examples_pass_the_tests_of_their_kinds(repository):
    names = " or ".join(Path(path).stem for path in DISCOVERED)
    folders = ("losses", "samplers", "methods", "rollouts", "scorers", "findings", "executors", "test_discovery.py")
    files = [f"tests/{folder}" for folder in folders] + [path for path in DISCOVERED if "/losses/" in path]
    assert (
        passed(repository, names, *files, "--ignore-glob=*_against_*") > 100
    )  # these import other packages, to compare


def test_the_examples_of_fields_of_the_specification_are_one_edit_of_one_file(repository):
    names = []
    for path, part, code in re.findall(r"```python\n# (\S+\.py): (\w+)\n(.*?)```", PAGE, flags=re.DOTALL):
        beside, _, field = code.rpartition(f"class {part}(Part):\n    ...\n")
        before, of_part, after = (repository / path).read_text(encoding="utf-8").partition(f"class {part}(Part):\n")
        fields, gap, after = after.partition("\n\n\n")
        (repository / path).unlink()  # a link to the original
        (repository / path).write_text(f"{before}{beside}{of_part}{fields}\n{field}{gap}{after}", encoding="utf-8")
        names.append(field.split(":")[0].strip())
    assert names == ["use_rslora", "frozen_embeddings"]
    files = ("tests/test_passed_fields.py", "tests/test_applied_fields.py", "tests/results/test_option_columns.py")
    assert passed(repository, " or ".join(f".{name}" for name in names), *files) == 4


def test_there_is_an_example_of_every_kind():
    kinds = {path.split("/")[1] for path in DISCOVERED}
    rooms = {file.parent.name for file in (ROOT / "studykit").glob("*/__init__.py") if "= Room(" in file.read_text()}
    assert kinds == rooms


def test_the_example_of_a_loss(room, monkeypatch):
    monkeypatch.setattr(losses, "LOSSES", room("losses"))
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    x = LossInputs(q.log(), p.log(), torch.tensor([0]))
    assert losses.get_loss("power_distance").per_token(x).tolist() == pytest.approx([2 / 16])
    assert losses.get_loss("power_distance", power=1.0).per_token(x).tolist() == pytest.approx([1 / 2])
    with pytest.raises(InputError, match="power must be"):
        losses.get_loss("power_distance", power=0.5)


def test_the_example_of_a_sampler(room, monkeypatch):
    monkeypatch.setattr(samplers, "SAMPLERS", room("samplers"))
    ranked = samplers.ranking(pool(), Budget(sampler="shortest"))
    assert sorted(ranked[:2].tolist()) == [1, 3]
    assert ranked[2:].tolist() == [2, 0]


def test_the_example_of_a_method(room, monkeypatch):
    monkeypatch.setattr(methods, "METHODS", room("methods"))
    recipe = methods.get_method("on_policy_skew", max_new_tokens=7)
    assert (recipe.loss, recipe.loss_options) == ("skew_forward_kl", {"skew": 0.2})
    assert recipe.rollout_options == {"lmbda": 1.0, "max_new_tokens": 7}
    assert recipe.needs_live_teacher


def test_the_example_of_a_rollout(room, monkeypatch):
    monkeypatch.setattr(rollouts, "ROLLOUTS", room("rollouts"))
    monkeypatch.setattr(Student, "__call__", lambda self, batch, context: "the student's")
    rollout = rollouts.get_rollout("late_student", start=0.25, max_new_tokens=7)

    class Context:
        progress = 0.0

    assert rollout("the data's", Context) == "the data's"  # pyright: ignore[reportArgumentType]
    Context.progress = 0.25
    assert rollout("the data's", Context) == "the student's"  # pyright: ignore[reportArgumentType]


def test_the_example_of_a_source(room, monkeypatch):
    monkeypatch.setattr(sources, "SOURCES", room("sources"))
    train, test = (sources.load_examples("sums", split, {"largest": 9}) for split in ("train", "test"))
    assert (len(train), len(test)) == (90, 10)
    assert not {e.id for e in train} & {e.id for e in test}
    assert all(eval(e.id) == int(e.answer) for e in train + test)


def test_the_example_of_a_scorer(room, monkeypatch):
    monkeypatch.setattr(scorers, "SCORERS", room("scorers"))
    items = [scorers.Item("a", "", "K AE T", answer, 0.0, 4) for answer in ("T T T", "T", None)]
    means = scorers.weighted_means(scorers.score_items(items, ["word_count"]))
    assert means == {"word_count": pytest.approx(1 / 3)}


FRAME = pd.DataFrame(
    {
        "method": ["sft", "sft", "kd"],
        "status": ["done", "done", "failed"],
        "train_s": [10.0, 20.0, 5.0],
        "budget_examples": pd.array([500, 500, 500], dtype="Int64"),
    }
)


def test_the_example_of_a_finding(room, monkeypatch):
    monkeypatch.setattr(findings, "FINDINGS", room("findings"))
    finding = findings.FINDINGS.member("seconds")(FRAME)
    assert finding.sentence == "Seconds of training: sft 15 s."


def test_the_example_of_a_figure(room):
    figure = room("figures").member("seconds_against_budget")(FRAME)
    [trace] = figure.data
    assert (trace.name, np.asarray(trace.y).tolist()) == ("sft", [10.0, 20.0])


def test_the_example_of_a_page(monkeypatch):
    [code] = [code for path, code in EXAMPLES.items() if path.startswith("dashboard/views/")]
    monkeypatch.setattr(readings, "runs", lambda: FRAME)
    app = AppTest.from_string(code, default_timeout=60).run()
    assert not app.exception
    assert app.title[0].value == "Seconds"
    assert app.dataframe[0].value["train_s"].tolist() == [15.0]


def test_the_example_of_an_executor(room, monkeypatch):
    started = []
    executor = room("executors").member("niced")(jobs=2)
    monkeypatch.setattr(Local, "submit", lambda self, command, log: started.append(command))
    executor.submit(["python"], Path("log.txt"))
    assert (executor.jobs, started) == (2, [["nice", "-n", "19", "python"]])


def test_the_test_files_and_commands_that_are_named_exist():
    for path in re.findall(r"`((?:tests|studykit|notebooks|dashboard)/[\w/.]*\w[\w/]*)`", PAGE):
        assert "NAME" in path or "NN" in path or (ROOT / path).exists(), path
    for module in re.findall(r"-m (tools\.\w+)", PAGE):
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), module


STEP = (ROOT / "docs" / "one-step.md").read_text(encoding="utf-8")


def test_one_step_of_distillation_lowers_the_loss(capsys, one_thread):
    [code] = re.findall(r"```python\n(.*?)```", STEP, flags=re.DOTALL)
    assert len(code.splitlines()) <= 40
    exec(code, {})
    values = [float(value) for value in re.findall(r"loss ([\d.]+)", capsys.readouterr().out)]
    assert len(values) == 5
    assert values[-1] < values[0] - 0.1
