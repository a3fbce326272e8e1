"""Where examples come from, one source per file.

A source is a function `name(split, *, option=default) -> Iterable[Example]` in a file of the same name:

    pool = load_examples("lexicon", split="train", options={"tasks": ["pronounce"]})
    content_hash(pool)                       # identifies the data by content, not by the name of a file

The options are keyword parameters; their annotations say which values are valid. Several splits are joined with `+`
("train+outside"). A source for which models write answers is a class with these options, whose objects are called with
a split and a `Writer`.

A source that reads files may name them in a function `files(split, *, option=default) -> list[Path]` beside it. Its
examples are then indexed on disk under the content of the files, and each content is read once.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xxhash

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

    @property
    def is_answered(self) -> bool:
        """Whether every text that the example trains on has something in it."""
        return all(
            message["content"].strip()
            for message in self.messages
            if self.is_text or (message["role"] == "assistant" and message.get("weight", 1))
        )

    @property
    def turns(self) -> int:
        """Number of messages of user and assistant."""
        return sum(message["role"] not in ("system", "developer") for message in self.messages)

    @property
    def text_key(self) -> bytes:
        """Hash of `plain_text`, 16 bytes."""
        return xxhash.xxh3_128_digest(self.plain_text.encode())

    @property
    def answer_key(self) -> bytes:
        """Hash of `answer`, 16 bytes."""
        return xxhash.xxh3_128_digest(self.answer.encode())


COLUMNS: dict[str, type] = {
    "id": object,
    "source": object,
    "annotator": object,
    "split": object,
    "is_answered": bool,
    "turns": np.int64,
    "text_key": object,
    "answer_key": object,
}
"""Attributes of an example that an index on disk holds apart from its texts, and their types in an array."""


def column(examples: Sequence[Example], name: str) -> np.ndarray:
    """Return one of the `COLUMNS` of examples, [len(examples)]; of examples on disk no text is read.

    >>> column([Example("a", ({"role": "text", "content": "x"},), "s", "human", "train")], "source")
    array(['s'], dtype=object)
    """
    read = getattr(examples, "column", None)
    return read(name) if read else np.array([getattr(e, name) for e in examples], dtype=COLUMNS[name])


def take(examples: Sequence[Example], rows: np.ndarray) -> Sequence[Example]:
    """Return the examples at these positions, in this order; of examples on disk none is read."""
    taken = getattr(examples, "take", None)
    return taken(rows) if taken else [examples[row] for row in rows.tolist()]


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
    return list(read_examples(source, split, options, writer))


def read_examples(source: str, split: str, options: dict[str, Any], writer: Writer | None = None) -> Iterator[Example]:
    """Yield what `load_examples` returns, one after the other as far as the source does so."""
    read = SOURCES.member(source)
    check_options("source", source, read, options)
    if isinstance(read, type) and writer is None:
        raise ValueError(f"source {source!r} writes answers, and no writer was given: read it through `Inputs.pool`")
    is_empty = True
    for part in split.split("+"):
        for example in read(**options)(part, writer) if isinstance(read, type) else read(part, **options):
            is_empty = False
            yield example
    if is_empty:
        raise InputError(f"source {source!r} has no examples in split {split!r} with options {options}")


def files_of(source: str, split: str, options: dict[str, Any]) -> list[Path] | None:
    """Return the files that a source reads for a split (or for several, joined with `+`); None if it names none.

    Raises:
        InputError: an unknown source or option.
    """
    check_options("source", source, SOURCES.member(source), options)
    files = getattr(SOURCES.module(source), "files", None)
    return None if files is None else [file for part in split.split("+") for file in files(part, **options)]


def content_hash(examples: Sequence[Example]) -> str:
    """Return the sha256 of the examples in order: identity, texts, source, annotator and choices.

    Raises:
        InputError: half of a surrogate pair in a text, which has no bytes and no tokens.
    """
    digest = hashlib.sha256()
    for example in examples:
        digest.update(hashed_content(example))
    return digest.hexdigest()


_ENCODER = json.JSONEncoder(ensure_ascii=False)  # made once: `json.dumps` makes one for every example


def hashed_content(example: Example) -> bytes:
    """Return what `content_hash` covers of one example.

    Raises:
        InputError: half of a surrogate pair in a text, which has no bytes and no tokens.
    """
    parts = [example.id, example.messages, example.source, example.annotator]
    try:
        return _ENCODER.encode(parts + ([example.choices] if example.choices else [])).encode()
    except UnicodeEncodeError as error:
        fault = f"half of a surrogate pair ({error.object[error.start]!a}): cut text; repair it"
        raise InputError(f"example {example.id!a:.80}: {fault}") from None
