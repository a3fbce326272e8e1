"""A teacher asked once: its top-k log-probabilities on disk, shared by every run that trains on the same sequences.

An entry is keyed by the teacher's weights, the tokenizer, k and the token ids of the sequence, so that every nested
budget, student, loss, temperature and seed of a study finds it. Entries lie in shards that are written once and never
changed:

    <cache>/teacher/<key of teacher, tokenizer and k>/<sha256 of the shard>.safetensors

Several processes may capture at once; a sequence that two of them captured is there twice and does no harm. What a
killed process had finished stays. A shard that no longer matches its name is refused.
"""

import hashlib
import json
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save

from studykit.caching import cache_folder, replacing
from studykit.chat import tokenizer_hash
from studykit.losses import LOG_FLOOR
from studykit.teacher import Batch
from studykit.teacher.online import OnlineTeacher
from studykit.teacher.signal import TeacherSignal

_SHARD_TOKENS = 2**18
_CHUNK_BYTES = 256 * 2**20
"""Memory aimed at for the full distributions of one chunk of positions, before they are folded."""

_VERIFIED_BATCHES, _VERIFIED_ROWS = 4, 8
_HALF_FLOOR = -6e4
"""Stands for log 0 in float16."""

TOLERANCE = 0.02
"""How far a stored probability may lie from the live teacher's, whose sums depend a little on the batch."""


class CachedTeacher:
    """A teacher whose answers are captured once, folded to its k likeliest tokens and a tail.

    Args:
        online: the live teacher, asked for sequences that are not there yet and for a spot check.
        content: hash of the teacher's weights.
        tokenizer: the teacher's tokenizer.
        top_k: tokens kept per position.
    """

    def __init__(self, online: OnlineTeacher, content: str, tokenizer: Any, top_k: int):
        self.online = online
        self.vocabulary = online.vocabulary
        self.top_k = min(top_k, self.vocabulary)
        self.cost: dict[str, float] = {"teacher_tokens": 0, "teacher_check_tokens": 0, "cached_positions": 0}
        key = json.dumps([2, content, tokenizer_hash(tokenizer), self.top_k, self.vocabulary])
        self.folder = cache_folder("teacher") / hashlib.sha256(key.encode()).hexdigest()[:32]
        self.folder.mkdir(exist_ok=True)
        self._entries: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

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
        entries = [self._entries[key] for key in batch.keys]
        ids, logp = (torch.cat(parts) for parts in zip(*entries, strict=True))
        self.cost["cached_positions"] += len(ids)
        logp = logp.float().masked_fill(logp <= _HALF_FLOOR, LOG_FLOOR)
        return TeacherSignal.from_top_k(ids, logp[:, :-1], logp[:, -1:]).to(batch.input_ids.device)

    def _capture(self, batches: list[Batch]) -> None:
        """Ask the live teacher and put one shard in place."""
        keys: list[str] = []
        counts: list[int] = []
        ids, logp = [], []
        for batch in batches:
            top = self._top_k(batch)
            ids.append(top[0])
            logp.append(top[1])
            keys += batch.keys
            counts += batch.supervised[:, 1:].sum(dim=1).tolist()
        tensors = {"ids": torch.cat(ids), "logp": torch.cat(logp)}
        content = save(tensors, metadata={"keys": json.dumps(keys), "counts": json.dumps(counts)})
        with replacing(self.folder / f"{hashlib.sha256(content).hexdigest()[:32]}.safetensors") as temporary:
            temporary.write_bytes(content)
        self._entries.update(self._rows(keys, counts, tensors["ids"], tensors["logp"]))

    def _top_k(self, batch: Batch, counter: str = "teacher_tokens") -> tuple[torch.Tensor, torch.Tensor]:
        """Return the likeliest ids [N, K] and their log-probabilities with the tail's behind them, [N, K + 1]."""
        signal, target = self.online.signal(batch), batch.target
        self.cost[counter] += int(batch.attention_mask.sum())
        rows = max(1, _CHUNK_BYTES // (4 * self.vocabulary))
        parts = [self._folded(signal, target, slice(i, i + rows)) for i in range(0, max(1, len(target)), rows)]
        ids, logp = (torch.cat(part) for part in zip(*parts, strict=True))
        return ids, logp

    def _folded(self, signal: TeacherSignal, target: torch.Tensor, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        zeros = torch.zeros(len(target[rows]), self.vocabulary, device=target.device)
        _, teacher_logp, _ = signal.inputs(rows, zeros, target[rows], 1.0)
        logp, ids = teacher_logp.topk(self.top_k, dim=-1)
        # What float16 leaves of 1 is noise where the tail is small: it is summed here and kept.
        tail = teacher_logp.scatter(1, ids, -torch.inf).logsumexp(dim=-1, keepdim=True)
        id_type = torch.int16 if self.vocabulary < 2**15 else torch.int32
        return ids.to(id_type).cpu(), torch.cat([logp, tail], dim=-1).clamp(min=_HALF_FLOOR).half().cpu()

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
                tensors = shard.get_tensor("ids"), shard.get_tensor("logp")
            for key, entry in self._rows(json.loads(notes["keys"]), json.loads(notes["counts"]), *tensors):
                if key in wanted:
                    self._entries[key] = (entry[0].clone(), entry[1].clone())

    def _rows(self, keys: list[str], counts: list[int], ids: torch.Tensor, logp: torch.Tensor):
        """Cut a shard into its entries: key, and token ids with log-probabilities."""
        return zip(keys, zip(ids.split(counts), logp.split(counts), strict=True), strict=True)

    def _verify(self, batches: list[Batch]) -> None:
        """Ask the live teacher again for a few rows of a few batches, spread over the data."""
        chosen = np.unique(np.linspace(0, len(batches) - 1, _VERIFIED_BATCHES).astype(int)) if batches else []
        for batch in (_first_rows(batches[i], _VERIFIED_ROWS) for i in chosen):
            live = self._by_token(*self._top_k(batch, "teacher_check_tokens"))
            ids, logp = (torch.cat(parts) for parts in zip(*(self._entries[key] for key in batch.keys), strict=True))
            stored = self._by_token(ids, logp)
            off = (live - stored).abs().max().item() if live.shape == stored.shape else 1.0
            if off > TOLERANCE:
                raise RuntimeError(
                    f"teacher cache {self.folder} disagrees with the live teacher (a probability is off by {off:.3f}): "
                    "delete that folder and run again"
                )

    def _by_token(self, ids: torch.Tensor, logp: torch.Tensor) -> torch.Tensor:
        """Return probabilities by token id, the tail's behind them, [N, V + 1]: what two answers are compared in."""
        spread = torch.zeros(len(ids), self.vocabulary + 1)
        spread.scatter_(1, ids.long(), logp[:, :-1].float().exp())
        spread[:, -1] = logp[:, -1].float().exp()
        return spread


def _first_rows(batch: Batch, count: int) -> Batch:
    ids, mask, supervised = (part[:count] for part in (batch.input_ids, batch.attention_mask, batch.supervised))
    return Batch(ids, mask, supervised, batch.keys[:count])
