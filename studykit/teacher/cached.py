"""A teacher asked once: what is kept of its answers on disk, shared by every run that trains on the same sequences.

An entry is keyed by the teacher's weights, the tokenizer, the form of what is kept and the token ids of the sequence,
so that every nested budget, student, loss, temperature and seed of a study finds it. Entries lie in shards that are
written once and never changed:

    <cache>/teacher/<key of teacher, tokenizer and form>/<sha256 of the shard>.safetensors

Several processes may capture at once; a sequence that two of them captured is there twice and does no harm. What a
killed process had finished stays. A shard that no longer matches its name is refused.
"""

import hashlib
import json

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save

from studykit.batches import Batch
from studykit.caching import cache_folder, replacing
from studykit.chat import tokenizer_hash
from studykit.generation import Answers, Sampling
from studykit.teacher.forms import Entry, Form
from studykit.teacher.online import OnlineTeacher
from studykit.teacher.signal import TeacherSignal

_SHARD_TOKENS = 2**18
_CHUNK_BYTES = 256 * 2**20
"""Memory aimed at for the full distributions of one chunk of positions, before they are folded."""

_VERIFIED_BATCHES, _VERIFIED_ROWS = 4, 8


class CachedTeacher:
    """A teacher whose answers on the data's own sequences are captured once, in one form or another.

    Args:
        online: the live teacher, asked for sequences that are not there yet and for a spot check.
        content: what its weights are, by content.
        form: what is kept of a distribution.
    """

    def __init__(self, online: OnlineTeacher, content: str, form: Form):
        self.online, self.form = online, form
        self.model = online.model
        self.vocabulary = online.vocabulary
        self.cost: dict[str, float] = {"teacher_tokens": 0, "teacher_check_tokens": 0, "cached_positions": 0}
        key = json.dumps([2, content, tokenizer_hash(online.tokenizer), *form.key, self.vocabulary])
        self.folder = cache_folder("teacher") / hashlib.sha256(key.encode()).hexdigest()[:32]
        self.folder.mkdir(exist_ok=True)
        self._entries: dict[str, Entry] = {}

    def prepare(self, batches: list[Batch]) -> None:
        """Capture what is missing, and compare a few of the entries that were found with the live teacher.

        Raises:
            RuntimeError: a shard is damaged, or a stored answer differs from the live one.
        """
        self._load_shards({key for batch in batches for key in batch.keys})
        found: list[Batch] = []
        missing: list[Batch] = []
        held = 0
        for batch in batches:
            if all(key in self._entries for key in batch.keys):
                found.append(batch)
                continue
            missing.append(batch)
            held += int(batch.supervised.sum())
            if held >= _SHARD_TOKENS:
                self._capture(missing)
                missing, held = [], 0
        if missing:
            self._capture(missing)
        self._verify(found)

    def signal(self, batch: Batch) -> TeacherSignal:
        """Return the stored answers of a batch, row after row."""
        entries = self.entries(batch)
        self.cost["cached_positions"] += len(batch.target)
        return self.form.signal(entries).to(batch.input_ids.device)

    def entries(self, batch: Batch) -> list[Entry]:
        """Return what is stored of each row of a batch."""
        return [self._entries[key] for key in batch.keys]

    def answer(
        self, batch: Batch, rows: list[int], limits: list[int], sampling: Sampling, generator: torch.Generator
    ) -> Answers:
        """Generate with the live teacher."""
        return self.online.answer(batch, rows, limits, sampling, generator)

    def _capture(self, batches: list[Batch]) -> None:
        """Ask the live teacher and put one shard in place."""
        keys: list[str] = []
        counts: list[int] = []
        parts: list[Entry] = []
        for batch in batches:
            parts.append(self._ask(batch))
            keys += batch.keys
            counts += batch.supervised[:, 1:].sum(dim=1).tolist()
        tensors = tuple(torch.cat(part) for part in zip(*parts, strict=True))
        named = dict(zip(self.form.names, tensors, strict=True))
        content = save(named, metadata={"keys": json.dumps(keys), "counts": json.dumps(counts)})
        with replacing(self.folder / f"{hashlib.sha256(content).hexdigest()[:32]}.safetensors") as temporary:
            temporary.write_bytes(content)
        self._entries.update(zip(keys, self.form.split(tensors, counts), strict=True))

    def _ask(self, batch: Batch, counter: str = "teacher_tokens") -> Entry:
        """Return what is kept of the live teacher's answers, a chunk of rows at a time."""
        signal, target = self.online.signal(batch), batch.target
        self.cost[counter] += int(batch.attention_mask.sum())
        noise = self.form.noise(batch.keys, batch.supervised[:, 1:].sum(dim=1).tolist())
        size = max(1, _CHUNK_BYTES // (4 * self.vocabulary))
        chunks = [slice(start, start + size) for start in range(0, max(1, len(target)), size)]
        parts = [self.form.keep(self._logp(signal, target, rows), noise[rows]) for rows in chunks]
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    def _logp(self, signal: TeacherSignal, target: torch.Tensor, rows: slice) -> torch.Tensor:
        zeros = torch.zeros(len(target[rows]), self.vocabulary, device=target.device)
        return signal.inputs(rows, zeros, target[rows], 1.0)[1]

    def _load_shards(self, wanted: set[str]) -> None:
        """Keep the wanted entries of every shard in memory, and no others."""
        for file in sorted(self.folder.glob("*.safetensors")):
            if file.name.startswith("."):
                continue
            with file.open("rb") as stream:
                if not hashlib.file_digest(stream, "sha256").hexdigest().startswith(file.stem):
                    raise RuntimeError(
                        f"teacher cache: {file} is damaged (its content does not match its name): delete that file, "
                        "and what it held is captured again"
                    )
            with safe_open(file, framework="pt") as shard:
                notes = shard.metadata()
                tensors = tuple(shard.get_tensor(name) for name in self.form.names)
            entries = self.form.split(tensors, json.loads(notes["counts"]))
            for key, entry in zip(json.loads(notes["keys"]), entries, strict=True):
                if key in wanted:
                    self._entries[key] = tuple(part.clone() for part in entry)

    def _verify(self, batches: list[Batch]) -> None:
        """Ask the live teacher again for a few rows of a few batches, spread over the data."""
        chosen = np.unique(np.linspace(0, len(batches) - 1, _VERIFIED_BATCHES).astype(int)) if batches else []
        for batch in (_first_rows(batches[i], _VERIFIED_ROWS) for i in chosen):
            counts = batch.supervised[:, 1:].sum(dim=1).tolist()
            live = self.form.shares(self.form.split(self._ask(batch, "teacher_check_tokens"), counts))
            stored = self.form.shares(self.entries(batch))
            off = (live - stored).abs().max().item() if live.shape == stored.shape else 1.0
            if off > self.form.tolerance:
                raise RuntimeError(
                    f"teacher cache {self.folder} disagrees with the live teacher (a probability is off by {off:.3f}): "
                    "delete that folder and run again"
                )


def _first_rows(batch: Batch, count: int) -> Batch:
    ids, mask, supervised = (part[:count] for part in (batch.input_ids, batch.attention_mask, batch.supervised))
    return Batch(ids, mask, supervised, batch.keys[:count])
