"""No method's section of docs/provenance.md lacks a part, and the tests that are named there exist."""

import ast
import sys

import pytest

from studykit.discovery import Room
from studykit.methods import METHODS
from studykit.study.released import released
from tools import provenance
from tools.pages import ROOT

NAMES = METHODS.names()
KIT = [name for name in NAMES if f"method.{name}" in released()]
PARTS = {str(part): part for name in NAMES for part in provenance.parts_of(name)}


def functions_of(file: str) -> set[str]:
    """Return the names of a test file's functions; none of a file that does not exist."""
    path = ROOT / file
    tree = ast.parse(path.read_text(encoding="utf-8") if path.is_file() else "")
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", KIT)
def test_nothing_is_missing_of_the_kits_own_methods(name):
    labels = ", ".join(f"'{label}:'" for label in provenance.find_missing(name))
    assert not labels, f"write paragraphs {labels} in the docstring of studykit/methods/{name}.py or of its parts"


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_the_tests_that_are_named_exist(part):
    named = [test for label in provenance.LABELS for text in part.paragraphs(label) for test in find_tests(text)]
    assert [f"{file}::{test}" for file, test in named if test not in functions_of(file)] == []


def find_tests(text: str) -> list[tuple[str, str]]:
    found = provenance.TEST.findall(text)
    assert len(found) == text.count("::"), f"tests are named as tests/FILE.py::TEST, received {text!r}"
    return found


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_an_agreement_names_a_test_and_a_release_its_commit(part):
    assert all(find_tests(text) for text in part.paragraphs("Agreement"))
    for text in part.paragraphs("Code"):
        assert provenance.RELEASE.search(text) or "not seen" in text
    every = [text for label in provenance.LABELS for text in part.paragraphs(label)]
    assert [text for text in every if text.count("@") != len(provenance.RELEASE.findall(text))] == []


@pytest.fixture
def new_method(tmp_path, monkeypatch):
    """Return a function that makes a method the only one of its room, with this docstring."""
    folder = tmp_path / "made_up_methods"
    folder.mkdir()
    (folder / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(provenance, "METHODS", Room("made_up_methods", kind="method"))

    def make(name: str, docstring: str) -> str:
        code = f'from studykit.methods import Recipe\n\n{name} = Recipe(loss="total_variation")\n'
        (folder / f"{name}.py").write_text(f'"""{docstring}"""\n\n{code}', encoding="utf-8")
        return name

    yield make
    for module in [module for module in sys.modules if module.partition(".")[0] == "made_up_methods"]:
        del sys.modules[module]


def test_a_new_method_is_listed_with_what_is_missing(new_method):
    section = provenance.format_section(new_method("bare_one", "Learns."))
    assert section.startswith("### bare_one\n\nLearns.\n\n- **Paper**: none named\n")
    assert section.endswith("- **Missing**: Formula, Code, Agreement, Differs")


def test_paragraphs_become_lines_with_links(new_method):
    paragraphs = [
        "Formula: `p`.",
        "Code: some/one@0123456789ab:a/b.py.",
        "Agreement: tests/tools/test_provenance.py::test_it.",
        "Differs: here.",
        "Differs: and\nthere.",
        "Source: One (2001), A Title.",
    ]
    section = provenance.format_section(new_method("full_one", "\n\n".join(["Learns.", *paragraphs])))
    assert section.partition("- **Formula**")[2].splitlines() == [
        ": `p`.",
        "- **Released code**: [some/one@0123456789ab a/b.py](https://github.com/some/one/blob/0123456789ab/a/b.py).",
        "- **Agreement**: [`test_it`](../tests/tools/test_provenance.py).",
        "- **Differences**:",
        "  - *method*: here.",
        "  - *method*: and there.",
    ]
    assert provenance.sections(section)["full_one"].startswith("Learns.")
