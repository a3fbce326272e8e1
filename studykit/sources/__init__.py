"""Where examples come from, one source per file.

A source is a function `name(split, *, option=default) -> list[Example]` in a file of the same name:

    pool = load_examples("lexicon", split="train", options={"tasks": ["pronounce"]})
    content_hash(pool)                       # identifies the data by content, not by the name of a file

The options are keyword parameters; their annotations say which values are valid. Several splits are joined with `+`
("train+outside").
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from studykit.discovery import Room, check_options
from studykit.errors import InputError

SOURCES = Room("studykit.sources", kind="source")

PLAIN_TEXT = "text"
"""The role of the single message of a raw text: no chat template is applied, every token is supervised."""


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation, or one raw text.

    Attributes:
        id: unique within its source, and the same at every load.
        messages: `{"role": ..., "content": ...}` in order, the last one from the assistant; or a single message
            with role `"text"`. An assistant's message with `"weight": 0` is context and not trained on.
        source: the stratum of a stratified budget, which draws from all sources in proportion.
        annotator: `"human"`, or the name of the model that wrote the answer.
        split: the split it belongs to.
    """

    id: str
    messages: tuple[dict[str, Any], ...]
    source: str
    annotator: str
    split: str

    @property
    def is_text(self) -> bool:
        """Whether this is a raw text instead of a conversation."""
        return self.messages[0]["role"] == PLAIN_TEXT

    @property
    def answer(self) -> str:
        """The content of the last message: the reference of the scorers."""
        return self.messages[-1]["content"]

    @property
    def plain_text(self) -> str:
        """All texts of the example without regard to case and whitespace, to find the same ones."""
        return " ".join("\n".join(message["content"] for message in self.messages).casefold().split())


def load_examples(source: str, split: str, options: dict[str, Any]) -> list[Example]:
    """Return the examples of a source's split (or of several, joined with `+`).

    Raises:
        InputError: an unknown source or option, an unusable file, a split without examples.
    """
    read = SOURCES.member(source)
    check_options("source", source, read, options)
    examples = [example for part in split.split("+") for example in read(part, **options)]
    if not examples:
        raise InputError(f"source {source!r} has no examples in split {split!r} with options {options}")
    return examples


def content_hash(examples: Sequence[Example]) -> str:
    """Return the sha256 of the examples in order: identity, texts, source and annotator."""
    digest = hashlib.sha256()
    for e in examples:
        digest.update(json.dumps([e.id, e.messages, e.source, e.annotator], ensure_ascii=False).encode())
    return digest.hexdigest()
