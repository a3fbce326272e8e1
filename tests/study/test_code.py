"""Code that is not the released one is part of what a run is; docstrings, comments and layout are not."""

import shutil
import sys

import pytest

from studykit import losses, study
from studykit.discovery import Room
from studykit.errors import InputError
from studykit.losses import LOSSES
from studykit.spec import RunSpec
from studykit.study import code, released
from studykit.study.released import code_hash, unreleased
from tools.release import ROOMS

LOSS = '''"""Squared Hellinger distance."""

from torch import Tensor

from studykit.losses import LossInputs


def mine(x: LossInputs) -> Tensor:
    """Return it."""
    return {factor} * (1 - (0.5 * (x.student_logp + x.teacher)).exp().sum(dim=-1))
'''

FIRST = "from things import second\nfrom things._shared import SCALE\n\n\ndef first(x):\n    return SCALE * x\n"


@pytest.fixture
def room(tmp_path):
    """Make a room of one thing, `first`, which imports `_shared` and `second`, and one that nothing imports."""
    folder = tmp_path / "things"
    folder.mkdir()
    write = {
        "__init__": "",
        "_shared": "SCALE = 1.0\n",
        "second": "def second(x):\n    return x\n",
        "other": "X = 1\n",
        "first": FIRST,
    }
    for name, text in write.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    sys.path.insert(0, str(tmp_path))
    yield Room("things", kind="thing")
    sys.path.remove(str(tmp_path))


def rewritten(room, name, text):
    """Return the hash of `first` before and after a file has another text."""
    before = code_hash(room, "first")
    (room.folder / f"{name}.py").write_text(text, encoding="utf-8")
    return before, code_hash(room, "first")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("first", FIRST.replace("SCALE *", "-SCALE *")),
        ("_shared", "SCALE = -100.0\n"),
        ("second", "def second(x):\n    return -x\n"),
    ],
)
def test_other_code_has_another_hash_in_the_file_and_in_what_it_imports(name, text, room):
    before, after = rewritten(room, name, text)
    assert before != after


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("first", '"""A thing."""\n' + FIRST.replace(":\n", ":\n    # why\n    'It.'\n\n").replace(" * ", "*")),
        ("other", "X = 2\n"),
    ],
)
def test_docstrings_comments_layout_and_other_files_do_not_count(name, text, room):
    before, after = rewritten(room, name, text)
    assert before == after


def test_every_thing_of_the_rooms_has_a_hash():
    assert {room.kind for room in ROOMS} == {"loss", "method", "rollout", "sampler", "scorer", "source"}
    for room in ROOMS:
        for name in room.names():
            assert len(code_hash(room, name)) == 12


def test_what_is_released_adds_nothing(monkeypatch):
    monkeypatch.setattr(released, "released", lambda: {"loss.forward_kl": code_hash(LOSSES, "forward_kl")})
    assert unreleased(LOSSES, "forward_kl") is None
    assert unreleased(LOSSES, "jsd") == code_hash(LOSSES, "jsd")


@pytest.fixture
def own_losses(tmp_path, monkeypatch):
    """Copy the package of losses beside the test, so that a file can be added to it and edited."""
    folder = tmp_path / "losses"
    shutil.copytree(LOSSES.folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
    elsewhere = vars(Room)["folder"].fget
    monkeypatch.setattr(losses, "__path__", [str(folder)])
    monkeypatch.setattr(Room, "folder", property(lambda room: folder if room.kind == "loss" else elsewhere(room)))
    yield folder
    sys.modules.pop("studykit.losses.mine", None)


def test_an_edited_loss_is_another_run(own_losses, plain_spec, stage, tmp_path):
    specs = []
    plain = plain_spec(stage("kd", method_options={"loss": "mine"}))
    for factor in (1, -100):
        (own_losses / "mine.py").write_text(LOSS.format(factor=factor), encoding="utf-8")
        if specs:
            with pytest.raises(InputError, match="loss 'mine': its file was edited after it was imported"):
                study.pin(RunSpec.parse(plain), tmp_path)
        sys.modules.pop("studykit.losses.mine", None)  # as in a new process
        specs.append(study.pin(RunSpec.parse(plain), tmp_path).spec)
    assert all(set(spec.stages[0].code or {}) >= {"loss.mine"} for spec in specs)
    assert specs[0].run_id != specs[1].run_id
    with pytest.raises(
        InputError, match=r"method 'kd': the code of loss\.mine is not what this specification was pinned"
    ):
        study.pin(specs[0], tmp_path)


def test_a_scorer_is_part_of_its_evaluation_alone(plain_spec, data_file, tmp_path, monkeypatch):
    evaluation = {"data": {"source": "jsonl", "options": {"path": str(data_file)}}, "items": 3}
    pinned = []
    for version in (None, "0123456789ab"):
        monkeypatch.setattr(code, "unreleased", lambda room, name, v=version: v if name == "nll" else None)
        pinned.append(study.pin(RunSpec.parse(plain_spec(evaluation=evaluation)), tmp_path).spec)
    assert pinned[0].run_id == pinned[1].run_id
    assert [spec.evaluation[0].code for spec in pinned] == [None, {"scorer.nll": "0123456789ab"}]
    assert pinned[0].evaluation[0].eval_id != pinned[1].evaluation[0].eval_id
