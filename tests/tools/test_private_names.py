"""Which underscored names count as private to another library."""

import ast
from pathlib import Path

import pytest

from tools.private_names import find_private_names

FOREIGN = {
    "from library import _name": "library._name",
    "import library._inner": "library._inner",
    "from library._inner import name": "library._inner.name",
    "import library as l\nl.part._name": "l.part._name",
    "def f(x):\n    x._name": "x._name",
    "def f(x):\n    getattr(x, '_name')": "'_name'",
    "def f(x):\n    for name in ('_name',):\n        vars(x).pop(name)": "'_name'",
    "import library\nclass A(library.B):\n    def f(self): self._name": "self._name",
    "import library\nclass A(library.B):\n    def f(self): super()._own": "super()._own",
    "from library import B\nclass A(B):\n    def _hook(self): ...": "def _hook",
    "import library\nlibrary._own": "library._own",
}
OWN = [
    "class A:\n    def _hook(self): ...",
    "class A:\n    def f(self):\n        self._own = 1",
    "from pkg.other import _thing",
    "from library import B\nclass A(B):\n    def _hook(self): ...\n    def f(self): self._hook()",
    "row._replace(a=1)._asdict()",
    "x.__dict__",
    "for _ in range(3): ...",
    "column = '_difference'",
    "def f(x, name):\n    return {f'{name}_difference': vars(x)}",
    "def f(x):\n    x._own",
]


def found_in(text: str) -> list[str]:
    other = "def _own(): ...\ndef _thing(): ...\n"
    files = [(Path("pkg/a.py"), ast.parse(text)), (Path("pkg/other.py"), ast.parse(other))]
    return [use.name for use in find_private_names(files)]


@pytest.mark.parametrize("text", FOREIGN)
def test_a_private_name_of_a_library_is_found(text):
    assert found_in(text) == [FOREIGN[text]]


@pytest.mark.parametrize("text", OWN)
def test_the_packages_own_private_names_do_not_count(text):
    assert found_in(text) == []


def test_uses_are_shown_with_file_and_line():
    (use,) = find_private_names([(Path("pkg/a.py"), ast.parse("import torch\n\ntorch._C"))])
    assert str(use) == f"{Path('pkg/a.py')}:3 torch._C"
