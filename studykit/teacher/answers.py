"""A teacher's distributions as others give them: the likeliest tokens at every position, and their log-probabilities.

    for answer in read_answers(file):                            # captured elsewhere: see docs/teacher-cache.md
        ids, logp = answer.keep(positions, k=64)

A server's answer and a file hold the same: token ids of a whole sequence, and for each of them what the model
expected there, given the tokens before it. The first token has nothing before it, and no distribution.
"""

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from studykit.errors import InputError

_ARRAYS = ("token_ids", "lengths", "top_ids", "logprobs")
_MASS = 1.01
"""Sum of probabilities above which numbers are no probabilities; those of a file may be rounded to half precision."""

SUFFIXES = (".jsonl", ".safetensors", ".npz")

Top = tuple[np.ndarray, np.ndarray]
"""Token ids and their log-probabilities, [k] each, in any order."""


@dataclass(frozen=True)
class Answer:
    """What a teacher expects along one sequence.

    Attributes:
        token_ids: of the whole sequence.
        tops: for each token the likeliest ones there; None where there is nothing.
        where: names it in messages.
    """

    token_ids: Sequence[int]
    tops: Sequence[Top | None]
    where: str

    @classmethod
    def of_prompt_logprobs(cls, token_ids: Sequence[int], listed: Any, where: str) -> "Answer":
        """Read vLLM's `prompt_logprobs`: per token null or `{"ID": {"logprob": x, ...}, ...}`.

        Beside the likeliest tokens each holds the token itself.

        Raises:
            InputError: it is something else, or belongs to other tokens.
        """
        if not isinstance(listed, list) or len(listed) != len(token_ids):
            count = f"{len(listed):,} of them" if isinstance(listed, list) else "none"
            raise InputError(f"{where}: {len(token_ids):,} tokens must have as many prompt_logprobs, received {count}")
        try:
            tops = [None if place is None else _read_place(place) for place in listed]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InputError(f"{where}: prompt_logprobs must be objects like {{'42': {{'logprob': -1.5}}}}") from None
        for token, top in zip(token_ids, tops, strict=True):
            if top is not None and token not in top[0]:
                raise InputError(
                    f"{where}: prompt_logprobs belong to other tokens: at one place token {token} is missing"
                )
        return cls(token_ids, tops, where)

    def keep(self, positions: np.ndarray, k: int) -> Top:
        """Return the k likeliest tokens at some positions (int64 [n]), the likeliest first, [n, k] each.

        Raises:
            InputError: fewer than k are there, or numbers that are no log-probabilities.
        """
        ids, logp = np.empty((len(positions), k), dtype=np.int64), np.empty((len(positions), k))
        for row, position in enumerate(positions.tolist()):
            top = self.tops[position]
            if top is None or len(top[0]) < k:
                there = 0 if top is None else len(top[0])
                raise InputError(
                    f"{self.where}: token {position} has the log-probabilities of {there} tokens, and {k} are to be "
                    "kept: set top_k to what is there"
                )
            order = np.argsort(-top[1], kind="stable")[:k]
            ids[row], logp[row] = top[0][order], top[1][order]
        self._check(ids, logp)
        return ids, logp

    def _check(self, ids: np.ndarray, logp: np.ndarray) -> None:
        with np.errstate(over="ignore"):
            mass = np.exp(logp).sum(axis=1)
        if not (mass <= _MASS).all():  # nor not a number
            raise InputError(
                f"{self.where}: the probabilities at a position sum to {mass.max():.3g}: natural logarithms of "
                "probabilities are needed, at temperature 1"
            )
        if ids.size and (ids.min() < 0 or (np.diff(np.sort(ids, axis=1), axis=1) == 0).any()):
            raise InputError(f"{self.where}: the tokens at a position must be different ids of at least 0")


def read_answers(file: Path) -> Iterator[Answer]:
    """Yield the answers in a file: JSON lines, safetensors or npz.

    Raises:
        InputError: no such file, another kind of file, or something wrong in it.
    """
    if file.suffix not in SUFFIXES:
        raise InputError(f"{file}: answers are in files that end in {', '.join(SUFFIXES)}")
    try:
        if file.suffix == ".jsonl":
            with file.open(encoding="utf-8") as lines:
                yield from (_read_line(line, f"{file}, line {n}") for n, line in enumerate(lines, 1) if line.strip())
        else:
            yield from _read_arrays(file)
    except (OSError, UnicodeDecodeError, SafetensorError, zipfile.BadZipFile) as error:
        raise InputError(f"{file} cannot be read: {error}") from None


def _read_place(place: dict[str, Any]) -> Top:
    logp = [float(given["logprob"]) for given in place.values()]
    return np.fromiter(map(int, place), np.int64, len(logp)), np.array(logp)


def _read_line(line: str, where: str) -> Answer:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}") from None
    if isinstance(given, dict) and isinstance(given.get("choices"), list) and len(given["choices"]) == 1:
        given = given["choices"][0]
    if isinstance(given, dict) and "prompt_logprobs" in given:
        ids = given.get("prompt_token_ids")
        if ids is None or not _are_ids(ids):
            raise InputError(f"{where}: prompt_token_ids must be token ids: ask the server with return_token_ids=true")
        return Answer.of_prompt_logprobs(ids, given["prompt_logprobs"], where)
    names = ("token_ids", "top_ids", "logprobs")
    if not isinstance(given, dict) or not all(isinstance(given.get(name), list) for name in names):
        raise InputError(f"{where} must have the lists {', '.join(names)}, or prompt_token_ids and prompt_logprobs")
    ids, tops, logprobs = (given[name] for name in names)
    if not _are_ids(ids) or not len(ids) == len(tops) == len(logprobs):
        raise InputError(
            f"{where}: token_ids, top_ids and logprobs must be as long as each other, and token_ids be ids"
        )
    return Answer(ids, [_read_top(*pair, where) for pair in zip(tops, logprobs, strict=True)], where)


def _read_top(ids: Any, logprobs: Any, where: str) -> Top | None:
    if not ids and not logprobs:
        return None
    try:
        top = np.array(ids, dtype=np.int64), np.array(logprobs, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        top = None
    if top is None or top[0].ndim != 1 or top[0].shape != top[1].shape:
        raise InputError(f"{where}: top_ids and logprobs must hold a list of ids and one of as many numbers per token")
    return top


def _are_ids(ids: Any) -> bool:
    return isinstance(ids, list) and bool(ids) and all(type(token) is int and token >= 0 for token in ids)


def _read_arrays(file: Path) -> Iterator[Answer]:
    """Yield the answers in arrays: token_ids [N] and lengths [n] of all sequences, top_ids and logprobs [N, k]."""
    try:
        with file.open("rb") as stream:
            loaded: Any = load_file(file) if file.suffix == ".safetensors" else np.load(stream, allow_pickle=False)
            ids, lengths, tops, logprobs = (np.asarray(loaded[name]) for name in _ARRAYS)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise InputError(f"{file} must hold the arrays {', '.join(_ARRAYS)} ({error})") from None
    shapes = {name: array.shape for name, array in zip(_ARRAYS, (ids, lengths, tops, logprobs), strict=True)}
    whole = all(array.dtype.kind in "iu" for array in (ids, lengths, tops)) and logprobs.dtype.kind == "f"
    fits = whole and ids.ndim == lengths.ndim == 1 and tops.ndim == 2 and tops.shape == logprobs.shape
    if not fits or len(tops) != len(ids) or lengths.sum() != len(ids) or (lengths < 1).any():
        raise InputError(
            f"{file}: token_ids [N], top_ids [N, k] and lengths [n], which sum to N, must be whole numbers, and "
            f"logprobs [N, k] floats: received {shapes}"
        )
    logprobs, start = logprobs.astype(np.float64), 0
    for number, length in enumerate(lengths.tolist(), 1):
        end = start + length
        places = [None, *zip(tops[start + 1 : end].astype(np.int64), logprobs[start + 1 : end], strict=True)]
        yield Answer(ids[start:end].tolist(), places, f"{file}, sequence {number}")
        start = end
