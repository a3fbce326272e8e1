"""The sections of docs/provenance.md: for every method the paper's formula, the released code, ours, and what differs.

All of it is in docstrings. In the files of a method, its loss, rollout and sampler, paragraphs with one of these labels
belong to the page; there may be several of each:

    Formula: what the paper defines.
    Code: where the authors' release was read, as OWNER/REPO@COMMIT:PATH, or that it was not seen.
    Agreement: the tests that compare numbers, as tests/FILE.py::TEST, with what they are compared.
    Differs: where paper, release and this kit do not agree.

`python -m tools.pages docs/provenance.md` writes the page. A method is listed with what is missing.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from studykit.discovery import Room
from studykit.losses import LOSSES
from studykit.methods import METHODS
from studykit.rollouts import ROLLOUTS
from studykit.samplers import SAMPLERS

LABELS = {"Formula": "Formula", "Code": "Released code", "Agreement": "Agreement", "Differs": "Differences"}
"""Title on the page by label in docstrings."""

RELEASE = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{12}):([\w./-]*\w)")
TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")


@dataclass(frozen=True)
class Part:
    """One of the files that a method is made of.

    Attributes:
        room: that it belongs to.
        name: of the file, without the ending.
    """

    room: Room
    name: str

    @property
    def file(self) -> str:
        """The file, relative to the repository."""
        return f"{self.room.package.replace('.', '/')}/{self.name}.py"

    def paragraphs(self, label: str) -> list[str]:
        """Return the paragraphs of its docstrings with a label."""
        return self.room.paragraphs(self.name, label)

    def __str__(self) -> str:
        return f"{self.room.kind} `{self.name}`"


def parts_of(method: str) -> list[Part]:
    """Return the method's own file and those of its loss, rollout and sampler."""
    recipe = METHODS.member(method)
    parts = [Part(METHODS, method), Part(LOSSES, recipe.loss), Part(ROLLOUTS, recipe.rollout)]
    return parts + ([Part(SAMPLERS, recipe.select)] if recipe.select else [])


def find_missing(method: str) -> list[str]:
    """Return the labels that none of a method's files has."""
    return [label for label in LABELS if not any(part.paragraphs(label) for part in parts_of(method))]


def format_page(methods: Iterable[str]) -> str:
    """Return the generated block of the page: one section per method."""
    return "\n\n".join(map(format_section, methods))


def format_section(method: str) -> str:
    """Return what is known about one method, as Markdown."""
    own, *others = parts_of(method)
    files = [f"[{part}](../{part.file})" for part in (own, *others)]
    lines = [f"### {method}", "", METHODS.describe(method), ""]
    lines += [f"- **Paper**: {METHODS.source(method) or 'none named'}", f"- **Here**: {', '.join(files)}"]
    lines += [line for label, title in LABELS.items() for line in _format_label([own, *others], label, title)]
    missing = find_missing(method)
    return "\n".join([*lines, *([f"- **Missing**: {', '.join(missing)}"] if missing else [])])


def _format_label(parts: Iterable[Part], label: str, title: str) -> Iterator[str]:
    found = [(part, _with_links(text)) for part in parts for text in part.paragraphs(label)]
    if len(found) == 1:
        yield f"- **{title}**: {found[0][1]}"
    elif found:
        yield f"- **{title}**:"
        yield from (f"  - *{part.room.kind}*: {text}" for part, text in found)


def _with_links(text: str) -> str:
    """Return a paragraph whose files of releases and tests are links."""
    text = RELEASE.sub(r"[\1@\2 \3](https://github.com/\1/blob/\2/\3)", text)
    return TEST.sub(r"[`\2`](../\1)", text)


def sections(page: str) -> dict[str, str]:
    """Return the sections of a generated block by method."""
    _, *found = re.split(r"^### (\w+)$", page, flags=re.MULTILINE)
    return {name: text.strip() for name, text in zip(found[::2], found[1::2], strict=True)}
