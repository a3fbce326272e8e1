"""How far a batch of rows has been generated, whatever draws the tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from studykit.collate import pad
from studykit.generation.decoder import Decoder
from studykit.generation.peers import peers
from studykit.generation.vocabulary import Vocabulary


@dataclass
class Completions:
    """The generated answers, and what they cost.

    Attributes:
        tokens: token ids for each prompt, including the end token where it was reached.
        ended: whether each answer reached an end token.
        generated_tokens: number of tokens drawn from any model, including drafts that were rejected.
        scored_tokens: number of tokens that each model read, in the order of the models.
        verified_tokens: number of drafted tokens that were verified; 0 without drafts.
        accepted_tokens: number of verified tokens that were accepted.
    """

    tokens: list[list[int]]
    ended: list[bool]
    generated_tokens: int
    scored_tokens: list[int]
    verified_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def without_end(self) -> list[list[int]]:
        """The token ids of each answer without its end token, which is no part of the text."""
        return [ids[:-1] if ended else ids for ids, ended in zip(self.tokens, self.ended, strict=True)]


class DecodingState:
    """The rows of a batch while they are generated.

    All rows are read in lockstep, one column of tokens after the other, and are padded on the left only. Rows that
    have ended stay in the batch until `drop_ended`, masked. Of rows that are dealt out to processes, a state holds
    those of this one; where it has none, the first row stands in, which gets no token.

    Args:
        prompts: token ids of each row.
        max_new_tokens: maximum number of new tokens of each row.
        vocabulary: end tokens and padding.
        device: where the tensors are.

    Attributes:
        pending: int64 [B, n], the columns that no model has read yet: the prompts, and later each row's last token.
        mask: bool [B, L], whether a row has a token at each column; the pending ones are the last.
        active: bool [B], which rows of the batch have not ended.
        active_count: their number.
        remaining: int64 [B], number of tokens that each row may still get.
        in_batch: bool [R] on the CPU, which of all rows are in the batch.
        generated, verified, accepted: counters of tokens, to be increased by the caller.
    """

    def __init__(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: Sequence[int], vocabulary: Vocabulary, device: Any
    ):
        self._peers = peers()
        self._own = self._peers.own(range(len(prompts)))
        rows = self._own or range(1)
        pending, mask = pad_prompts([prompts[row] for row in rows], vocabulary.pad_token_id)
        self.pending, self.mask = pending.to(device), mask.to(device)
        self.remaining = torch.tensor([max_new_tokens[row] if self._own else 0 for row in rows], device=device)
        self.active = self.remaining > 0
        self.active_count = int(self.active.sum())
        self.in_batch = torch.zeros(len(prompts), dtype=torch.bool).index_fill(0, torch.tensor(rows), True)
        self.generated = self.verified = self.accepted = 0
        self._eos_token_ids = torch.tensor(vocabulary.eos_token_ids, device=device)
        self._scored: list[int] | None = None
        self._appended: list[tuple[Tensor, Tensor, Tensor]] = []

    def count_fitting(self, tokens: Tensor, counts: Tensor | int) -> Tensor:
        """Return how many of its first `counts` tokens [B, n] each row can append, int64 [B].

        A row stops after its first end token and at its maximum; a row that has ended appends nothing.
        """
        ends = torch.isin(tokens, self._eos_token_ids)
        to_end = (ends.cumsum(dim=1) - ends.long() == 0).sum(dim=1)
        return torch.minimum(to_end, self.remaining).clamp(max=counts) * self.active

    def append(self, tokens: Tensor, counts: Tensor | int) -> Tensor:
        """Append the first `counts` tokens [B, n], as far as they fit, and return how many each row got, int64 [B].

        The last token of each row is pending afterwards.
        """
        appended = self.count_fitting(tokens, counts)
        self.pending = tokens.gather(1, (appended - 1).clamp(min=0)[:, None])
        self._appended.append((self.in_batch, tokens, appended))
        self.remaining = self.remaining - appended
        self.active = self.active & ~torch.isin(self.pending[:, 0], self._eos_token_ids) & (self.remaining > 0)
        self.active_count = int(self.active.sum())
        return appended

    def extend_mask(self) -> None:
        """Add the column of the pending tokens: rows that have ended have none there."""
        self.mask = torch.cat([self.mask, self.active[:, None]], dim=1)

    def goes_on(self, decoders: Sequence[Decoder]) -> bool:
        """Whether a row has not ended, in whichever process; all of them ask at the same time."""
        if not self.active_count and self._scored is None:  # what is read while others go on does not count
            self._scored = [decoder.tokens_read if self._own else 0 for decoder in decoders]
        return self._peers.any(self.active_count > 0)

    def is_any(self, rows: Tensor) -> bool:
        """Whether it is so of any row, in whichever process; all of them ask at the same time."""
        return self._peers.any(bool(rows.any()))

    @property
    def half_ended(self) -> bool:
        """Whether at least half of the rows in the batch have ended, and some have not."""
        return 0 < 2 * self.active_count <= len(self.active)

    def drop_ended(self, decoders: Sequence[Decoder]) -> None:
        """Leave ended rows out of the batch, and the first columns if they are padding in all other rows.

        Every row that was there at the beginning still gets its random number at every draw, so that the answers do
        not depend on when rows are dropped.
        """
        rows = self.active.nonzero()[:, 0]
        positions = self.in_batch.nonzero()[:, 0][self.active.cpu()]
        self.in_batch = torch.zeros_like(self.in_batch).index_fill(0, positions, True)
        self.remaining, self.active, self.pending = self.remaining[rows], self.active[rows], self.pending[rows]
        mask = self.mask[rows]
        first_column = int(mask.any(dim=0).int().argmax())
        self.mask = mask[:, first_column:]
        for decoder in decoders:
            decoder.select(rows, first_column)

    def completions(self) -> Completions:
        """Return the answers once all have ended, those of all processes."""
        rows: list[list[int]] = [[] for _ in self.in_batch]
        for in_batch, tokens, counts in self._appended:
            positions = in_batch.nonzero()[:, 0].tolist()
            for row, new, count in zip(positions, tokens.tolist(), counts.tolist(), strict=True):
                rows[row].extend(new[:count])
        parts = self._peers.gather((rows, self.generated, self._scored, self.verified, self.accepted))
        rows = [parts[row % len(parts)][0][row] for row in range(len(rows))]
        eos_token_ids = set(self._eos_token_ids.tolist())
        ended = [bool(row) and row[-1] in eos_token_ids for row in rows]
        generated, scores, verified, accepted = zip(*(counts for _, *counts in parts), strict=True)
        return Completions(
            rows, ended, sum(generated), list(map(sum, zip(*scores, strict=True))), sum(verified), sum(accepted)
        )


def pad_prompts(prompts: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Return prompts as token ids and mask, int64 and bool [B, T], padded on the left so that all end together."""
    mask = pad([[True] * len(prompt) for prompt in prompts], False, left=True, dtype=torch.bool)
    return pad(prompts, pad_token_id, left=True), mask
