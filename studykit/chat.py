"""Conversations to token ids and supervised mask, by the tokenizer's own chat template, once.

    encoded = encode(examples, tokenizer, max_length=512)
    encoded.ids_of(0), encoded.supervised_of(0)     # int32 [T], bool [T]

Supervised are the assistant's tokens and the end-of-turn token after them (also where pad and end share an id), in
every assistant turn; never the template's words around them. In a raw text every token is supervised. The logit at
position i predicts token i + 1, so a supervised first token of a sequence has nothing to predict it and is not counted.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from studykit.caching import cache_folder, replacing
from studykit.errors import InputError
from studykit.sources import Example, content_hash

_VERSION = "1"
_BATCH = 4096


@dataclass(frozen=True)
class Encoded:
    """Token sequences of many examples, end to end.

    Attributes:
        ids: int32 [total].
        supervised: bool [total].
        offsets: int64 [n + 1]; example i is `[offsets[i], offsets[i + 1])`.
    """

    ids: np.ndarray
    supervised: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def ids_of(self, index: int) -> np.ndarray:
        """Return the token ids of one example, int32 [T]."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def supervised_of(self, index: int) -> np.ndarray:
        """Return the mask of one example, bool [T]."""
        return self.supervised[self.offsets[index] : self.offsets[index + 1]]

    def take(self, indices: np.ndarray) -> "Encoded":
        """Return the sequences at those positions, in that order."""
        places = np.concatenate([np.arange(int(self.offsets[i]), int(self.offsets[i + 1])) for i in indices])
        offsets = np.concatenate([[0], np.cumsum(self.lengths[indices])])
        return Encoded(self.ids[places], self.supervised[places], offsets)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per example, int64 [n]."""
        return np.diff(self.offsets)

    @property
    def response_tokens(self) -> np.ndarray:
        """Supervised tokens per example that have a token before them, int64 [n]."""
        return np.array([int(self.supervised_of(i)[1:].sum()) for i in range(len(self))])

    def key_of(self, index: int) -> str:
        """Return the content hash of one token sequence and its mask: what a teacher's answer depends on."""
        content = self.ids_of(index).tobytes() + self.supervised_of(index).tobytes()
        return hashlib.sha256(content).hexdigest()[:32]


def encode(examples: Sequence[Example], tokenizer: Any, max_length: int | None) -> Encoded:
    """Render, tokenise and mask; kept on disk by content, so that a study tokenises its data once.

    Args:
        examples: conversations or raw texts.
        tokenizer: a fast Hugging Face tokenizer, with a chat template where there are conversations.
        max_length: longer examples are refused, and those without a supervised token; None leaves both for later.

    Raises:
        InputError: no chat template, a template whose rendering of a prefix is no prefix, an example past
            `max_length` or without a supervised token.
    """
    key = hashlib.sha256(f"{_VERSION}:{tokenizer_hash(tokenizer)}:{content_hash(examples)}".encode()).hexdigest()[:32]
    file = cache_folder("tokens") / f"{key}.npz"
    if file.exists():
        with np.load(file) as stored:
            encoded = Encoded(stored["ids"], stored["supervised"], stored["offsets"])
    else:
        encoded = _encode(examples, tokenizer)
        with replacing(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, ids=encoded.ids, supervised=encoded.supervised, offsets=encoded.offsets)
    if max_length is not None:
        check(examples, encoded, max_length)
    return encoded


def encode_prompts(examples: Sequence[Example], tokenizer: Any) -> list[list[int]]:
    """Return the token ids up to where the last assistant turn begins, as generation sees them."""
    rendered = render([list(e.messages[:-1]) for e in examples], tokenizer, add_generation_prompt=True)
    return tokenizer(rendered, add_special_tokens=False)["input_ids"]


def render(conversations: list[list[dict[str, str]]], tokenizer: Any, *, add_generation_prompt: bool) -> list[str]:
    """Apply the chat template to many conversations.

    Raises:
        InputError: the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise InputError(
            f"tokenizer {tokenizer.name_or_path!r} has no chat template: set tokenizer.chat_template and save it "
            "beside the model, or give raw texts instead of conversations"
        )
    return tokenizer.apply_chat_template(conversations, tokenize=False, add_generation_prompt=add_generation_prompt)


def tokenizer_hash(tokenizer: Any) -> str:
    """Return the sha256 of what makes token ids: vocabulary and rules, special tokens, chat template."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["truncation"] = backend["padding"] = None
    content = [backend, tokenizer.special_tokens_map, tokenizer.chat_template]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _encode(examples: Sequence[Example], tokenizer: Any) -> Encoded:
    ids: list[list[int]] = []
    masks: list[list[bool]] = []
    special = set(tokenizer.all_special_ids)
    for start in range(0, len(examples), _BATCH):
        batch = examples[start : start + _BATCH]
        texts, spans = _texts_and_spans(batch, tokenizer)
        encoding = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        for example, row, places, turns in zip(
            batch, encoding["input_ids"], encoding["offset_mapping"], spans, strict=True
        ):
            row, mask = (
                _plain_text(example, tokenizer) if example.is_text else (row, _mask(row, places, turns, special))
            )
            ids.append(row)
            masks.append(mask)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
    return Encoded(np.concatenate(ids).astype(np.int32), np.concatenate(masks).astype(bool), offsets)


Spans = list[tuple[int, int]]
"""Character ranges of the assistant's turns in a rendered text; a raw text has none."""


def _texts_and_spans(examples: Sequence[Example], tokenizer: Any) -> tuple[list[str], list[Spans]]:
    """Render each conversation and each of its prefixes that end before or after an assistant turn."""
    chats = [e for e in examples if not e.is_text]
    turns = [(e, j) for e in chats for j, m in enumerate(e.messages) if m["role"] == "assistant"]
    before = render([list(e.messages[:j]) for e, j in turns], tokenizer, add_generation_prompt=True) if turns else []
    after = (
        render([list(e.messages[: j + 1]) for e, j in turns], tokenizer, add_generation_prompt=False) if turns else []
    )
    texts = {id(e): e.answer for e in examples}
    spans: dict[int, Spans] = {id(e): [] for e in examples}
    for (example, _), whole in zip(turns, after, strict=True):
        texts[id(example)] = whole  # the last turn's rendering is the whole conversation
    for (example, turn), head, whole in zip(turns, before, after, strict=True):
        if not (whole.startswith(head) and texts[id(example)].startswith(whole)):
            raise InputError(
                f"example {example.id!r}: the chat template renders turn {turn} differently once more follows, so the "
                "assistant's tokens cannot be told apart; use a template whose prefixes stay the same"
            )
        spans[id(example)].append((len(head), len(whole)))
    return [texts[id(e)] for e in examples], [spans[id(e)] for e in examples]


def _plain_text(example: Example, tokenizer: Any) -> tuple[list[int], list[bool]]:
    ids = tokenizer(example.answer)["input_ids"]
    ids = ids if ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]
    return ids, [True] * len(ids)


def _mask(ids: list[int], places: list[tuple[int, int]], spans: Spans, special: set[int]) -> list[bool]:
    """Mark the tokens inside the spans; behind a turn's end token nothing is taught (some templates add a newline)."""
    mask = [False] * len(ids)
    for start, stop in spans:
        inside = [i for i, (left, right) in enumerate(places) if start <= left < stop and right > left]
        ends = [i for i in inside if ids[i] in special]
        for i in inside:
            mask[i] = not ends or i <= ends[-1]
    return mask


def check(examples: Sequence[Example], encoded: Encoded, max_length: int) -> None:
    """Refuse examples that cannot be trained on.

    Raises:
        InputError: an example past `max_length`, or without a supervised token.
    """
    longest = int(encoded.lengths.argmax())
    if encoded.lengths[longest] > max_length:
        raise InputError(
            f"example {examples[longest].id!r} has {encoded.lengths[longest]:,} tokens, more than max_length "
            f"{max_length:,}: raise max_length or drop the example (nothing is cut silently)"
        )
    empty = np.flatnonzero(np.add.reduceat(encoded.supervised, encoded.offsets[:-1]) == 0)
    if len(empty):
        raise InputError(f"example {examples[int(empty[0])].id!r} has no supervised token: is its answer empty?")
