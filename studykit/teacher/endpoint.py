"""A teacher that a server computes: only its stored distributions are known here, and no weights are loaded.

The server gets the sequences that the cache does not hold yet, and for a few of those that it holds, to see
that it is still the same model. A server that is gone is no fault where the cache is complete. An entry's key is the
name of the model on the server and the content of the tokenizer, since the server does not tell its weights.
"""

import hashlib
import json
import logging
from typing import Any

import numpy as np
import torch

from studykit.chat import Encoded, tokenizer_hash
from studykit.collate import Batch
from studykit.errors import InputError
from studykit.generation import Completions, Sampling
from studykit.spec import Endpoint
from studykit.teacher.cached import StoredTeacher
from studykit.teacher.completions import CompletionsClient, Unreachable
from studykit.teacher.formats import TopK
from studykit.teacher.live import Progress

_LOG = logging.getLogger(__name__)
_ROUNDS = 4
"""Requests of a batch, as a multiple of those at the same time."""


def endpoint_hash(endpoint: Endpoint, tokenizer: Any) -> str:
    """Return the sha256 of what is known of a server's model: its name, and the tokenizer of its requests."""
    return hashlib.sha256(json.dumps([endpoint.model, tokenizer_hash(tokenizer)]).encode()).hexdigest()


class EndpointTeacher(StoredTeacher):
    """A stored teacher whose weights are elsewhere.

    Args:
        endpoint: the server.
        tokenizer: whose ids it reads, which are the student's too.
        form: the tokens that are kept, as many as the server returns.
    """

    model = None

    def __init__(self, endpoint: Endpoint, tokenizer: Any, form: TopK):
        key = [f"endpoint {endpoint.model}", "as the server computes", tokenizer_hash(tokenizer)]
        super().__init__(form, key, torch.bfloat16)  # which servers compute in, for the tolerance
        self.endpoint, self.tokenizer, self._k, self.position_bytes = endpoint, tokenizer, form.k, form.position_bytes
        self.computed_by = f"{endpoint.model!r} at {endpoint.url}"
        self._client: CompletionsClient | None = None

    def is_reachable(self, encoded: Encoded) -> bool:
        """Whether a server is there.

        Args:
            encoded: sequences that it is to read.
        """
        try:
            return self.endpoint.url is not None and self._open(encoded) is not None
        except Unreachable:
            return False

    def pack_batches(self, padding_free: bool | None) -> None:
        """Do nothing: the server makes its batches."""

    def release(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
        self._client = None

    def prepare(self, encoded: Encoded, progress: Progress | None = None) -> None:
        """Have the server compute what is missing, and a few stored entries again.

        Raises:
            Failure: a stored entry is damaged or differs, or the server fails for longer than requests are repeated.
            InputError: the server is not there, does not have the model, or is not named.
        """
        try:
            super().prepare(encoded, progress)
        finally:
            self.release()

    def plan(self, lengths: np.ndarray) -> list[np.ndarray]:
        """Return the sequences in the parts that are requested and written together."""
        size = _ROUNDS * self.endpoint.requests
        return np.split(np.arange(len(lengths)), range(size, len(lengths), size)) if len(lengths) else []

    def compute(self, encoded: Encoded, keys: np.ndarray, rows: np.ndarray, counter: str) -> list[bytes]:
        """Ask the server for some sequences, and return their entries."""
        answers = self._open(encoded).ask([encoded.ids_of(row).tolist() for row in rows.tolist()], self._k)
        self.cost.add(**{counter: int(encoded.lengths[rows].sum())})
        return self.entries_of(encoded, rows, answers)

    def generate(
        self, batch: Batch, rows: list[int], max_new_tokens: list[int], sampling: Sampling, generator: torch.Generator
    ) -> Completions:
        """Refuse: a server gives distributions only.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{self.computed_by} gives distributions and generates nothing: take a teacher without endpoint"
        )

    def _capture(self, encoded: Encoded, keys: np.ndarray, progress: Progress) -> None:
        if len(keys) and self.endpoint.url is None:
            raise InputError(
                f"{len(keys):,} sequences of the data are not in the cache of {self.endpoint.model!r}, and no server "
                "is named: give endpoint.url, or all answers to studykit cache --import"
            )
        super()._capture(encoded, keys, progress)

    def _verify(self, encoded: Encoded, keys: np.ndarray) -> None:
        if not len(keys) or self.endpoint.url is None:
            return
        try:
            super()._verify(encoded, keys)
        except Unreachable as fault:
            _LOG.warning("the stored answers of %r are used unchecked: %s", self.endpoint.model, fault)

    def _open(self, encoded: Encoded) -> CompletionsClient:
        """Return the client of the server, which is checked before its first request."""
        if self._client is None:
            client = CompletionsClient(self.endpoint)
            try:
                client.check(self.tokenizer, encoded.ids_of(int(np.argmax(encoded.lengths))).tolist())
            except BaseException:
                client.close()
                raise
            self._client = client
        return self._client
