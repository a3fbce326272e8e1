"""A cached teacher: its distributions are computed once and stored on disk, for every run that trains on the sequences.

Its weights are on this machine (`CachedTeacher`), or a server computes (`studykit.teacher.endpoint`).

An entry's key is the hash of the teacher's weights, the tokenizer, the storage format and the token ids of the
sequence, so that every nested budget, student, loss, temperature and seed of a study shares it. Entries are
batch-invariant: a study that is run again with an empty cache stores the same bits. They are in a `Store`:

    <cache>/teacher/<key of teacher, tokenizer and format>/<sha256 of the shard>.safetensors

Several processes may capture at once and share the work: each goes through it in a random order, writes a shard about
once a minute, and then skips what others have written. If a process is killed, the shards that it has written stay.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import pad

from studykit.chat import Encoded, tokenizer_hash
from studykit.collate import Batch
from studykit.errors import Failure, InputError
from studykit.files import cache_folder
from studykit.generation import Completions, Sampling
from studykit.generation.cost import Cost
from studykit.teacher.answers import Answer
from studykit.teacher.batch_invariant import POSITIONS, BatchInvariantTeacher
from studykit.teacher.formats import KeptProbs, SignalFormat, TopK
from studykit.teacher.live import LiveTeacher, Progress
from studykit.teacher.signal import TeacherSignal
from studykit.teacher.store import Store, as_keys

_VERSION = 4
_SHARD_POSITIONS, _SHARD_S = 2**20, 60.0
"""A shard is written after this many positions or seconds, whichever comes first."""

_VERIFIED_RUNS, _VERIFIED_RUN_LENGTH = 4, 8


_IMPORTED_AT_ONCE = 10_000
"""Entries of a shard of answers from files, at most."""


class Imported(NamedTuple):
    """How many answers were computed elsewhere and stored, were stored before, and belong to none of the sequences."""

    imported: int
    there: int
    unknown: int


class StoredTeacher:
    """A teacher whose distributions over the data's sequences are computed once, and stored in a given format.

    Where they are computed is a matter of the kind: `plan` and `compute`.

    Args:
        form: what is stored of a distribution.
        key: tells the teacher and its tokenizer from others by content, as plain JSON data.
        dtype: that it computes in.

    Attributes:
        computed_by: who computes, for messages.
    """

    computed_by = "the live teacher"

    def __init__(self, form: SignalFormat, key: list, dtype: torch.dtype):
        self.format, self.vocab_size, self._dtype = form, form.vocab_size, dtype
        self.cost = Cost(teacher_tokens=0, teacher_padding_tokens=0, teacher_check_tokens=0, cached_positions=0)
        identity = [_VERSION, *key, *form.key, form.vocab_size]
        name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        self.store = Store(cache_folder("teacher") / name)

    def plan(self, lengths: np.ndarray) -> list[np.ndarray]:
        """Return batches of sequences of these lengths (int64 [n]), as indices into them."""
        raise NotImplementedError

    def compute(self, encoded: Encoded, keys: np.ndarray, rows: np.ndarray, counter: str) -> list[bytes]:
        """Return the entries of the sequences of one planned batch.

        Args:
            encoded: the data's own sequences.
            keys: of these.
            rows: which of them are computed.
            counter: of the cost, to which their tokens are added.
        """
        raise NotImplementedError

    def entries_of(self, encoded: Encoded, rows: np.ndarray, answers: Sequence[Answer]) -> list[bytes]:
        """Return the entries of sequences from answers to them that were computed elsewhere.

        Raises:
            InputError: the cache holds samples, or an answer has too few tokens.
        """
        if not isinstance(self.format, TopK):
            raise InputError("answers hold the likeliest tokens, and this cache holds samples: take top_k")
        places = [1 + np.flatnonzero(encoded.supervised_of(row)[1:]) for row in rows.tolist()]
        kept = [answer.keep(positions, self.format.k) for answer, positions in zip(answers, places, strict=True)]
        ids, logp = (torch.from_numpy(np.concatenate(column)) for column in zip(*kept, strict=True))
        return self.format.to_bytes(self.format.encode_known(ids, logp), list(map(len, places)))

    def write(self, encoded: Encoded, answers: Iterable[Answer]) -> Imported:
        """Store answers that were computed elsewhere, where the data has their sequences.

        Args:
            encoded: the data's own sequences.
            answers: to any sequences.

        Raises:
            InputError: as `entries_of`.
        """
        keys = self.find(encoded)
        places: dict[bytes, list[int]] = {}
        for row in np.flatnonzero(~self.store.has(keys)).tolist():  # one sequence may have several loss masks
            places.setdefault(encoded.ids_of(row).tobytes(), []).append(row)
        known = {encoded.ids_of(row).tobytes() for row in range(len(encoded))}
        rows: list[int] = []
        parts: list[bytes] = []
        counts = Counter(imported=0, there=0, unknown=0)
        for answer in answers:
            ids = np.array(answer.token_ids, dtype=np.int32).tobytes()
            found = places.pop(ids, [])
            counts["imported" if found else "there" if ids in known else "unknown"] += 1
            parts += self.entries_of(encoded, np.array(found), [answer] * len(found)) if found else []
            rows += found
            if len(rows) >= _IMPORTED_AT_ONCE:
                self.store.write(keys[rows], parts)
                rows, parts = [], []
        if rows:
            self.store.write(keys[rows], parts)
        return Imported(**counts)

    def prepare(self, encoded: Encoded, progress: Progress | None = None) -> None:
        """Verify a few stored entries against the teacher, and capture the missing ones.

        Args:
            encoded: the data's own sequences.
            progress: called after every batch of the capture.

        Raises:
            Failure: a shard is damaged, or a stored entry differs from what the teacher gives.
        """
        keys = self.find(encoded)
        is_first = np.zeros(len(keys), dtype=bool)  # of the sequences with the same key
        is_first[np.unique(keys, return_index=True)[1]] = True
        stored = self.store.has(keys)
        check, missing = np.flatnonzero(is_first & _choose_few(stored)), np.flatnonzero(is_first & ~stored)
        self._verify(encoded.take(check), keys[check])
        self._capture(encoded.take(missing), keys[missing], progress or (lambda done, total: None))

    def find(self, encoded: Encoded) -> np.ndarray:
        """Look for the entries of sequences, also those that other processes have just captured; return keys, [n]."""
        keys = as_keys([encoded.key_of(i) for i in range(len(encoded))])
        self.store.want(keys)
        self.store.refresh()
        return keys

    def signal(self, batch: Batch) -> TeacherSignal:
        """Return the stored signal of a batch, row after row, on the batch's device."""
        self.cost.add(cached_positions=len(batch.target))
        return self.format.decode_signal(self.store.read(as_keys(batch.keys)), batch.input_ids.device)

    def read_probs(self, batch: Batch) -> KeptProbs:
        """Return the stored probabilities of a batch."""
        return self.format.decode_probs(self.store.read(as_keys(batch.keys)))

    def _capture(self, encoded: Encoded, keys: np.ndarray, progress: Progress) -> None:
        """Capture shard by shard until no entry is missing, whichever process wrote it."""
        missing = np.arange(len(keys))
        while len(missing):
            self._capture_shard(encoded, keys, missing, progress)
            self.store.refresh()
            missing = missing[~self.store.has(keys[missing])]

    def _capture_shard(self, encoded: Encoded, keys: np.ndarray, missing: np.ndarray, progress: Progress) -> None:
        """Capture some of the missing entries and write them, also where the next batch fails."""
        started, counts = time.monotonic(), encoded.response_tokens
        stored = int(counts.sum() - counts[missing].sum())
        rows: list[int] = []
        parts: list[bytes] = []
        try:
            for batch in self._plan_in_random_order(encoded, missing):
                parts += self.compute(encoded, keys, batch, "teacher_tokens")
                rows += batch.tolist()
                captured = int(counts[rows].sum())
                progress(stored + captured, int(counts.sum()))
                if captured >= _SHARD_POSITIONS or time.monotonic() - started >= _SHARD_S:
                    break
        finally:
            if rows:
                self.store.write(keys[rows], parts)

    def _plan_in_random_order(self, encoded: Encoded, rows: np.ndarray) -> list[np.ndarray]:
        """Return batches of these rows; processes that start together then seldom compute the same one at once."""
        batches = self.plan(encoded.lengths[rows])
        return [rows[batches[number]] for number in np.random.default_rng().permutation(len(batches))]

    def _verify(self, encoded: Encoded, keys: np.ndarray) -> None:
        """Compare stored entries with what the teacher gives now."""
        for rows in self.plan(encoded.lengths):
            parts = self.compute(encoded, keys, rows, "teacher_check_tokens")
            live = self.format.decode_probs([np.frombuffer(part, dtype=np.uint8) for part in parts])
            stored = self.format.decode_probs(self.store.read(keys[rows]))
            distance = stored.distance(live)
            if distance > self.format.tolerance(self._dtype):
                raise Failure(
                    f"teacher cache {self.store.folder} disagrees with {self.computed_by} (a probability is off by "
                    f"{distance:.3f}): delete that folder and run again"
                )


class CachedTeacher(StoredTeacher):
    """A stored teacher whose weights are on this machine.

    Args:
        load: loads the live teacher, for sequences that are not stored yet, for the spot check and to generate.
        weights_key: identifies its weights by content.
        make_format: makes the format for a number of shared vocabulary rows.
    """

    def __init__(self, load: Callable[[], LiveTeacher], weights_key: str, make_format: Callable[[int], SignalFormat]):
        self._load = load
        self._live: LiveTeacher | None = None
        self._capturing: BatchInvariantTeacher | None = None
        live, dtype = self.live, self.live.head.weight.dtype
        key = [weights_key, str(dtype), tokenizer_hash(live.tokenizer)]
        super().__init__(make_format(live.vocab_size), key, dtype)

    @property
    def live(self) -> LiveTeacher:
        """The live teacher, loaded again if it was released."""
        if self._live is None:
            self._live = self._load()
        return self._live

    @property
    def capturing(self) -> BatchInvariantTeacher:
        """The live teacher in the batches of a capture."""
        if self._capturing is None:
            self._capturing = BatchInvariantTeacher(self.live)
        return self._capturing

    @property
    def model(self) -> nn.Module:
        """The live teacher's model."""
        return self.live.model

    def pack_batches(self, padding_free: bool | None) -> None:
        """Choose whether the live teacher packs its batches."""
        self.live.pack_batches(padding_free)
        self._capturing = None

    def release(self) -> None:
        """Free the live teacher's memory; it is loaded again when it is needed."""
        self._live = self._capturing = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def plan(self, lengths: np.ndarray) -> list[np.ndarray]:
        """Return the batches of a capture."""
        return self.capturing.plan(lengths)

    def compute(self, encoded: Encoded, keys: np.ndarray, rows: np.ndarray, counter: str) -> list[bytes]:
        """Run the live teacher over one planned batch and return the entries of its sequences."""
        tokens, computed = int(encoded.lengths[rows].sum()), self.capturing.count_tokens(encoded.lengths[rows])
        self.cost.add(**{counter: tokens, "teacher_padding_tokens": computed - tokens})
        counts = encoded.response_tokens[rows].tolist()
        noise = self.format.draw_noise([bytes(key).hex() for key in keys[rows]], counts)
        encodings = [
            self.format.encode(logp, pad(draws, (0, 0, 0, len(logp) - len(draws))))
            for logp, draws in zip(self.capturing.compute_logp(encoded, rows), noise.split(POSITIONS), strict=True)
        ]
        columns = tuple(torch.cat(column)[: sum(counts)] for column in zip(*encodings, strict=True))
        return self.format.to_bytes(columns, counts)

    def generate(
        self, batch: Batch, rows: list[int], max_new_tokens: list[int], sampling: Sampling, generator: torch.Generator
    ) -> Completions:
        """Generate with the live teacher."""
        return self.live.generate(batch, rows, max_new_tokens, sampling, generator)


def _choose_few(stored: np.ndarray) -> np.ndarray:
    """Return a few runs of the stored entries (bool [n]), spread over the data, bool [n]."""
    indices = np.flatnonzero(stored)
    starts = np.linspace(0, max(0, len(indices) - _VERIFIED_RUN_LENGTH), _VERIFIED_RUNS).astype(int)
    chosen = np.zeros(len(stored), dtype=bool)
    for start in starts:
        chosen[indices[start : start + _VERIFIED_RUN_LENGTH]] = True
    return chosen
