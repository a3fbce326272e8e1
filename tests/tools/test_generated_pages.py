"""The README is true: its numbers come from results/, its tree exists, its example trains; so are the other pages."""

import re

import pytest
import torch

from studykit.losses import LossInputs
from studykit.methods import METHODS
from tools.pages import PAGES, ROOT
from tools.records_page import schemas

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = sorted((ROOT / "docs").glob("*.md"))
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.file)


@every_page
def test_the_numbers_are_generated_from_the_committed_results(page):
    start, end = page.markers
    block = (ROOT / page.file).read_text(encoding="utf-8").partition(start)[2].partition(end)[0].strip()
    assert block
    assert page.compared(block) == page.compared(page.generated().strip()), (
        "run `make figures`: its sources have changed"
    )


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in DOCS)])
def test_links_and_figures_lead_somewhere(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    for path in re.findall(r"\]\(([^)#]+)\)", text):
        if not path.startswith("http"):
            assert ((ROOT / file).parent / path).exists(), path


def test_everything_in_the_tree_exists():
    tree = TEXT.partition("## What is where\n\n```\n")[2].partition("```")[0]
    folder = ""
    for line in tree.splitlines():
        indented, names = line.startswith("  "), re.split(r"\s{2,}", line.strip())[0].split()
        if not indented:
            folder = names[0]
        for name in names:
            place = ROOT / (f"{folder}{name}" if indented else name)
            assert list(place.parent.glob(place.name)), f"{place} is in the README's tree and not on disk"


def test_the_tree_names_every_room():
    tree = TEXT.partition("## What is where\n\n```\n")[2].partition("```")[0]
    rooms = [p.name for p in (ROOT / "studykit").iterdir() if (p.is_dir() or p.suffix == ".py")]
    quiet = {"__init__.py", "__pycache__"}

    missing = [room for room in rooms if room not in quiet and room not in tree]

    assert not missing


def test_the_tree_names_every_page():
    tree = TEXT.partition("## What is where\n\n```\n")[2].partition("```")[0]
    assert not [file.name for file in ROOT.glob("docs/*.md") if file.name not in tree.split()]


def test_the_table_of_methods_names_methods_each_once():
    table = TEXT.partition("## Which method when\n\n")[2].partition("\n\n")[0]
    named = re.findall(r"^\| `(\w+)` \| \w", table, flags=re.MULTILINE)
    assert {"sft", "kd"} <= set(named) <= set(METHODS.names())
    assert len(set(named)) == len(named)


def test_the_loss_of_the_readme_is_a_loss():
    code = re.search(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert code is not None
    names: dict = {}
    exec(code[1], names)
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.125, 0.875]])
    x = LossInputs(q.log(), p.log(), torch.tensor([0]))

    assert names["hellinger"](x).item() == pytest.approx(1 - 0.0625**0.5 - 0.4375**0.5)
    assert names["hellinger"](LossInputs(p.log(), p.log(), torch.tensor([0]))).item() == pytest.approx(0, abs=1e-6)


def test_the_schemas_of_records_are_those_of_the_types():
    for name, text in schemas().items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, "run `python -m tools.pages docs/records.md`"
        assert name in (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
