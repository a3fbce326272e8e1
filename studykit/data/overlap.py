"""Held-out items among training examples, by content.

    found = HeldOutIndex(items).search(examples)
    found.counts()                        # {"exact": 2, "normalised": 0, "near": 1, "same_prompt": 3}
    found.examples                        # bool [examples]: those that have anything in common with an item

An item is of the first kind that applies:

    exact         an example asks and answers the same, character by character
    normalised    the same but for Unicode form, case, punctuation and whitespace (see `normalise`)
    near          one example has at least two thirds of the item's sequences of five words
    same_prompt   an example has the same normalised prompt and another answer

System messages take no part. In a conversation of several turns, each answer of an example is compared, with all that
goes before it as its prompt, and the last answer of an item. Sequences that several items share, such as those of a
common instruction, tell nothing about one of them and are not counted; an item with fewer than nine others is
compared as a whole only.

The index holds the items, and the examples are read once, one after the other: a million conversations take about a
minute, and no memory.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np

from studykit.sources import PLAIN_TEXT, Example

SEQUENCE = 5
"""Words of a sequence. Where every tenth word differs, half of these stay whole, and none of longer ones."""

MIN_SEQUENCES = 9
"""Sequences that an item must have alone, those of 13 words; shorter texts resemble each other by chance."""

_BATCH = 2**17
"""Characters whose sequences are looked up together."""
_BETWEEN_TEXTS = 0
_BASE = 0x9E3779B97F4A7C15
_CHARACTERS = 2**16
"""Those of Unicode's first plane, which has all common punctuation."""
_NOT_COMPARED = ("system", "developer")
_MEANT = "%&*/@#\\-"
"""Punctuation by Unicode that tells 6/2 from 6*2; a hyphen counts before a digit only."""
_HYPHEN = re.compile(r"-(?!\d)")
_IDEOGRAPH = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])")
"""Characters of Chinese and Japanese, each of which counts as a word: there are no spaces."""


class Kind(IntEnum):
    """What an item and an example have in common; more is larger."""

    NOTHING = 0
    SAME_PROMPT = 1
    NEAR = 2
    NORMALISED = 3
    EXACT = 4


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        items: int8 [items], the `Kind` of each item.
        examples: bool [examples], whether an example has something in common with any item.
    """

    items: np.ndarray
    examples: np.ndarray

    def counts(self) -> dict[str, int]:
        """Return the number of items of each kind."""
        return {kind.name.lower(): int((self.items == kind).sum()) for kind in reversed(Kind) if kind}


class HeldOutIndex:
    """Held-out items, to be searched for among examples.

    Args:
        items: of an evaluation.
    """

    def __init__(self, items: Sequence[Example]):
        self._normalise = _Normaliser()
        self._verbatim = [_last(item, str)[1] for item in items]
        self._wholes: dict[str, list[int]] = defaultdict(list)
        self._prompts: dict[str, list[int]] = defaultdict(list)
        for number, item in enumerate(items):
            prompt, whole = _last(item, self._normalise)
            self._wholes[whole].append(number)
            self._prompts[prompt].append(number)
        self._prompts.pop("", None)
        self._sequences = _Sequences([_last(item, self._normalise)[1] for item in items])

    def search(self, examples: Sequence[Example]) -> Found:
        """Return which items the examples have, and which examples have them."""
        found = Found(np.zeros(len(self._verbatim), np.int8), np.zeros(len(examples), bool))
        texts: list[str] = []
        length = 0
        for number, example in enumerate(examples, 1):
            texts.append(self._compare(number - 1, example, found))
            length += len(texts[-1])
            if length >= _BATCH or number == len(examples):
                for text, item in self._sequences.search(texts):
                    _note(found, item, number - len(texts) + text, Kind.NEAR)
                texts, length = [], 0
        return found

    def _compare(self, number: int, example: Example, found: Found) -> str:
        """Look up all answers of an example, and return its normalised text."""
        whole = ""
        for turn, (prompt, whole) in enumerate(_answers(example, self._normalise)):
            same = self._wholes.get(whole, ())
            for item in same:
                is_exact = list(_answers(example, str))[turn][1] == self._verbatim[item]
                _note(found, item, number, Kind.EXACT if is_exact else Kind.NORMALISED)
            for item in self._prompts.get(prompt, ()):
                if item not in same:
                    _note(found, item, number, Kind.SAME_PROMPT)
        return whole


def normalise(text: str) -> str:
    """Return a text without regard to Unicode form (NFKC), case, punctuation, invisible characters and whitespace.

    What tells numbers and expressions apart stays: `%&*/@#`, and a minus before a digit. A text of nothing but
    punctuation is kept.

    >>> normalise("  “Well-known” ﬁgures:\\n6/2, -5 ")
    'well known figures 6/2 -5'
    """
    return _Normaliser()(text)


class _Normaliser:
    """Normalises texts by one table of characters, which takes a while to make, hence once in a process."""

    def __init__(self) -> None:
        self._table = _table()

    def __call__(self, text: str) -> str:
        folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
        plain = folded.translate(self._table)
        if "-" in plain:
            plain = _HYPHEN.sub(" ", plain)
        while "  " in plain:  # many times faster than to split and join
            plain = plain.replace("  ", " ")
        return plain.strip() or " ".join(folded.split())


@cache
def _table() -> dict[int, str]:
    return {code: new for code in range(_CHARACTERS) if (new := _replacement(chr(code))) is not None}


def _replacement(character: str) -> str | None:
    """Return the text that replaces a character; None for itself."""
    category = unicodedata.category(character)
    if category == "Pd":
        return "-"
    if category == "Cf":
        return ""
    is_left_out = category[0] == "P" and character not in _MEANT
    return " " if is_left_out or character.isspace() else None


class _Sequences:
    """Hashes of the word sequences that one text alone has, sorted, with the text that each belongs to."""

    def __init__(self, texts: Sequence[str]):
        hashes = [np.unique(_hash_sequences(_encode([text]))[0]) for text in texts]
        keys, first, holders = np.unique(
            np.concatenate([np.empty(0, np.uint64), *hashes]), return_index=True, return_counts=True
        )
        owners = np.repeat(np.arange(len(texts)), [len(part) for part in hashes])[first]
        totals = np.bincount(owners[holders == 1], minlength=len(texts))
        kept = (holders == 1) & (totals[owners] >= MIN_SEQUENCES)
        self._keys, self._owners, self._needed = keys[kept], owners[kept], -(-2 * totals // 3)
        size = 2 ** max(16, (16 * len(self._keys)).bit_length())
        self._last_bits, self._may_be_key = np.uint64(size - 1), np.zeros(size, bool)
        self._may_be_key[self._keys & self._last_bits] = True

    def search(self, texts: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Yield the number of a text, and of an indexed text of which it has two thirds of the sequences."""
        if not len(self._keys):
            return
        encoded = _encode(texts)
        hashes, starts, ends = _hash_sequences(encoded)
        candidates = np.flatnonzero(self._may_be_key[hashes & self._last_bits])
        keys = np.minimum(np.searchsorted(self._keys, hashes[candidates]), len(self._keys) - 1)
        is_key = self._keys[keys] == hashes[candidates]
        keys, candidates = keys[is_key], candidates[is_key]
        bounds = np.flatnonzero(encoded == _BETWEEN_TEXTS)
        text = np.searchsorted(bounds, starts[candidates])
        inside = text == np.searchsorted(bounds, ends[candidates])  # and not from one text into the next
        once = np.unique(text[inside] * len(self._keys) + keys[inside])
        texts_and_owners = once // len(self._keys) * len(self._needed) + self._owners[once % len(self._keys)]
        for pair, count in zip(*np.unique(texts_and_owners, return_counts=True), strict=True):
            number, owner = divmod(int(pair), len(self._needed))
            if count >= self._needed[owner]:
                yield number, owner


def _encode(texts: Sequence[str]) -> np.ndarray:
    """Return normalised texts as bytes with a mark after each, uint8."""
    joined = "\0".join([*texts, ""])
    if not joined.isascii():
        joined = _IDEOGRAPH.sub(r" \1 ", joined).replace("  ", " ")
    return np.frombuffer(joined.encode(), np.uint8)


def _hash_sequences(encoded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a hash for the five words from each word on, and where they start and end, each [sequences].

    A sequence of bytes b has the hash Σ t[b_i] P^i modulo 2^64, with a random number t for each byte: the difference
    of two prefix sums, divided by the power at its start.
    """
    is_word = np.concatenate([[False], encoded > ord(" "), [False]])
    starts, ends = np.flatnonzero(is_word[1:] & ~is_word[:-1]), np.flatnonzero(is_word[:-1] & ~is_word[1:])
    starts, ends = starts[: max(0, len(starts) - SEQUENCE + 1)], ends[SEQUENCE - 1 :]
    powers, inverse = (_powers(base, len(encoded) + 1) for base in (_BASE, pow(_BASE, -1, 2**64)))
    numbers = np.random.default_rng(0).integers(2**64, size=256, dtype=np.uint64)
    sums = np.concatenate([[np.uint64(0)], np.cumsum(numbers[encoded] * powers[:-1])])
    hashes = (sums[ends] - sums[starts]) * inverse[starts]
    return (hashes ^ (hashes >> np.uint64(32))) * np.uint64(_BASE), starts, ends


def _powers(base: int, count: int) -> np.ndarray:
    """Return the first powers of a number modulo 2^64, uint64 [count]."""
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


def _answers(example: Example, text: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Yield the text before each answer, and the text up to its end."""
    before = ""
    for message in example.messages:
        if message["role"] in _NOT_COMPARED:
            continue
        whole = f"{before}\n{text(message['content'])}"
        if message["role"] in ("assistant", PLAIN_TEXT):
            yield before, whole
        before = whole


def _last(example: Example, text: Callable[[str], str]) -> tuple[str, str]:
    *_, last = _answers(example, text)
    return last


def _note(found: Found, item: int, example: int, kind: Kind) -> None:
    found.items[item] = max(found.items[item], kind)
    found.examples[example] = True
