"""Notebooks as parameterized studies: find them, read and check their parameters, build their arms. Torch-free.

A notebook's parameters are the plain assignments in its one cell tagged `parameters`: flat JSON values. Its cell tagged
`arms` builds the specifications from them, so that a batch can check every cell of a grid before anything starts.
"""

import ast
import hashlib
import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from studykit.errors import InputError, shown, unknown
from studykit.results.record import Hypothesis


def find_notebook(folder: Path, name: str) -> Path:
    """Return the notebook of that name (with or without `.ipynb`).

    Raises:
        InputError: no such notebook.
    """
    known = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    stem = name.removesuffix(".ipynb")
    if stem not in known:
        raise unknown("notebook", name, known)
    return known[stem]


def tagged_source(path: Path, tag: str) -> str:
    """Return the code of the one cell with a tag.

    Raises:
        InputError: no such cell, or several: without it a batch would silently run the defaults.
    """
    sources = [source for source, tags in _code_cells(path) if tag in tags]
    if len(sources) != 1:
        raise InputError(f"{path.name} needs exactly one code cell tagged {tag!r}, it has {len(sources)}")
    return sources[0]


def defaults(path: Path) -> dict[str, Any]:
    """Return the notebook's parameters and their default values.

    Raises:
        InputError: an assignment that is not a plain JSON value.
    """
    try:
        statements = ast.parse(tagged_source(path, "parameters")).body
    except SyntaxError as error:
        raise InputError(f"{path.name}: its parameters cell is not Python (line {error.lineno})") from None
    return dict(_assignment(path, statement) for statement in statements)


def _assignment(path: Path, statement: ast.stmt) -> tuple[str, Any]:
    """Return name and value of a statement such as `seed = 0`."""
    where = f"line {statement.lineno}"
    if not (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)):
        raise InputError(f"{path.name}: its parameters cell may hold plain assignments only ({where})")
    name = statement.targets[0].id
    try:
        value = ast.literal_eval(statement.value)
    except ValueError:
        value = ...
    if not _is_plain(value):
        raise InputError(f"{path.name}: parameter {name!r} on {where} is not a plain JSON value")
    return name, value


def check_parameters(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return the notebook's parameters: the given values, and the defaults of all others.

    Raises:
        InputError: an unknown name, or a value of another type than the default's.
    """
    values = defaults(path)
    for name, value in given.items():
        if name not in values:
            raise InputError(f"notebook {path.stem}: {unknown('parameter', name, values)}")
        if not _fits(value, values[name]):
            raise InputError(
                f"notebook {path.stem}: parameter {name!r} is {values[name]!r} by default, received "
                f"{shown(value)} ({type(value).__name__})"
            )
    return values | given


def code_hash(path: Path) -> str:
    """Return the sha256 of the notebook's code cells: prose may change without making a cell run anew."""
    code = [source for source, _ in _code_cells(path)]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def hypothesis_of(path: Path) -> Hypothesis | None:
    """Return the hash of the text under the heading Hypothesis, and the time; None where a notebook has none."""
    prose = "\n".join(source for source, _ in _cells(path, "markdown"))
    found = re.search(r"^#+ Hypothesis\s*$(.*?)(?=^#+ |\Z)", prose, flags=re.MULTILINE | re.DOTALL)
    text = found[1].strip() if found else ""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Hypothesis(sha256=hashlib.sha256(text.encode()).hexdigest(), written=now) if text else None


def arms_of(path: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Run the notebook's `parameters` and `arms` cells alone, and return the specifications they build."""
    names: dict[str, Any] = {}
    exec(compile(tagged_source(path, "parameters"), path.name, "exec"), names)
    names.update(parameters)
    exec(compile(tagged_source(path, "arms"), path.name, "exec"), names)
    return names["arms"]


def _fits(value: Any, default: Any) -> bool:
    if not _is_plain(value):
        return False
    if default is None or value is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))


def _is_plain(value: Any) -> bool:
    """Whether a value comes back from JSON as it went in: no tuples, dates or infinities, at any depth."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))


def _code_cells(path: Path) -> list[tuple[str, list[str]]]:
    """Return source and tags of each code cell, in order."""
    return _cells(path, "code")


def _cells(path: Path, kind: str) -> list[tuple[str, list[str]]]:
    """Return source and tags of each cell of a kind, code or markdown, in order.

    Read as the JSON that it is: nbformat would bring the check of much that is not used here, and take a second to
    import.

    Raises:
        InputError: not a notebook of format 4, the only one since 2015.
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if notebook["nbformat"] != 4:
            raise ValueError(f"its format is {notebook['nbformat']}, not 4: save it once in Jupyter")
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == kind]
        return [("".join(cell["source"]), list(cell["metadata"].get("tags", []))) for cell in cells]
    except KeyError as error:
        raise InputError(f"{path} is not a readable notebook: it lacks {error}") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is not a readable notebook: {reason[:120]}") from None
