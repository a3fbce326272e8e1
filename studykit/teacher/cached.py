"""A cached teacher: its distributions are computed once and stored on disk, for every run that trains on the sequences.

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
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn.functional import pad

from studykit.chat import Encoded, tokenizer_hash
from studykit.collate import Batch
from studykit.errors import Failure
from studykit.files import cache_folder
from studykit.generation import Completions, Sampling
from studykit.generation.cost import Cost
from studykit.teacher.batch_invariant import POSITIONS, BatchInvariantTeacher
from studykit.teacher.formats import KeptProbs, SignalFormat
from studykit.teacher.live import LiveTeacher, Progress
from studykit.teacher.signal import TeacherSignal
from studykit.teacher.store import Store, as_keys

_VERSION = 4
_SHARD_POSITIONS, _SHARD_S = 2**20, 60.0
"""A shard is written after this many positions or seconds, whichever comes first."""

_VERIFIED_RUNS, _VERIFIED_RUN_LENGTH = 4, 8


class CachedTeacher:
    """A teacher whose distributions over the data's sequences are captured once, in a given format.

    Args:
        load: loads the live teacher, for sequences that are not stored yet, for the spot check and to generate.
        weights_key: identifies its weights by content.
        make_format: makes the format for a number of shared vocabulary rows.
    """

    def __init__(self, load: Callable[[], LiveTeacher], weights_key: str, make_format: Callable[[int], SignalFormat]):
        self._load = load
        self._live: LiveTeacher | None = None
        self._capturing: BatchInvariantTeacher | None = None
        live = self.live
        self.vocab_size = live.vocab_size
        self.format = make_format(live.vocab_size)
        self.cost = Cost(teacher_tokens=0, teacher_padding_tokens=0, teacher_check_tokens=0, cached_positions=0)
        self._dtype = live.head.weight.dtype
        tokenizer = tokenizer_hash(live.tokenizer)
        identity = [_VERSION, weights_key, str(self._dtype), tokenizer, *self.format.key, self.vocab_size]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        self.store = Store(cache_folder("teacher") / key)

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

    def prepare(self, encoded: Encoded, progress: Progress | None = None) -> None:
        """Verify a few stored entries against the live teacher, and capture the missing ones.

        Args:
            encoded: the data's own sequences.
            progress: called after every batch of the capture.

        Raises:
            Failure: a shard is damaged, or a stored entry differs from the live teacher.
        """
        keys = as_keys([encoded.key_of(i) for i in range(len(encoded))])
        self.store.want(keys)
        self.store.refresh()
        is_first = np.zeros(len(keys), dtype=bool)  # of the sequences with the same key
        is_first[np.unique(keys, return_index=True)[1]] = True
        stored = self.store.has(keys)
        check, missing = np.flatnonzero(is_first & _choose_few(stored)), np.flatnonzero(is_first & ~stored)
        self._verify(encoded.take(check), keys[check])
        self._capture(encoded.take(missing), keys[missing], progress or (lambda done, total: None))

    def signal(self, batch: Batch) -> TeacherSignal:
        """Return the stored signal of a batch, row after row, on the batch's device."""
        self.cost.add(cached_positions=len(batch.target))
        return self.format.decode_signal(self.store.read(as_keys(batch.keys)), batch.input_ids.device)

    def read_probs(self, batch: Batch) -> KeptProbs:
        """Return the stored probabilities of a batch."""
        return self.format.decode_probs(self.store.read(as_keys(batch.keys)))

    def generate(
        self, batch: Batch, rows: list[int], max_new_tokens: list[int], sampling: Sampling, generator: torch.Generator
    ) -> Completions:
        """Generate with the live teacher."""
        return self.live.generate(batch, rows, max_new_tokens, sampling, generator)

    def _capture(self, encoded: Encoded, keys: np.ndarray, progress: Progress) -> None:
        """Capture shard by shard until no entry is missing, whichever process wrote it."""
        counts = encoded.response_tokens
        missing = np.arange(len(keys))
        while len(missing):
            started = time.monotonic()
            stored = int(counts.sum() - counts[missing].sum())
            rows: list[int] = []
            parts: list[bytes] = []
            for batch in self._plan_in_random_order(encoded, missing):
                rows += batch.tolist()
                parts += self._encode(encoded, keys, batch, "teacher_tokens")
                captured = int(counts[rows].sum())
                progress(stored + captured, int(counts.sum()))
                if captured >= _SHARD_POSITIONS or time.monotonic() - started >= _SHARD_S:
                    break
            self.store.write(keys[rows], parts)
            self.store.refresh()
            missing = missing[~self.store.has(keys[missing])]

    def _plan_in_random_order(self, encoded: Encoded, rows: np.ndarray) -> list[np.ndarray]:
        """Return batches of these rows; processes that start together then seldom compute the same one at once."""
        batches = self.capturing.plan(encoded.lengths[rows])
        return [rows[batches[number]] for number in np.random.default_rng().permutation(len(batches))]

    def _encode(self, encoded: Encoded, keys: np.ndarray, rows: np.ndarray, counter: str) -> list[bytes]:
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

    def _verify(self, encoded: Encoded, keys: np.ndarray) -> None:
        """Compare stored entries with the live teacher."""
        for rows in self.capturing.plan(encoded.lengths):
            parts = self._encode(encoded, keys, rows, "teacher_check_tokens")
            live = self.format.decode_probs([np.frombuffer(part, dtype=np.uint8) for part in parts])
            stored = self.format.decode_probs(self.store.read(keys[rows]))
            distance = stored.distance(live)
            if distance > self.format.tolerance(self._dtype):
                raise Failure(
                    f"teacher cache {self.store.folder} disagrees with the live teacher (a probability is off by "
                    f"{distance:.3f}): delete that folder and run again"
                )


def _choose_few(stored: np.ndarray) -> np.ndarray:
    """Return a few runs of the stored entries (bool [n]), spread over the data, bool [n]."""
    indices = np.flatnonzero(stored)
    starts = np.linspace(0, max(0, len(indices) - _VERIFIED_RUN_LENGTH), _VERIFIED_RUNS).astype(int)
    chosen = np.zeros(len(stored), dtype=bool)
    for start in starts:
        chosen[indices[start : start + _VERIFIED_RUN_LENGTH]] = True
    return chosen
