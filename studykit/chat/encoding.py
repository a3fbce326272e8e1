"""Conversations to token ids and loss masks, kept on disk by content: a study tokenises its data once.

    encoded = encode(examples, tokenizer, max_length=512)
    encoded.ids_of(0), encoded.supervised_of(0)     # int32 [T], bool [T]

The tokens stay on disk and are mapped into memory: only what is looked at is read, and processes share it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from studykit.chat import stored
from studykit.chat.encoded import Encoded
from studykit.chat.ends import find_turn_ends
from studykit.chat.masking import mask_conversations, mask_text
from studykit.chat.sequences import as_sequences
from studykit.chat.template import DATE
from studykit.chat.turns import shown_messages
from studykit.errors import InputError
from studykit.files import cache_folder
from studykit.sources import Example, content_hash

ENCODING_VERSION = "5"
"""Of the rules by which conversations become tokens and masks: part of the key of what is stored about them."""

_BATCH = 1024
"""Conversations that are tokenized together: the tokenizer's offsets take a hundred bytes per token until then."""


def encode(examples: Sequence[Example], tokenizer: Any, max_length: int | None) -> Encoded:
    """Render, tokenize and mask examples; the result is cached on disk, so that a study tokenizes its data once.

    Args:
        examples: conversations or raw texts.
        tokenizer: a fast Hugging Face tokenizer, with a chat template where there are conversations.
        max_length: limit in tokens; with None neither lengths nor empty masks are checked.

    Raises:
        InputError: no chat template, one that changes an answer, or nothing that ends it; an example longer than
            `max_length` or without a supervised token.
    """
    key = hashlib.sha256(
        f"{ENCODING_VERSION}:{tokenizer_hash(tokenizer)}:{content_hash(examples)}".encode()
    ).hexdigest()[:32]
    file = cache_folder("tokens") / f"{key}.safetensors"
    encoded = stored.read(file)
    if encoded is None:
        stored.store(file, tokenize(examples, tokenizer))
        encoded = stored.read(file)
    if encoded is None:
        raise OSError(f"{file} was written and cannot be read: is the disk full or failing?")
    if max_length is not None:
        check(examples, encoded, max_length)
    return encoded


def encode_prompts(examples: Sequence[Example], tokenizer: Any) -> list[list[int]]:
    """Return the token ids before each conversation's last answer: what generation starts from.

    They are a prefix of the ids that `encode` gives, with the words that the template puts before the answer (such as
    an empty thinking block), so that a student answers prompts in the form it was trained on.
    """
    for example in examples:
        if not example.messages[-1].get("weight", 1):
            raise InputError(f"example {example.id!r} has no answer to generate: its last turn has weight 0")
    encoded = encode(examples, tokenizer, None)
    starts = encoded.answer_starts()
    return [encoded.ids_of(index)[:start].tolist() for index, start in enumerate(starts)]


def encode_answers(examples: Sequence[Example], texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Return the token ids of other answers to the examples' last questions, as training has them, ends included.

    A text that the template does not take as an answer is tokenized by itself.
    """
    ends = find_turn_ends(tokenizer)
    rows = []
    for example, text in zip(examples, texts, strict=True):
        answer = {"role": "assistant", "content": text}
        other, _ = as_sequences([replace(example, messages=(*shown_messages(example)[:-1], answer))], "last")
        try:
            encoded = tokenize(other, tokenizer)
        except InputError:  # an empty text, or one that holds a token by which the template ends a turn
            rows.append([*tokenizer(text, add_special_tokens=False)["input_ids"], ends.last])
            continue
        ids, mask = encoded.ids_of(0), encoded.supervised_of(0)
        rows.append(ids[mask].tolist())
    return rows


def tokenizer_hash(tokenizer: Any) -> str:
    """Return the sha256 of what makes token ids: vocabulary and rules, special tokens, chat template and its date."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["truncation"] = backend["padding"] = None
    content = [backend, tokenizer.special_tokens_map, tokenizer.chat_template, str(DATE)]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def tokenize(examples: Sequence[Example], tokenizer: Any) -> Encoded:
    """Render, tokenize and mask examples; nothing is kept on disk."""
    ids: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    left_out: list[int] = []
    for start in range(0, len(examples), _BATCH):
        batch = examples[start : start + _BATCH]
        conversations = iter(mask_conversations([e for e in batch if not e.is_text], tokenizer))
        for example in batch:
            row = mask_text(example, tokenizer) if example.is_text else next(conversations)
            ids.append(np.array(row.ids, dtype=np.int32))
            masks.append(np.array(row.mask, dtype=bool))
            left_out.append(row.left_out)
    return Encoded.of(ids, masks, left_out)


def check(examples: Sequence[Example], encoded: Encoded, max_length: int) -> None:
    """Refuse examples that cannot be trained on.

    Raises:
        InputError: an example longer than `max_length`, or without a supervised token.
    """
    lengths, count = encoded.lengths, len(encoded)
    if len(long := np.flatnonzero(lengths > max_length)):
        median, high = np.percentile(lengths, [50, 99])
        raise InputError(
            f"{describe_share(len(long), count)} longer than max_length {max_length:,} (median {median:,.0f}, 99% "
            f"{high:,.0f}, longest {lengths.max():,} tokens, first {examples[int(long[0])].id!r}): "
            f"filters={{'max_tokens': {max_length}}} leaves them out"
        )
    if len(empty := np.flatnonzero(encoded.response_tokens == 0)):
        raise InputError(
            f"{describe_share(len(empty), count)} without a supervised token (first {examples[int(empty[0])].id!r}): "
            "filters={'min_response_tokens': 1} leaves them out"
        )


def describe_share(some: int, count: int) -> str:
    """Return how many of the examples something holds for.

    >>> describe_share(461, 20_000), describe_share(1, 40)
    ('461 of 20,000 examples (2.3%) are', '1 of 40 examples (2.5%) is')
    """
    return f"{some:,} of {count:,} examples ({100 * some / count:.1f}%) {'is' if some == 1 else 'are'}"
