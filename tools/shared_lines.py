"""Find pairs of places that share many lines in a row, apart from indentation, blank lines and comments.

Imports do not count as lines, since files that use the same things begin alike.
"""

import ast
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SharedLines:
    """Two places with the same lines.

    Attributes:
        first: file and number of the first line.
        second: the same of the other place.
        count: lines that both share.
    """

    first: str
    second: str
    count: int

    def __str__(self) -> str:
        return f"{self.first} and {self.second}: {self.count} lines"


Line = tuple[int, str]
"""Number in the file and text."""


def find_shared_lines(files: Sequence[tuple[Path, Sequence[str]]], minimum: int) -> list[SharedLines]:
    """Return the pairs of places that share at least `minimum` lines, each pair as long as it can be."""
    counted = {path: _keep_counted(lines) for path, lines in files}
    windows: dict[tuple[str, ...], list[tuple[Path, int]]] = defaultdict(list)
    for path, lines in counted.items():
        for start in range(len(lines) - minimum + 1):
            windows[tuple(text for _, text in lines[start : start + minimum])].append((path, start))
    starts = {
        (first, second)
        for places in windows.values()
        for i, first in enumerate(places)
        for second in places[i + 1 :]
        if first[0] != second[0] or second[1] - first[1] >= minimum  # a run does not overlap itself
    }
    found = []
    for first, second in sorted(starts):
        before = (first[0], first[1] - 1), (second[0], second[1] - 1)
        if before not in starts:  # otherwise it is the middle of a longer run
            found.append(_describe(counted, first, second))
    return found


def _keep_counted(lines: Sequence[str]) -> list[Line]:
    """Return the lines that count, without indentation."""
    imports = set()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    stripped = ((number, text.strip()) for number, text in enumerate(lines, 1) if number not in imports)
    return [(number, text) for number, text in stripped if text and not text.startswith("#")]


def _describe(counted: dict[Path, list[Line]], first: tuple[Path, int], second: tuple[Path, int]) -> SharedLines:
    (path, start), (other_path, other_start) = first, second
    lines, other_lines = counted[path][start:], counted[other_path][other_start:]
    pairs = zip(lines, other_lines, strict=False)
    count = next((i for i, (a, b) in enumerate(pairs) if a[1] != b[1]), min(len(lines), len(other_lines)))
    return SharedLines(f"{path}:{lines[0][0]}", f"{other_path}:{other_lines[0][0]}", count)
