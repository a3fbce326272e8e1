"""Find uses of private names of other libraries: names with one leading underscore that the package does not define.

What counts, for a name such as `_name`:

- `from library import _name`, `import library._name`, and imports from a private module of a library;
- `library._name` where `library` was imported and is not the package's own;
- `super()._name`, or `self._name` of a name that the package defines nowhere, in a class with a base of a library;
- `anything._name`, of a name that the package defines nowhere, and the string `"_name"` in a function that
  uses `getattr`, `setattr`, `hasattr`, `delattr`, `vars` or `__dict__`;
- a method `_name` in a class with a base of a library, where nothing in the package uses it: the library calls it.

The underscored methods of named tuples are their public interface and do not count. A private name of a library that
the package happens to define too is not found on an object of unknown type.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_NAMED_TUPLE = {"_replace", "_asdict", "_fields", "_make", "_field_defaults"}


@dataclass(frozen=True)
class PrivateName:
    """One use of a private name."""

    path: Path
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.name}"


def find_private_names(files: Sequence[tuple[Path, ast.Module]]) -> list[PrivateName]:
    """Return all uses in the files of one package.

    Args:
        files: path (below the package's name) and syntax tree of each.
    """
    package = files[0][0].parts[0]
    defined = {name for _, tree in files for name in _defined_names(tree)}
    used = {node.attr for _, tree in files for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found = {PrivateName(path, *use) for path, tree in files for use in _find_uses(tree, package, defined, used)}
    return sorted(found, key=lambda use: (str(use.path), use.line, use.name))


def is_private(name: str) -> bool:
    """Return whether a name is private to its library.

    >>> is_private("_name"), is_private("__name__"), is_private("_"), is_private("_replace")
    (True, False, False, False)
    """
    return name.startswith("_") and name.strip("_") != "" and not name.endswith("__") and name not in _NAMED_TUPLE


def _defined_names(tree: ast.Module) -> Iterator[str]:
    """Yield every name that a file defines: functions, classes, variables, fields, and attributes of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _root(node) in ("self", "cls"):
            yield node.attr


def _root(node: ast.expr) -> str | None:
    """Return the name that an attribute chain starts with, or `super()`.

    >>> _root(ast.parse("a.b._c", mode="eval").body), _root(ast.parse("super()._c", mode="eval").body)
    ('a', 'super()')
    """
    while isinstance(node, ast.Attribute):
        node = node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super":
        return "super()"
    return node.id if isinstance(node, ast.Name) else None


def _find_uses(tree: ast.Module, package: str, defined: set[str], used: set[str]) -> Iterator[tuple[int, str]]:
    libraries = _imported_libraries(tree, package)
    derived = {id(node) for c in _derived_classes(tree, libraries) for node in ast.walk(c)}
    reflecting = {id(node) for function in _reflecting_functions(tree) for node in ast.walk(function)}
    reflecting -= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((node.lineno, name) for name in _private_imports(node, package))
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            of_base = _root(node) == "super()" and id(node) in derived
            if _root(node) in libraries or of_base or node.attr not in defined:
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) in reflecting:
            if node.value.isidentifier() and is_private(node.value) and node.value not in defined:
                yield node.lineno, repr(node.value)
        elif isinstance(node, ast.FunctionDef) and id(node) in derived and _is_hook(node.name, used):
            yield node.lineno, f"def {node.name}"


def _is_hook(name: str, used: set[str]) -> bool:
    return is_private(name) and name not in used


def _imported_libraries(tree: ast.Module, package: str) -> set[str]:
    """Return the names in a file that stand for things of other libraries."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names if alias.name != package}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] != package:
            names |= {alias.asname or alias.name for alias in node.names}
    return names - {package}


def _derived_classes(tree: ast.Module, libraries: set[str]) -> list[ast.ClassDef]:
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return [c for c in classes if any(_root(base) in libraries for base in c.bases)]


def _reflecting_functions(tree: ast.Module) -> list[ast.FunctionDef]:
    """Return the functions that reach attributes by strings."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [f for f in functions if any(_reaches_by_string(node) for node in ast.walk(f))]


def _reaches_by_string(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in ("getattr", "setattr", "hasattr", "delattr", "vars")
    return isinstance(node, ast.Attribute) and node.attr == "__dict__"


def _private_imports(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    names = [f"{prefix}{alias.name}" for alias in node.names]
    return [n for n in names if n.partition(".")[0] != package and any(map(is_private, n.split(".")))]
