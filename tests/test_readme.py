"""What the README says is so: its numbers come from results/, its tree exists, its example trains."""

import re

import pytest
import torch

from studykit import readme
from studykit.losses import LossInputs

TEXT = (readme.ROOT / "README.md").read_text(encoding="utf-8")


def test_the_numbers_are_generated_from_the_committed_results():
    block = TEXT.partition(readme.START)[2].partition(readme.END)[0].strip()

    assert block == readme.generated().strip(), "run `make figures` after results/lexicon has changed"


def test_the_figure_is_there():
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", TEXT):
        assert (readme.ROOT / path).is_file(), path


def test_everything_in_the_tree_exists():
    tree = TEXT.partition("## What is where\n\n```\n")[2].partition("```")[0]
    folder = ""
    for line in tree.splitlines():
        indented, names = line.startswith("  "), re.split(r"\s{2,}", line.strip())[0].split()
        if not indented:
            folder = names[0]
        for name in names:
            place = readme.ROOT / (f"{folder}{name}" if indented else name)
            assert list(place.parent.glob(place.name)), f"{place} is in the README's tree and not on disk"


def test_the_tree_names_every_room():
    tree = TEXT.partition("## What is where\n\n```\n")[2].partition("```")[0]
    rooms = [p.name for p in (readme.ROOT / "studykit").iterdir() if (p.is_dir() or p.suffix == ".py")]
    quiet = {"__init__.py", "__pycache__", "errors.py", "discovery.py", "caching.py", "processes.py", "readme.py"}

    missing = [room for room in rooms if room not in quiet and room not in tree]

    assert not missing


def test_the_loss_of_the_readme_is_a_loss():
    code = re.search(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert code is not None
    names: dict = {}
    exec(code[1], names)
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.125, 0.875]])
    x = LossInputs(q.log(), p.log(), torch.tensor([0]))

    assert names["hellinger"](x).item() == pytest.approx(1 - 0.0625**0.5 - 0.4375**0.5)
    assert names["hellinger"](LossInputs(p.log(), p.log(), torch.tensor([0]))).item() == pytest.approx(0, abs=1e-6)
