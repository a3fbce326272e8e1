"""A teacher asked once: what is kept of its answers on disk, shared by every run that trains on the same sequences.

An entry is keyed by the teacher's weights, the tokenizer, the form of what is kept and the token ids of the sequence,
so that every nested budget, student, loss, temperature and seed of a study finds it. It does not depend on the
sequences it was asked with: a study redone with an empty cache gets the same bits. Entries lie in a `Store`:

    <cache>/teacher/<key of teacher, tokenizer and form>/<sha256 of the shard>.safetensors

Several processes may capture at once and share the work: each goes through it in an order of its own, writes a shard
about once a minute, and then skips what others have written. What a killed process had written stays.
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
from studykit.teacher.batch_invariant import POSITIONS, BatchInvariantTeacher
from studykit.teacher.formats import KeptProbs, SignalFormat
from studykit.teacher.live import LiveTeacher
from studykit.teacher.signal import TeacherSignal
from studykit.teacher.store import Store, as_keys

_VERSION = 3
_SHARD_POSITIONS, _SHARD_S = 2**20, 60.0
_VERIFIED_BATCHES, _VERIFIED_ROWS = 4, 8


class CachedTeacher:
    """A teacher whose answers on the data's own sequences are captured once, in one form or another.

    Args:
        load: gives the live teacher, asked for sequences that are not there yet and for a spot check.
        content: what its weights are, by content.
        form: what is kept of a distribution, given how many rows of the vocabulary are compared.
    """

    def __init__(self, load: Callable[[], LiveTeacher], content: str, form: Callable[[int], SignalFormat]):
        self._load = load
        self._online: LiveTeacher | None = None
        online = self.online
        self.vocab_size = online.vocab_size
        self.form = form(online.vocab_size)
        self.cost: dict[str, float] = {"teacher_tokens": 0, "teacher_check_tokens": 0, "cached_positions": 0}
        self._dtype = online.head.weight.dtype
        about = [_VERSION, content, str(self._dtype), tokenizer_hash(online.tokenizer), *self.form.key, self.vocab_size]
        key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
        self.store = Store(cache_folder("teacher") / key)

    @property
    def online(self) -> LiveTeacher:
        """The live teacher, loaded again where it was released."""
        if self._online is None:
            self._online = self._load()
        return self._online

    @property
    def model(self) -> nn.Module:
        """The live teacher's model."""
        return self.online.model

    def release(self) -> None:
        """Let go of the live teacher's memory until it is asked again."""
        self._online = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def prepare(self, encoded: Encoded, watch: Callable[[int, int], None] | None = None) -> None:
        """Compare a few of the entries that are there with the live teacher, and capture what is missing.

        Args:
            encoded: the data's own sequences.
            watch: told how many of the missing positions are captured, and how many were missing.

        Raises:
            Failure: a shard is damaged, or a stored answer differs from the live one.
        """
        keys = as_keys([encoded.key_of(i) for i in range(len(encoded))])
        self.store.want(keys)
        self.store.refresh()
        once = np.zeros(len(keys), dtype=bool)
        once[np.unique(keys, return_index=True)[1]] = True
        found = self.store.has(keys)
        few, missing = (np.flatnonzero(chosen) for chosen in (once & _spread(found), once & ~found))
        self._verify(encoded.take(few), keys[few])
        self._capture(encoded.take(missing), keys[missing], watch or (lambda done, total: None))

    def signal(self, batch: Batch) -> TeacherSignal:
        """Return the stored answers of a batch, row after row, on its device."""
        self.cost["cached_positions"] += len(batch.target)
        return self.form.signal(self.store.read(as_keys(batch.keys)), batch.input_ids.device)

    def shares(self, batch: Batch) -> KeptProbs:
        """Return the stored probabilities of a batch."""
        return self.form.shares(self.store.read(as_keys(batch.keys)))

    def generate(
        self, batch: Batch, rows: list[int], max_new_tokens: list[int], sampling: Sampling, generator: torch.Generator
    ) -> Completions:
        """Generate with the live teacher."""
        return self.online.generate(batch, rows, max_new_tokens, sampling, generator)

    def _capture(self, encoded: Encoded, keys: np.ndarray, watch: Callable[[int, int], None]) -> None:
        """Ask the live teacher shard by shard until nothing is missing, whoever wrote it."""
        lengths, counts = encoded.lengths, encoded.response_tokens
        left = np.arange(len(keys))
        while len(left):
            started, asked, parts = time.monotonic(), [], []
            before = int(counts.sum() - counts[left].sum())
            planned = BatchInvariantTeacher(self.online).plan(lengths[left])
            # At random, so that processes which started together seldom do the same at the same time.
            for number in np.random.default_rng().permutation(len(planned)):
                asked.append(left[planned[number]])
                parts += self._ask(encoded, keys, asked[-1], "teacher_tokens")
                done = int(counts[np.concatenate(asked)].sum())
                watch(before + done, int(counts.sum()))
                if done >= _SHARD_POSITIONS or time.monotonic() - started >= _SHARD_S:
                    break
            self.store.write(keys[np.concatenate(asked)], parts)
            self.store.refresh()
            left = left[~self.store.has(keys[left])]

    def _ask(self, encoded: Encoded, keys: np.ndarray, rows: np.ndarray, counter: str) -> list[bytes]:
        """Return what is kept of the live teacher's answers on the sequences of one planned batch."""
        self.cost[counter] += int(encoded.lengths[rows].sum())
        counts = encoded.response_tokens[rows].tolist()
        noise = self.form.noise([bytes(key).hex() for key in keys[rows]], counts)
        asked = BatchInvariantTeacher(self.online).logp(encoded, rows)
        parts = [
            self.form.keep(logp, pad(draws, (0, 0, 0, POSITIONS - len(draws))))
            for logp, draws in zip(asked, noise.split(POSITIONS), strict=True)
        ]
        return self.form.pack(tuple(torch.cat(part)[: sum(counts)] for part in zip(*parts, strict=True)), counts)

    def _verify(self, encoded: Encoded, keys: np.ndarray) -> None:
        """Ask the live teacher again, and compare."""
        for rows in BatchInvariantTeacher(self.online).plan(encoded.lengths):
            asked = self._ask(encoded, keys, rows, "teacher_check_tokens")
            live = self.form.shares([np.frombuffer(part, dtype=np.uint8) for part in asked])
            stored = self.form.shares(self.store.read(keys[rows]))
            off = stored.distance(live)
            if off > self.form.tolerance(self._dtype):
                raise Failure(
                    f"teacher cache {self.store.folder} disagrees with the live teacher (a probability is off by "
                    f"{off:.3f}): delete that folder and run again"
                )


def _spread(found: np.ndarray) -> np.ndarray:
    """Choose a few runs of what was found (bool [n]), spread over the data, bool [n]."""
    places = np.flatnonzero(found)
    starts = np.linspace(0, max(0, len(places) - _VERIFIED_ROWS), _VERIFIED_BATCHES).astype(int)
    chosen = np.zeros(len(found), dtype=bool)
    for start in starts:
        chosen[places[start : start + _VERIFIED_ROWS]] = True
    return chosen
