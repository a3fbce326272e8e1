"""Completions that a student drafts and a teacher checks: speculative knowledge distillation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from studykit.errors import InputError
from studykit.generation.decoder import Completions, Decoder, DecodingState, drop_ended_rows, pad_left
from studykit.generation.sampling import Sampling


@torch.no_grad()
def draft_and_verify(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: Sequence[int],
    generator: torch.Generator,
    *,
    top_k: int,
    draft_tokens: int,
    student_sampling: Sampling,
    teacher_sampling: Sampling,
    eos_token_ids: Sequence[int],
    pad_token_id: int,
    vocab_size: int,
) -> tuple[Completions, int, int]:
    """Let the student draft a few tokens at a time and the teacher replace the first that it finds too unlikely.

    A drafted token is accepted while it is among the teacher's `top_k` at its place; at the first that is not, the
    rest of the draft is dropped and that token is drawn from the teacher. Both read every accepted token once.

    Returns:
        The answers, the number of drafted tokens that were checked, and of those that were accepted. Tokens drafted
        behind a rejection or an end are not checked.

    Raises:
        InputError: a model keeps a recurrent state, from which rejected tokens cannot be taken back.

    Source:
        Xu et al. (2025), Speculative Knowledge Distillation, algorithm 1.
    """
    pending, mask = pad_left(prompts, pad_token_id, next(student.parameters()).device)
    room = mask.shape[1] + max(max_new_tokens) + draft_tokens
    readers = _reader(student, vocab_size, room), _reader(teacher, vocab_size, room)
    rows = DecodingState(max_new_tokens, eos_token_ids, pending.device)
    places = torch.arange(draft_tokens, device=pending.device)
    checked = accepted = 0
    while rows.count:
        before = mask.shape[1]
        drafted, tokens = [], pending
        for _ in range(draft_tokens):
            tokens = student_sampling.draw(readers[0].forward(tokens, mask)[:, -1], generator, rows.here)[:, None]
            drafted.append(tokens)
            mask = torch.cat([mask, rows.live[:, None]], dim=1)
        rows.generated += draft_tokens * rows.count
        mask = mask[:, :-1]  # nobody has read the last drafted token
        draft = torch.cat(drafted, dim=1)
        logits = readers[1].forward(torch.cat([pending, draft[:, :-1]], dim=1), mask, keep=draft_tokens)
        first = _first_rejected(draft, logits, top_k)
        offered = rows.until_done(draft, draft_tokens)
        rejected = rows.live & (first < offered)
        checked += int(torch.minimum(first + 1, offered).sum())
        accepted += int(torch.minimum(first, offered).sum())
        if rejected.any():
            at = first.clamp(max=draft_tokens - 1)[:, None]
            behind = logits.gather(1, at[:, :, None].expand(-1, -1, logits.shape[-1]))[:, 0]
            drawn = teacher_sampling.draw(behind, generator, rows.here)
            rows.generated += int(rejected.sum())
            draft = torch.where(rejected[:, None] & (places == first[:, None]), drawn[:, None], draft)
        kept = rows.take(draft, torch.where(rejected, first + 1, draft_tokens))
        # A row's last kept token is pending; of the columns both have read behind the old one, those before it count.
        read = (kept - 1).clamp(min=0)
        pending = draft.gather(1, read[:, None])
        mask, moved = _aligned(mask, before, torch.where(rows.live, read, 0), rows.live)
        for reader in readers:
            reader.rollback(before + draft_tokens - 1 - mask.shape[1], moved)
        if rows.half_ended or (rows.count and mask.shape[1] + draft_tokens > room):
            mask, pending = drop_ended_rows(rows, mask, pending, readers)
        mask = torch.cat([mask, rows.live[:, None]], dim=1)
    return rows.answers([reader.read for reader in readers]), checked, accepted


def _reader(model: nn.Module, vocab_size: int, columns: int) -> Decoder:
    reader = Decoder(model, vocab_size, columns)
    if not reader.can_move:
        raise InputError(
            f"{type(reader.model).__name__} keeps a recurrent state, from which rejected drafts cannot be taken back: "
            "take another rollout than 'interleaved'"
        )
    return reader


def _aligned(
    mask: Tensor, before: int, read: Tensor, live: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor] | None]:
    """Take rejected columns back, so that every live row ends at the same column again.

    The row that has accepted most stays where it is; what others hold is moved to the right, by as many columns as
    they have accepted fewer. Rows that have ended stay as they are.

    Args:
        mask: bool [B, L], the columns that were read.
        before: how many of them were there before the draft.
        read: how many of the further ones each row keeps, int64 [B].
        live: which rows go on, bool [B].

    Returns:
        The new mask, and what was moved: rows, columns, and how far, int64 [N] each; None where nothing was.

    >>> _aligned(torch.ones(2, 3, dtype=torch.bool), 2, torch.tensor([1, 0]), torch.tensor([True, True]))
    (tensor([[ True,  True,  True],
            [False,  True,  True]]), (tensor([1, 1]), tensor([0, 1]), tensor([1, 1])))
    """
    most = int(read.max())
    mask = mask[:, : before + most].clone()
    mask[:, before:] &= torch.arange(most, device=mask.device) < read[:, None]
    short = (most - read) * live
    rows, columns = (mask & (short > 0)[:, None]).nonzero(as_tuple=True)
    if not len(rows):
        return mask, None
    by = short[rows]
    mask[rows, columns] = False
    mask[rows, columns + by] = True
    return mask, (rows, columns, by)


def _first_rejected(draft: Tensor, logits: Tensor, top_k: int) -> Tensor:
    """Return the place of the first drafted token outside the teacher's top_k, or the length of the draft, int64 [B].

    A token is within the top k when fewer than k tokens are strictly likelier.
    """
    own = logits.gather(2, draft[:, :, None])
    inside = (logits > own).sum(dim=-1) < top_k
    return inside.long().cumprod(dim=1).sum(dim=1)
