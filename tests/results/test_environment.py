"""Changed code in a record: new files are changes too, results and ignored files are none."""

import subprocess

import pytest

from studykit.results.environment import has_changed_code


@pytest.fixture
def checkout(tmp_path):
    """Make a repository with one committed file in the package."""
    (tmp_path / "studykit" / "losses").mkdir(parents=True)
    (tmp_path / "studykit" / "losses" / "old.py").write_text("X = 1\n")
    (tmp_path / ".gitignore").write_text("results/\n*.pyc\n")
    names = "-c", "user.name=a", "-c", "user.email=a@example.org"
    for command in (["init", "-q"], ["add", "."], [*names, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "dirty"),
    [
        ("studykit/losses/old.py", True),
        ("studykit/losses/new.py", True),
        ("notebooks/new.ipynb", True),
        ("studykit/losses/new.pyc", False),
        ("results/study/study.json", False),
        ("data/train.jsonl", False),
    ],
)
def test_new_and_changed_code_is_dirty(file, dirty, checkout):
    assert not has_changed_code(checkout)
    (checkout / file).parent.mkdir(parents=True, exist_ok=True)
    (checkout / file).write_text("X = 2\n")
    assert has_changed_code(checkout) == dirty


def test_outside_a_checkout_nothing_is_known(tmp_path):
    assert not has_changed_code(tmp_path)
