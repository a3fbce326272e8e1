"""Measure the structure of the package against its bounds: `python -m tools.structure` (exit code 1 if one is broken).

    python -m tools.structure                   # studykit/, with the layers of tests/test_layers.py
    python -m tools.structure --places          # also every place of a measure that is within its bound

A room is a module or package directly below the package; a loose file is a room that is one module. An arrow goes from
a room to each room that it imports, anywhere in a file. An arrow is up where the imported room comes later in the list
of layers, and a circle is a set of rooms that all import each other, directly or through others.

The lines of a function are those from `def` to its end without its docstring; its parameters are all but `self` and
`cls`. Functions in `cli.py` are exempt, since every parameter there is an option of the command line.
"""

import argparse
import ast
import io
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tools.private_names import find_private_names
from tools.shared_lines import find_shared_lines

ROOT = Path(__file__).parents[1]

MAX_ROOMS, MAX_LOOSE_FILES = 28, 13
MAX_METHOD_LINES = 40
MAX_FUNCTION_LINES, MAX_PARAMETERS = 40, 8
MAX_RESULTS_ROOTS = 5
MAX_FILE_LINES = 350
MIN_SHARED_LINES, MAX_SHARED_PAIRS = 10, 0


@dataclass(frozen=True)
class Source:
    """One file of the package.

    Attributes:
        path: relative to the folder that holds the package.
        text: its content.
    """

    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text)

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the file."""
        return self.text.splitlines()

    @cached_property
    def comments(self) -> set[int]:
        """Numbers of the lines that have a comment."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return {token.start[0] for token in tokens if token.type == tokenize.COMMENT}

    @property
    def room(self) -> str | None:
        """The room that the file belongs to; None for the package's own `__init__` and `__main__`."""
        name = self.path.parts[1].removesuffix(".py")
        return None if name.startswith("__") else name


@dataclass(frozen=True)
class Measure:
    """One measured number and its bound.

    Attributes:
        name: of what is counted.
        value: the number.
        bound: the largest admissible number; None where the number is only shown.
        places: what was counted, one line each.
    """

    name: str
    value: int
    bound: int | None
    places: list[str]

    @property
    def is_broken(self) -> bool:
        """Whether the number is above its bound."""
        return self.bound is not None and self.value > self.bound


def read_sources(package: Path) -> list[Source]:
    """Return the Python files of a package."""
    files = sorted(package.rglob("*.py"))
    return [Source(file.relative_to(package.parent), file.read_text(encoding="utf-8")) for file in files]


def read_layers(file: Path) -> list[str]:
    """Return the names in the tuple `LAYERS` of a file, the lowest layer first, without running it."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "LAYERS" for t in node.targets):
            return list(ast.literal_eval(node.value))
    raise ValueError(f"{file} has no LAYERS")


def measure(sources: Sequence[Source], layers: Sequence[str]) -> list[Measure]:
    """Return all measures of a package.

    Args:
        sources: its files.
        layers: its rooms, the lowest first.
    """
    arrows = find_arrows(sources)
    return [
        *_measure_rooms(sources),
        *_measure_arrows(arrows, layers),
        *_measure_functions(sources),
        *_measure_private_names(sources),
        *_measure_files(sources),
        _measure_shared_lines(sources),
    ]


def _measure_rooms(sources: Sequence[Source]) -> list[Measure]:
    rooms = sorted({source.room for source in sources if source.room})
    loose = sorted(source.room for source in sources if source.room and len(source.path.parts) == 2)
    return [
        Measure("rooms", len(rooms), MAX_ROOMS, [", ".join(rooms)]),
        Measure("loose files", len(loose), MAX_LOOSE_FILES, [", ".join(loose)]),
    ]


def find_arrows(sources: Sequence[Source]) -> dict[tuple[str, str], str]:
    """Return the arrows between rooms, each with the place of one import."""
    package = sources[0].path.parts[0]
    rooms = {source.room for source in sources}
    arrows: dict[tuple[str, str], str] = {}
    for source in sources:
        for module, line in _imported_modules(source.tree):
            parts = module.split(".")
            target = parts[1] if parts[0] == package and len(parts) > 1 else None
            if source.room and target in rooms and target not in (None, source.room):
                arrows.setdefault((source.room, target), f"{source.path}:{line}")
    return arrows


def _imported_modules(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the dotted names that a file imports, also `package.name` of `from package import name`, and the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def _measure_arrows(arrows: dict[tuple[str, str], str], layers: Sequence[str]) -> list[Measure]:
    floor = {room: number for number, room in enumerate(layers)}
    up = [f"{a} -> {b} at {place}" for (a, b), place in arrows.items() if floor.get(b, -1) >= floor.get(a, len(floor))]
    circles = find_circles(arrows)
    return [
        Measure("arrows between rooms", len(arrows), None, [f"{a} -> {b}" for a, b in sorted(arrows)]),
        Measure("arrows up", len(up), 0, up),
        Measure("circles of rooms", len(circles), 0, [", ".join(circle) for circle in circles]),
    ]


def find_circles(arrows: dict[tuple[str, str], str]) -> list[list[str]]:
    """Return the sets of rooms that reach each other.

    >>> find_circles({("a", "b"): "", ("b", "c"): "", ("c", "a"): "", ("c", "d"): ""})
    [['a', 'b', 'c']]
    """
    rooms = sorted({room for arrow in arrows for room in arrow})
    reached = {room: {b for a, b in arrows if a == room} for room in rooms}
    for through in rooms:
        for room in rooms:
            if through in reached[room]:
                reached[room] |= reached[through]
    circles = {tuple(b for b in rooms if b in reached[a] and a in reached[b]) for a in rooms}
    return [list(circle) for circle in sorted(circles) if circle]


@dataclass(frozen=True)
class Function:
    """One function or method.

    Attributes:
        place: file, line and name.
        lines: from `def` to the end, without the docstring.
        code_lines: the same without blank lines.
        parameters: all but `self` and `cls`.
    """

    place: str
    lines: int
    code_lines: int
    parameters: list[str]


def find_functions(source: Source) -> list[Function]:
    """Return all functions of a file, also those inside classes and other functions."""
    nodes = [n for n in ast.walk(source.tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [_describe_function(source, node) for node in nodes]


def _describe_function(source: Source, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Function:
    numbers = set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    if ast.get_docstring(node, clean=False) is not None:
        numbers -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    named = node.args
    optional = [argument for argument in (named.vararg, named.kwarg) if argument]
    parameters = [a.arg for a in (*named.posonlyargs, *named.args, *named.kwonlyargs, *optional)]
    return Function(
        place=f"{source.path}:{node.lineno} {node.name}",
        lines=len(numbers),
        code_lines=sum(bool(source.lines[number - 1].strip()) for number in numbers),
        parameters=[name for name in parameters if name not in ("self", "cls")],
    )


def _measure_functions(sources: Sequence[Source]) -> list[Measure]:
    functions = [f for source in sources for f in find_functions(source)]
    held = [f for source in sources if source.path.name != "cli.py" for f in find_functions(source)]
    long = [f for f in held if f.lines > MAX_FUNCTION_LINES]
    wide = [f for f in held if len(f.parameters) > MAX_PARAMETERS]
    rooted = [f for f in functions if "results_root" in f.parameters]
    return [
        Measure(
            f"functions over {MAX_FUNCTION_LINES} lines",
            len(long),
            0,
            [f"{f.place}: {f.lines} lines, {f.code_lines} without blank ones" for f in long],
        ),
        Measure(
            f"functions over {MAX_PARAMETERS} parameters",
            len(wide),
            0,
            [f"{f.place}: {len(f.parameters)} parameters" for f in wide],
        ),
        Measure("signatures with results_root", len(rooted), MAX_RESULTS_ROOTS, [f.place for f in rooted]),
    ]


def _measure_private_names(sources: Sequence[Source]) -> list[Measure]:
    found = find_private_names([(source.path, source.tree) for source in sources])
    comments = {source.path: source.comments for source in sources}
    training = [name for name in found if name.path.parts[1] == "training"]
    unexplained = [
        name for name in found if name not in training and not {name.line, name.line - 1} & comments[name.path]
    ]
    return [
        Measure("private names of other libraries in training/", len(training), 0, list(map(str, training))),
        Measure("... elsewhere, without a comment", len(unexplained), 0, list(map(str, unexplained))),
    ]


def _measure_files(sources: Sequence[Source]) -> list[Measure]:
    by_length = sorted(sources, key=lambda source: -len(source.lines))
    methods = [s for s in by_length if s.room == "methods" and s.path.name != "__init__.py"]
    longest = max((len(source.lines) for source in methods), default=0)
    return [
        Measure("lines of methods/", sum(len(s.lines) for s in by_length if s.room == "methods"), None, []),
        Measure("lines of the longest method", longest, MAX_METHOD_LINES, _show_lengths(methods[:5])),
        Measure("lines of the longest file", len(by_length[0].lines), MAX_FILE_LINES, _show_lengths(by_length[:5])),
    ]


def _show_lengths(sources: Sequence[Source]) -> list[str]:
    return [f"{source.path}: {len(source.lines)} lines" for source in sources]


def _measure_shared_lines(sources: Sequence[Source]) -> Measure:
    found = find_shared_lines([(source.path, source.lines) for source in sources], MIN_SHARED_LINES)
    return Measure(f"pairs that share {MIN_SHARED_LINES} lines", len(found), MAX_SHARED_PAIRS, list(map(str, found)))


def format_table(measures: Sequence[Measure], all_places: bool = False) -> str:
    """Return the table, with the places of every broken measure, or of every measure."""
    lines = []
    for one in measures:
        bound = "" if one.bound is None else f"at most {one.bound}"
        lines.append(f"{one.name:50} {one.value:>5}  {bound:12} {'BROKEN' if one.is_broken else ''}".rstrip())
        lines += [f"    {place}" for place in one.places if one.is_broken or all_places]
    return "\n".join(lines)


def main() -> int:
    """Print the table; return 1 where a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", nargs="?", type=Path, default=ROOT / "studykit")
    parser.add_argument("--layers", type=Path, default=ROOT / "tests" / "test_layers.py", help="file with LAYERS")
    parser.add_argument("--places", action="store_true", help="print the places of every measure")
    arguments = parser.parse_args()
    measures = measure(read_sources(arguments.package), read_layers(arguments.layers))
    print(format_table(measures, arguments.places))
    return int(any(one.is_broken for one in measures))


if __name__ == "__main__":
    sys.exit(main())
