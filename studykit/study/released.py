"""Which source code a specification must name: that of losses, methods, scorers, ... that is not the released one.

    unreleased(LOSSES, "forward_kl")         # None: the code is that of `released.json`
    unreleased(LOSSES, "mine")               # "3f0c9a1b2d4e": the hash becomes part of the run's id

A thing counts with its whole file and with the files of its room that the file imports, without docstrings, comments
and layout. `python -m tools.release` writes `released.json`, whose hashes say: with this code the ids are those of the
release.
"""

import ast
import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from studykit.discovery import Room

FILE = Path(__file__).with_suffix(".json")


def unreleased(room: Room, name: str) -> str | None:
    """Return the hash of a thing's code, 12 hex digits, or None where it is that of the release.

    Raises:
        InputError: no such thing, or one whose file was edited after it was imported.
    """
    room.check_unchanged(name)
    found = code_hash(room, name)
    return None if found == released().get(f"{room.kind}.{name}") else found


def released() -> dict[str, str]:
    """Return the hashes of the released code by kind and name, as "loss.forward_kl"."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def code_hash(room: Room, name: str) -> str:
    """Return 12 hex digits of the hash of a thing's code: its file, and those of its room that it imports.

    Raises:
        InputError: no file of that name; the nearest name is suggested.
    """
    room.check(name)
    plain: dict[str, str] = {}
    waiting = [name]
    while waiting:
        if (module := waiting.pop()) not in plain:
            plain[module], imports = _read((room.folder / f"{module}.py").read_text(encoding="utf-8"))
            waiting += _inside(imports, room)
    content = ", ".join(plain[module] for module in (name, *sorted(set(plain) - {name})))
    return hashlib.sha256(f"[{content}]".encode()).hexdigest()[:12]


@lru_cache(maxsize=512)  # a run asks for the same few files again and again
def _read(source: str) -> tuple[str, tuple[str, ...]]:
    """Return source code as JSON of its syntax tree, and the full names of what it may import."""
    tree = ast.parse(source)
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return json.dumps(_plain(tree)), tuple(names)


def _inside(imports: tuple[str, ...], room: Room) -> list[str]:
    """Return the modules of a room among imported names, without the room itself."""
    inside = {name.removeprefix(f"{room.package}.") for name in imports if name.startswith(f"{room.package}.")}
    return sorted(name for name in inside if (room.folder / f"{name}.py").is_file())


def _plain(node: Any) -> Any:
    """Return a syntax tree as nested lists without docstrings; the same in every version of Python that reads it."""
    if isinstance(node, ast.AST):
        fields = dict(ast.iter_fields(node))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _has_docstring(
            node
        ):
            fields["body"] = fields["body"][1:]
        return [type(node).__name__, {name: _plain(value) for name, value in fields.items() if value not in (None, [])}]
    return [_plain(part) for part in node] if isinstance(node, list) else repr(node)


def _has_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return ast.get_docstring(node, clean=False) is not None
