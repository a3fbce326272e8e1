"""Every bound of the structure is broken once by a small package, and only that one."""

import re
from pathlib import Path

import pytest

from tools.structure import (
    MAX_FILE_LINES,
    MAX_LOOSE_FILES,
    MAX_METHOD_LINES,
    MAX_RESULTS_ROOTS,
    MAX_ROOMS,
    ROOT,
    Source,
    find_functions,
    format_table,
    measure,
    read_layers,
    read_sources,
)

LAYERS = ["low", "high", "training", "methods", "cli"]


def numbered_lines(count: int, name: str = "x") -> str:
    return "".join(f"{name}{number} = {number}\n" for number in range(count))


def function(lines: int = 2, parameters: str = "", name: str = "f") -> str:
    """Return a function of `lines` lines, and a docstring that does not count."""
    body = "".join(f"    {name} = {number}\n" for number in range(lines - 1))
    return f'def {name}({parameters}):\n    """Return nothing.\n\n    At all.\n    """\n{body}'


NINE = ", ".join(f"p{number}" for number in range(9))
RUN = numbered_lines(10, "same")
DERIVED = "from library import Base\n\nclass Mine(Base):\n    def run(self):\n        {}\n"

GOOD = {
    "__init__.py": "",
    "low.py": function(40, ", ".join(f"p{number}" for number in range(8))),
    "high.py": "import pkg.low\nfrom pkg import low\nfrom collections import namedtuple\nrow = low.row._replace(a=1)\n",
    "training/a.py": "from pkg.high import row\nclass A:\n    def _step(self): ...\n    def run(self, x): x._step()\n",
    "methods/kd.py": numbered_lines(MAX_METHOD_LINES, "kd"),
    "methods/sft.py": numbered_lines(MAX_METHOD_LINES, "sft"),
    "cli.py": function(60, NINE, "g"),
}

BREAKING = {
    "rooms": {f"room{number}/__init__.py": "" for number in range(MAX_ROOMS)},
    "loose files": {f"room{number}.py": "" for number in range(MAX_LOOSE_FILES)},
    "arrows up": {"low.py": "def late():\n    from pkg import high\n", "high.py": ""},
    "circles of rooms": {"left.py": "import pkg.right\n", "right.py": "from pkg.left import name\n"},
    "functions over 40 lines": {"low.py": function(41)},
    "functions over 8 parameters": {
        "low.py": "class C:\n    def f(self, a, /, b, c, d, *rest, e, g, h, **more): ...\n"
    },
    "signatures with results_root": {
        "low.py": "".join(function(2, "results_root", f"f{number}") for number in range(MAX_RESULTS_ROOTS + 1))
    },
    "private names of other libraries in training/": {
        "training/loop.py": DERIVED.format("self._n_gpu = super()._x  # why")
    },
    "... elsewhere, without a comment": {"high.py": "# why\n\nimport torch\nx = torch._dynamo\n"},
    "lines of the longest method": {"methods/kd.py": numbered_lines(MAX_METHOD_LINES + 1, "kd")},
    "lines of the longest file": {"low.py": numbered_lines(MAX_FILE_LINES + 1)},
    "pairs that share 10 lines": {"low.py": RUN, "high.py": f"if True:\n{re.sub('^', '    ', RUN, flags=re.M)[:-4]}"},
}


@pytest.fixture
def measured(tmp_path):
    """Measure a package of these files."""

    def make(files, layers=LAYERS):
        for name, text in files.items():
            file = tmp_path / "pkg" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        return measure(read_sources(tmp_path / "pkg"), layers)

    return make


def broken(measures) -> set[str]:
    return {one.name for one in measures if one.is_broken}


def test_a_package_within_its_bounds_breaks_none(measured):
    measures = measured(GOOD)
    assert broken(measures) == set()
    assert {one.name for one in measures if one.bound is not None} == set(BREAKING)
    numbers = {one.name: one.value for one in measures}
    assert (numbers["rooms"], numbers["loose files"], numbers["arrows between rooms"]) == (5, 3, 2)
    assert numbers["lines of the longest method"] == MAX_METHOD_LINES


@pytest.mark.parametrize("name", BREAKING)
def test_each_bound_can_be_broken_alone_and_its_places_are_printed(name, measured):
    measures = measured(GOOD | BREAKING[name])
    assert broken(measures) == {name}
    (line,) = [line for line in format_table(measures).splitlines() if line.endswith("BROKEN")]
    assert line.startswith(name)
    (places,) = [one.places for one in measures if one.name == name]
    assert places
    assert all(f"\n    {place}" in format_table(measures) for place in places)


def test_the_lines_of_a_function_are_counted_without_its_docstring():
    body = ['"""One.', "", "Two.", '"""', "x = 1", "", "return x"]
    text = "\n".join(["class C:", "    @property", "    def f(self):", *(f"        {line}" for line in body)])
    (found,) = find_functions(Source(Path("pkg/a.py"), text))
    assert (found.lines, found.code_lines, found.parameters) == (4, 3, [])


def test_layers_are_read_without_running_the_file(tmp_path):
    file = tmp_path / "layers.py"
    file.write_text("raise SystemExit\nLAYERS = (\n    'a',  # a remark\n    'b',\n)\n", encoding="utf-8")
    assert read_layers(file) == ["a", "b"]


def test_the_package_is_within_its_bounds():
    measures = measure(read_sources(ROOT / "studykit"), read_layers(ROOT / "tests" / "test_layers.py"))
    assert broken(measures) == set(), format_table(measures)
