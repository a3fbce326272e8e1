"""Where examples come from, one source per file.

A source is a function `name(split, *, option=default) -> list[Example]` in a file of the same name:

    pool = load_examples("lexicon", split="train", options={"tasks": ["pronounce"]})
    content_hash(pool)                       # identifies the data by content, not by the name of a file

The options are keyword parameters; their annotations say which values are valid. Several splits are joined with `+`
("train+outside"). A source for which models write answers is a class with these options, whose objects are called with
a split and a `Writer`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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
        choices: the answers that a scorer may choose from; none where the example names none.
    """

    id: str
    messages: tuple[dict[str, Any], ...]
    source: str
    annotator: str
    split: str
    choices: tuple[str, ...] = ()

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


@dataclass(frozen=True)
class Writing:
    """How a model writes answers.

    Attributes:
        temperature: of sampling; 0 takes the likeliest token at every position.
        top_p: the smallest set of likeliest tokens with this probability is sampled from.
        seed: of the random numbers.
        max_new_tokens: maximum number of tokens of an answer.
    """

    temperature: float
    top_p: float
    seed: int
    max_new_tokens: int


@dataclass(frozen=True)
class Written:
    """An answer that a model has written.

    Attributes:
        text: without the token that ends it.
        ended: whether it ended by itself.
        tokens: number of its tokens, by the model that wrote it.
    """

    text: str
    ended: bool
    tokens: int


class Writer(Protocol):
    """What a source that writes answers is given: other sources, models, and who takes the report."""

    def prompts(self, teacher: str, data: Mapping[str, Any]) -> list[Example]:
        """Return the examples of data; where tokens are counted, they are the teacher's."""
        ...

    def write(self, teacher: str, conversations: Sequence[Example], writing: Writing) -> list[Written]:
        """Return a model's answers in the place of the last ones of conversations."""
        ...

    def mean_logp(self, teacher: str, examples: Sequence[Example]) -> Sequence[float]:
        """Return the mean log-probability of each last answer's tokens under a model, nats."""
        ...

    def report(
        self, teacher: str, writing: Writing, answered: Sequence[Example], dropped_by: Sequence[str | None]
    ) -> None:
        """Take which answers were dropped by which filter; None where an answer is kept."""
        ...


def load_examples(source: str, split: str, options: dict[str, Any], writer: Writer | None = None) -> list[Example]:
    """Return the examples of a source's split (or of several, joined with `+`).

    Args:
        source: by name.
        split: of the source.
        options: of the source.
        writer: writes answers for sources that need it.

    Raises:
        InputError: an unknown source or option, an unusable file, a split without examples.
        ValueError: no writer for a source that needs one.
    """
    read = SOURCES.member(source)
    check_options("source", source, read, options)
    if not isinstance(read, type):
        examples = [example for part in split.split("+") for example in read(part, **options)]
    elif writer is None:
        raise ValueError(f"source {source!r} writes answers, and no writer was given: read it through `Inputs.pool`")
    else:
        examples = [example for part in split.split("+") for example in read(**options)(part, writer)]
    if not examples:
        raise InputError(f"source {source!r} has no examples in split {split!r} with options {options}")
    return examples


def content_hash(examples: Sequence[Example]) -> str:
    """Return the sha256 of the examples in order: identity, texts, source, annotator and choices."""
    digest = hashlib.sha256()
    for e in examples:
        parts = [e.id, e.messages, e.source, e.annotator, *([e.choices] if e.choices else [])]
        digest.update(json.dumps(parts, ensure_ascii=False).encode())
    return digest.hexdigest()
