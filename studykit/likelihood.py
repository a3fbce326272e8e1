"""How likely a model finds answers: one forward pass over each, through the same head that training uses.

nll = reference_nll(model, encoded, tokenizer, batch_size=256)         # nats per example
scores = mean_logp(models.find("lexicon/teacher-a"), examples)         # per response token, remembered on disk
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from studykit.chat import ENCODING_VERSION, Encoded, encode
from studykit.collate import Batch, collate
from studykit.files import cache_folder, replacing
from studykit.generation.peers import alone, peers
from studykit.models.loading import load_teacher
from studykit.models.names import ModelRef
from studykit.models.projection import logits_in_chunks, output_head
from studykit.models.states import choose_packing, hidden_states
from studykit.models.vocabulary import token_rows
from studykit.sources import Example, content_hash

_BATCH = 256

T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """What a model predicts at the n supervised tokens of one example, given all tokens before each.

    Attributes:
        nll: negative log-likelihood of the tokens, summed, nats.
        confidence: float32 [n], probability of the likeliest token.
        likeliest: int64 [n], that token.
        target: int64 [n], the token of the example.
    """

    nll: float
    confidence: np.ndarray
    likeliest: np.ndarray
    target: np.ndarray


@torch.no_grad()
def reference_nll(model: nn.Module, encoded: Encoded, tokenizer: Any, batch_size: int) -> list[float]:
    """Return the negative log-likelihood of every example's supervised tokens, summed, nats.

    Rows of the head that belong to no token are left out, as in distillation: no training has lowered their logits.
    """
    losses: dict[int, float] = {}
    for indices, batch, chunks in _read_batches(model, encoded, tokenizer, batch_size):
        nll = torch.cat([_cross_entropy(logits, batch.target[rows]) for rows, logits in chunks])
        for index, value in zip(indices, _sums(nll, batch, len(indices)), strict=True):
            losses[int(index)] = value
    return _in_order(losses)


@torch.no_grad()
def predict(model: nn.Module, encoded: Encoded, tokenizer: Any, batch_size: int) -> list[Prediction]:
    """Return the model's predictions at every example's supervised tokens, with the likelihood of `reference_nll`."""
    found: dict[int, Prediction] = {}
    for indices, batch, chunks in _read_batches(model, encoded, tokenizer, batch_size):
        parts = [
            (
                _cross_entropy(logits, batch.target[rows]),
                (logits.amax(-1) - logits.logsumexp(-1)).exp(),
                logits.argmax(-1),
            )
            for rows, logits in chunks
        ]
        nll, *rest = (torch.cat(part) for part in zip(*parts, strict=True))
        counts = torch.bincount(batch.sequence, minlength=len(indices)).tolist()
        columns = zip(*(part.cpu().split(counts) for part in (*rest, batch.target)), strict=True)
        for index, value, column in zip(indices, _sums(nll, batch, len(indices)), columns, strict=True):
            found[int(index)] = Prediction(value, *(part.numpy() for part in column))
    return _in_order(found)


def _in_order(found: dict[int, T]) -> list[T]:
    """Return what was found for each example, in whichever process, by its position."""
    every = {index: value for part in peers().gather(found) for index, value in part.items()}
    return [every[index] for index in sorted(every)]


def likeliest_tokens(model: ModelRef, encoded: Encoded, tokenizer: Any) -> list[np.ndarray]:
    """Return the token that a model predicts at each supervised token of every example, each int64 [n].

    Stored on disk by content of model and sequences: a study runs a teacher over them once.

    Args:
        model: as found by its name; its vocabulary is the tokenizer's.
        encoded: token sequences.
        tokenizer: the one that made them.

    Raises:
        InputError: the model cannot be loaded.
    """
    keys = "".join(encoded.key_of(index) for index in range(len(encoded)))

    def compute() -> np.ndarray:
        predictions = predict(load_teacher(model), encoded, tokenizer, _BATCH)
        return np.concatenate([prediction.likeliest for prediction in predictions])

    tokens = _remember(f"likeliest:{model.sha256}:{keys}", compute)
    return np.split(tokens, np.cumsum(encoded.response_tokens)[:-1])


def mean_logp(model: ModelRef, examples: Sequence[Example]) -> np.ndarray:
    """Return each example's mean log-probability per response token under a model, with the model's tokenizer.

    Remembered on disk by content of model and examples: a study runs each model over them once.

    Args:
        model: as found by its name.
        examples: conversations or raw texts.

    Returns:
        float64 [len(examples)], nats.

    Raises:
        InputError: the model cannot be loaded.
    """

    def compute() -> np.ndarray:
        encoded = encode(examples, model.tokenizer, None)
        nll = np.array(reference_nll(load_teacher(model), encoded, model.tokenizer, _BATCH))
        return -nll / encoded.response_tokens

    return _remember(f"{ENCODING_VERSION}:{model.sha256}:{content_hash(examples)}", compute)


def _remember(key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the array stored under a key, computing it where it is missing."""
    file = cache_folder("likelihood") / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
    if not file.exists():
        with alone():
            array = compute()
        with replacing(file) as temporary, temporary.open("wb") as stream:
            np.save(stream, array)
    return np.load(file)


def _read_batches(
    model: nn.Module, encoded: Encoded, tokenizer: Any, batch_size: int
) -> Iterator[tuple[np.ndarray, Batch, Iterator[tuple[slice, Tensor]]]]:
    """Yield positions of examples of similar length, their batch, and the logits of its supervised tokens in chunks.

    Of a batch that is dealt out to processes, each reads its own rows; where it has none, the first row stands in,
    which is not yielded.
    """
    head, vocab_size, packed = output_head(model), token_rows(tokenizer), choose_packing(model)
    order = np.argsort(encoded.lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        every = order[start : start + batch_size]
        indices = peers().own(every)
        rows = indices if len(indices) else every[:1]
        batch = collate(encoded, rows, tokenizer.pad_token_id).to(head.weight.device)
        hidden = hidden_states(model, batch.input_ids, batch.attention_mask, packed)
        if len(indices):
            yield indices, batch, logits_in_chunks(batch.predicting(hidden), head, vocab_size)


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, target, reduction="none")


def _sums(nll: Tensor, batch: Batch, count: int) -> list[float]:
    """Return the sum over each sequence's tokens."""
    sums = torch.zeros(count, dtype=nll.dtype, device=nll.device)
    return sums.index_add_(0, batch.sequence, nll).tolist()
