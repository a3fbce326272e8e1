"""Which token ids may be generated, which of them end an answer, and which one is padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from studykit.chat import find_turn_ends
from studykit.models.states import unwrap
from studykit.models.vocabulary import token_rows


@dataclass(frozen=True)
class Vocabulary:
    """The token ids that generation has to know.

    Attributes:
        eos_token_ids: tokens that end an answer.
        pad_token_id: fills rows up to one length.
        vocab_size: ids from here on belong to no token (output heads are often padded) and are never drawn.
    """

    eos_token_ids: Sequence[int]
    pad_token_id: int
    vocab_size: int

    @classmethod
    def of(cls, model: Any, tokenizer: Any, vocab_size: int | None = None) -> "Vocabulary":
        """Return the vocabulary of a model and its tokenizer; a smaller `vocab_size` forbids the tokens past it."""
        size = token_rows(tokenizer) if vocab_size is None else vocab_size
        return cls(find_eos_token_ids(model, tokenizer), tokenizer.pad_token_id, size)


def find_eos_token_ids(model: Any, tokenizer: Any) -> list[int]:
    """Return the ids that end an answer, sorted: those that end a turn, and those of the model's generation config.

    Ids past the tokenizer's are left out: they are never generated.
    """
    configured = unwrap(model).generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    size = token_rows(tokenizer)
    return sorted({*find_turn_ends(tokenizer).ids, *(end for end in listed if end is not None and 0 <= end < size)})
