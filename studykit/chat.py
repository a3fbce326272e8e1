"""Conversations to token ids and loss mask, by the tokenizer's own chat template.

    encoded = encode(examples, tokenizer, max_length=512)
    encoded.ids_of(0), encoded.supervised_of(0)     # int32 [T], bool [T]

The loss mask includes the tokens of every assistant turn and the end-of-turn token after each (also where padding and
end share an id), and every token of a raw text. It excludes

- system and user turns: the student reads them and never has to write them;
- the words of the template around an answer, such as the assistant's header: generation starts after it;
- template text after an end-of-turn token, such as a newline: generation stops before it;
- padding, which a batch adds later (`studykit.collate`).

A first token of a sequence may be in the mask (of a raw text it is), but no position comes before it to predict it, so
that it is neither trained on nor counted.

The tokens stay on disk and are mapped into memory: only the parts that are used are read, and processes share them.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from studykit.errors import InputError
from studykit.files import cache_folder, replacing
from studykit.sources import Example, content_hash

_VERSION = "3"
_BATCH = 4096


@dataclass(frozen=True)
class Encoded:
    """The token sequences of examples, as slices of one long row of tokens; selections share the row.

    Attributes:
        ids: int32 [total].
        loss_mask: bool [total].
        starts: int64 [n], position of each example's first token.
        lengths: int64 [n], tokens per example.
        response_tokens: int64 [n], supervised tokens per example that have a token before them.
    """

    ids: np.ndarray
    loss_mask: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    response_tokens: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> "Encoded":
        """Concatenate sequences (int [T]) and their loss masks (bool [T])."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        responses = np.array([mask[1:].sum() for mask in masks], dtype=np.int64)
        ids = np.concatenate([np.empty(0, np.int32), *rows]).astype(np.int32)
        loss_mask = np.concatenate([np.empty(0, bool), *masks])
        return cls(ids, loss_mask, np.cumsum(lengths) - lengths, lengths, responses)

    def __len__(self) -> int:
        return len(self.starts)

    def ids_of(self, index: int) -> np.ndarray:
        """Return the token ids of one example, int32 [T]."""
        return self.ids[self._slice(index)]

    def supervised_of(self, index: int) -> np.ndarray:
        """Return the loss mask of one example, bool [T]."""
        return self.loss_mask[self._slice(index)]

    def take(self, indices: np.ndarray) -> "Encoded":
        """Return the sequences with these indices, in this order; the tokens are not copied."""
        columns = (column[indices] for column in (self.starts, self.lengths, self.response_tokens))
        return Encoded(self.ids, self.loss_mask, *columns)

    def _slice(self, index: int) -> slice:
        return slice(int(self.starts[index]), int(self.starts[index] + self.lengths[index]))

    def key_of(self, index: int) -> str:
        """Return the content hash of one token sequence and its loss mask: a teacher's signal depends on no more."""
        content = self.ids_of(index).tobytes() + self.supervised_of(index).tobytes()
        return hashlib.sha256(content).hexdigest()[:32]


def encode(examples: Sequence[Example], tokenizer: Any, max_length: int | None) -> Encoded:
    """Render, tokenize and mask examples; the result is cached on disk, so that a study tokenizes its data once.

    Args:
        examples: conversations or raw texts.
        tokenizer: a fast Hugging Face tokenizer, with a chat template where there are conversations.
        max_length: limit in tokens; with None neither lengths nor empty masks are checked.

    Raises:
        InputError: no chat template; a template that renders an earlier turn differently once more turns follow; an
            example longer than `max_length` or without a supervised token.
    """
    key = hashlib.sha256(f"{_VERSION}:{tokenizer_hash(tokenizer)}:{content_hash(examples)}".encode()).hexdigest()[:32]
    file = cache_folder("tokens") / f"{key}.safetensors"
    encoded = _map_file(file)
    if encoded is None:
        with replacing(file) as temporary:
            save_file(vars(_tokenize(examples, tokenizer)), temporary)
        encoded = _map_file(file)
    if encoded is None:
        raise OSError(f"{file} was written and cannot be read: is the disk full or failing?")
    if max_length is not None:
        check(examples, encoded, max_length)
    return encoded


def encode_prompts(examples: Sequence[Example], tokenizer: Any) -> list[list[int]]:
    """Return the token ids before the last assistant turn, with its header: the prompts of generation."""
    rendered = render([list(e.messages[:-1]) for e in examples], tokenizer, add_generation_prompt=True)
    return tokenizer(rendered, add_special_tokens=False)["input_ids"]


def render(conversations: list[list[dict[str, str]]], tokenizer: Any, *, add_generation_prompt: bool) -> list[str]:
    """Apply the chat template to conversations.

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
    """Return the sha256 of all that token ids depend on: vocabulary and rules, special tokens, chat template."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["truncation"] = backend["padding"] = None
    content = [backend, tokenizer.special_tokens_map, tokenizer.chat_template]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _map_file(file: Path) -> Encoded | None:
    """Map a cached encoding into memory, without reading it yet; None where the file is missing or damaged."""
    try:
        with safe_open(file, framework="pt") as stored:  # numpy's reader would copy; writes stay in memory either way
            return Encoded(**{field.name: stored.get_tensor(field.name).numpy() for field in fields(Encoded)})
    except (OSError, SafetensorError):
        return None


def _tokenize(examples: Sequence[Example], tokenizer: Any) -> Encoded:
    """Tokenize and mask examples, a few thousand at a time."""
    ids: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    special = set(tokenizer.all_special_ids)
    for start in range(0, len(examples), _BATCH):
        batch = examples[start : start + _BATCH]
        texts, spans = _render_with_spans(batch, tokenizer)
        encoding = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        for example, row, offsets, turns in zip(
            batch, encoding["input_ids"], encoding["offset_mapping"], spans, strict=True
        ):
            if example.is_text:
                row, mask = _tokenize_text(example, tokenizer)
            else:
                mask = _mask_answers(row, offsets, turns, special)
            ids.append(np.array(row, dtype=np.int32))
            masks.append(np.array(mask, dtype=bool))
    return Encoded.of(ids, masks)


Spans = list[tuple[int, int]]
"""Character ranges of the assistant's turns in a rendered text; a raw text has none."""


def _render_with_spans(examples: Sequence[Example], tokenizer: Any) -> tuple[list[str], list[Spans]]:
    """Return the rendered examples and the spans of their assistant turns.

    A span runs from the end of the conversation before the turn, rendered with the assistant's header, to the end of
    the conversation with the turn.
    """
    chats = [e for e in examples if not e.is_text]
    turns = [(e, j) for e in chats for j, m in enumerate(e.messages) if m["role"] == "assistant"]
    before = render([list(e.messages[:j]) for e, j in turns], tokenizer, add_generation_prompt=True) if turns else []
    after = (
        render([list(e.messages[: j + 1]) for e, j in turns], tokenizer, add_generation_prompt=False) if turns else []
    )
    texts = {id(e): e.answer for e in examples}
    spans: dict[int, Spans] = {id(e): [] for e in examples}
    for (example, _), rendered in zip(turns, after, strict=True):
        texts[id(example)] = rendered  # in the end that of the last turn, which is the whole conversation
    for (example, turn), head, rendered in zip(turns, before, after, strict=True):
        if not (rendered.startswith(head) and texts[id(example)].startswith(rendered)):
            raise InputError(
                f"example {example.id!r}: the chat template renders turn {turn} differently once more turns follow, so "
                "the assistant's tokens cannot be told apart; use a template that renders a turn the same in every "
                "conversation"
            )
        spans[id(example)].append((len(head), len(rendered)))
    return [texts[id(e)] for e in examples], [spans[id(e)] for e in examples]


def _tokenize_text(example: Example, tokenizer: Any) -> tuple[list[int], list[bool]]:
    """Return the ids of a raw text, with an end token, and a mask that includes all of them."""
    ids = tokenizer(example.answer)["input_ids"]
    ids = ids if ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]
    return ids, [True] * len(ids)


def _mask_answers(ids: list[int], offsets: list[tuple[int, int]], spans: Spans, special: set[int]) -> list[bool]:
    """Return the loss mask of a rendered conversation.

    Included are the tokens inside the spans. Excluded are the tokens outside of them, and inside of one the text that
    the template adds after the last special token, the end of the turn; a span without a special token is included
    whole.

    Args:
        ids: tokens of the conversation.
        offsets: start and stop of each token in the rendered text.
        spans: character ranges of the assistant's turns.
        special: ids of special tokens.
    """
    mask = [False] * len(ids)
    for start, stop in spans:
        inside = [i for i, (left, right) in enumerate(offsets) if start <= left < stop and right > left]
        ends = [i for i in inside if ids[i] in special]
        for i in inside:
            mask[i] = not ends or i <= ends[-1]
    return mask


def check(examples: Sequence[Example], encoded: Encoded, max_length: int) -> None:
    """Refuse examples that cannot be trained on.

    Raises:
        InputError: an example longer than `max_length`, or without a supervised token.
    """
    longest = int(encoded.lengths.argmax())
    if encoded.lengths[longest] > max_length:
        raise InputError(
            f"example {examples[longest].id!r} has {encoded.lengths[longest]:,} tokens, more than max_length "
            f"{max_length:,}: raise max_length or drop the example (nothing is cut silently)"
        )
    empty = np.flatnonzero(encoded.response_tokens == 0)
    if len(empty):
        raise InputError(f"example {examples[int(empty[0])].id!r} has no supervised token: is its answer empty?")
