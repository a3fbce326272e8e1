"""Examples that are left out of a source before a budget is drawn, so that the budgets of what is left are nested.

    kept = apply_filters(data.filters, pool, tokenizer)
    kept.examples, kept.dropped                      # {"max_tokens": 461}

Each filter sees what those before it have left, so that an example is counted once; those that read texts come first,
since an example without an answer has no tokens to be counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from studykit.chat import Turns, describe_share
from studykit.data.sequences import Sequences, TokenCounts, count_tokens
from studykit.errors import InputError
from studykit.sources import Example, column, take
from studykit.spec import Filters


@dataclass(frozen=True)
class Kept:
    """What filters have left of a pool.

    Attributes:
        examples: in their order.
        counts: of their tokens, where a filter has read them.
        dropped: number of examples that each filter has left out, by its name.
    """

    examples: Sequence[Example]
    counts: Sequences | TokenCounts | None = None
    dropped: dict[str, int] = field(default_factory=dict)

    def take(self, name: str, passes: np.ndarray) -> "Kept":
        """Return the examples that pass one more filter, bool [n]."""
        rows = np.flatnonzero(passes)
        counts = None if self.counts is None else self.counts.take(rows)
        dropped = self.dropped | {name: len(passes) - len(rows)}
        return Kept(take(self.examples, rows), counts, dropped)

    def describe(self) -> str:
        """Say what was left out: "filters left out 463 (max_tokens 461, drop_duplicates 2)"."""
        parts = ", ".join(f"{name} {count:,}" for name, count in self.dropped.items() if count)
        return f"filters left out {sum(self.dropped.values()):,}" + (f" ({parts})" if parts else "")


@dataclass(frozen=True)
class Excluded:
    """Examples that a stage does not draw.

    Attributes:
        texts: of examples that earlier stages have drawn, as `Example.text_key`.
        ids: of single examples.
        held_out: items of the evaluations, which data with `decontaminate` does not draw.
        held_out_sha256: of these.
    """

    texts: frozenset[bytes] = frozenset()
    ids: frozenset[str] = frozenset()
    held_out: Sequence[Example] = field(default=(), compare=False)
    held_out_sha256: str | None = None

    def among(self, examples: Sequence[Example]) -> np.ndarray:
        """Tell which examples are excluded by id or text, bool [n]."""
        found = np.zeros(len(examples), dtype=bool)
        for name, excluded in (("id", self.ids), ("text_key", self.texts)):
            if excluded:
                found |= [value in excluded for value in column(examples, name)]
        return found


NOTHING = Excluded()


def apply_filters(
    filters: Filters | None,
    examples: Sequence[Example],
    tokenizer: Any,
    turns: Turns | None = None,
    excluded: Excluded = NOTHING,
) -> Kept:
    """Return the examples that pass all filters and are not excluded.

    Args:
        filters: None leaves nothing out.
        examples: a source's pool.
        tokenizer: counts tokens; the pool is tokenized where a filter needs it.
        turns: which answers of a conversation are supervised, and in which sequences.
        excluded: left out first.

    Raises:
        InputError: answers are empty, and no filter leaves these out.
    """
    kept = Kept(examples)
    if excluded.texts or excluded.ids:
        kept = kept.take("exclude", ~excluded.among(examples))
    answered = column(kept.examples, "is_answered")
    if filters is not None and filters.on_empty == "drop":
        kept = kept.take("on_empty", answered)
    else:
        _check_answered(kept.examples, answered)
    for name, passes in _BY_TEXT.items():
        if (limit := getattr(filters, name, None)) is not None:
            kept = kept.take(name, passes(kept.examples, limit))
    for name, passes in _BY_TOKENS.items():
        if (limit := getattr(filters, name, None)) is not None:
            counts = kept.counts or count_tokens(kept.examples, tokenizer, turns)
            kept = Kept(kept.examples, counts, kept.dropped).take(name, passes(counts, limit))
    return kept


def _check_answered(examples: Sequence[Example], answered: np.ndarray) -> None:
    if len(empty := np.flatnonzero(~answered)):
        raise InputError(
            f"{describe_share(len(empty), len(examples))} without an answer, or with an empty one (first "
            f"{examples[empty[0]].id!r}): filters={{'on_empty': 'drop'}} leaves them out"
        )


def _first_of_each(examples: Sequence[Example], drop_duplicates: bool) -> np.ndarray:
    """Tell the first of the examples that have the same text, apart from case and whitespace."""
    first: dict[bytes, int] = {}
    keys = column(examples, "text_key")
    return np.array([first.setdefault(key, row) == row for row, key in enumerate(keys)], dtype=bool)


_BY_TEXT: dict[str, Callable[[Sequence[Example], Any], np.ndarray]] = {
    "max_turns": lambda examples, limit: column(examples, "turns") <= limit,
    "drop_duplicates": _first_of_each,
}
"""Which examples pass, bool [n], by the name of the field of `Filters`, in their order."""

_BY_TOKENS: dict[str, Callable[[Sequences | TokenCounts, Any], np.ndarray]] = {
    "min_response_tokens": lambda counts, limit: counts.response_tokens >= limit,
    "max_tokens": lambda counts, limit: counts.longest <= limit,
}
