"""Completions that a student drafts and a teacher verifies: interleaved sampling of speculative knowledge distillation.

Each round drafts γ tokens in every row, verifies them in one pass of the teacher, and rolls back. With γ = 4, when the
teacher accepts all of row 0, and in row 1 rejects `y` and draws `Y` instead:

                       read before | pending | drafted
    draft     row 0      A  B  C   |    D    | e  f  g  h     both models read all of these but the last: h and z
              row 1      .  .  A   |    B    | x  y  w  z     (`.` is padding)
    verify    row 0                            e  f  g  h     four tokens appended
              row 1                            x  Y           two tokens appended; w and z are never looked at
    roll back row 0      A  B  C        D      e  f  g | h    h is pending
              row 1      .  .  .        .      A  B  x | Y    A, B and x shifted right, y and w gone; Y is pending

Rows must end in the same column, since the next forward pass adds one column to all of them. So the keys and values of
a row that got fewer tokens are shifted to the right, and the padding grows on its left. Each model reads every accepted
token once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from studykit.generation.decoder import Decoder, open_decoder
from studykit.generation.kv_cache import Shift
from studykit.generation.sampling import Sampling
from studykit.generation.state import Completions, DecodingState
from studykit.generation.vocabulary import Vocabulary


@dataclass(frozen=True)
class Speculation:
    """How drafts are made and verified.

    Attributes:
        top_k: a drafted token is accepted while it is among the teacher's `top_k` likeliest.
        draft_tokens: γ, number of tokens that are drafted before the teacher reads them in one pass.
        student: sampling of the drafts.
        teacher: sampling of the tokens that replace rejected ones.
    """

    top_k: int
    draft_tokens: int
    student: Sampling
    teacher: Sampling


@torch.no_grad()
def draft_and_verify(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: Sequence[int],
    generator: torch.Generator,
    speculation: Speculation,
    vocabulary: Vocabulary,
) -> Completions:
    """Let the student draft a few tokens at a time and the teacher replace the first one outside its top k.

    The rest of a draft after a rejected token is dropped. Tokens after a rejection or after an end token are not
    verified, and are not counted as such.

    Args:
        student: in evaluation mode.
        teacher: in evaluation mode.
        prompts: token ids.
        max_new_tokens: maximum number of new tokens of each row.
        generator: the only source of randomness, on the CPU.
        speculation: how drafts are made and verified.
        vocabulary: end tokens, padding, and the ids that may be drawn.

    Source:
        Xu et al. (2025), Speculative Knowledge Distillation, algorithm 1.
    """
    state = DecodingState(prompts, max_new_tokens, vocabulary, next(student.parameters()).device)
    max_columns = state.mask.shape[1] + max(max_new_tokens) + speculation.draft_tokens
    decoders = [
        open_decoder(model, vocabulary.vocab_size, max_columns, needs_rollback=True) for model in (student, teacher)
    ]
    while state.goes_on(decoders):
        columns, pending = state.mask.shape[1], state.pending
        draft = _draft(decoders[0], state, speculation, generator)
        tokens, counts = _verify(decoders[1], pending, draft, state, speculation, generator)
        appended = state.append(tokens, counts)
        _roll_back(decoders, state, columns, (appended - 1).clamp(min=0))
        full = state.mask.shape[1] + speculation.draft_tokens > max_columns
        if state.half_ended or (state.active_count and full):
            state.drop_ended(decoders)
        if state.active_count:
            state.extend_mask()
        else:  # other processes go on: the column of the pending tokens is read again, and the cache does not grow
            for decoder in decoders:
                decoder.rollback(1)
    return state.completions()


def _draft(student: Decoder, state: DecodingState, speculation: Speculation, generator: torch.Generator) -> Tensor:
    """Draw γ tokens per row from the student, int64 [B, γ]; the mask grows by the γ - 1 of them that it reads."""
    tokens, drafted = state.pending, []
    for number in range(speculation.draft_tokens):
        if number:
            state.extend_mask()
        logits = student.forward(tokens, state.mask)[:, -1]
        tokens = speculation.student.draw(logits, generator, state.in_batch)[:, None]
        drafted.append(tokens)
    state.generated += speculation.draft_tokens * state.active_count
    return torch.cat(drafted, dim=1)


def _verify(
    teacher: Decoder,
    pending: Tensor,
    draft: Tensor,
    state: DecodingState,
    speculation: Speculation,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Read the pending tokens and the draft with the teacher, and replace each row's first rejected token.

    Returns:
        The tokens of the draft with the replacements, int64 [B, γ], and how many of them count: all, or those up to
        and including the replacement, int64 [B].
    """
    size = speculation.draft_tokens
    logits = teacher.forward(torch.cat([pending, draft[:, :-1]], dim=1), state.mask, logits_to_keep=size)
    first = _find_first_rejected(draft, logits, speculation.top_k)
    fitting = state.count_fitting(draft, size)
    rejected = state.active & (first < fitting)
    state.verified += int(torch.minimum(first + 1, fitting).sum())
    state.accepted += int(torch.minimum(first, fitting).sum())
    if state.is_any(rejected):
        position = first.clamp(max=size - 1)[:, None]
        there = logits.gather(1, position[:, :, None].expand(-1, -1, logits.shape[-1]))[:, 0]
        drawn = speculation.teacher.draw(there, generator, state.in_batch)
        state.generated += int(rejected.sum())
        replaced = rejected[:, None] & (torch.arange(size, device=draft.device) == first[:, None])
        draft = torch.where(replaced, drawn[:, None], draft)
    return draft, torch.where(rejected, first + 1, size)


def _find_first_rejected(draft: Tensor, logits: Tensor, top_k: int) -> Tensor:
    """Return the position of the first drafted token outside the teacher's top k, int64 [B]; γ where there is none.

    A token is within the top k when fewer than k tokens are strictly likelier.
    """
    drafted = logits.gather(2, draft[:, :, None])
    inside = (logits > drafted).sum(dim=-1) < top_k
    return inside.long().cumprod(dim=1).sum(dim=1)


def _roll_back(decoders: Sequence[Decoder], state: DecodingState, columns: int, valid: Tensor) -> None:
    """Remove rejected columns from the caches and the mask, so that all active rows end in the same column again.

    Args:
        decoders: student and teacher; both have read the same columns.
        state: its mask covers what they have read.
        columns: how many columns there were before the draft.
        valid: how many of the later columns each row keeps, int64 [B].
    """
    read = state.mask.shape[1]
    state.mask, shift = _align(state.mask, columns, torch.where(state.active, valid, 0), state.active)
    for decoder in decoders:
        decoder.rollback(read - state.mask.shape[1], shift)


def _align(mask: Tensor, columns: int, valid: Tensor, active: Tensor) -> tuple[Tensor, Shift | None]:
    """Return the mask [B, L] after a roll back, and the shift that makes all active rows end in its last column.

    The rows that keep most columns stay in place. Of every other active row all tokens are shifted to the right, by
    the number of columns that it keeps fewer. Rows that have ended are not shifted.

    >>> mask, shift = _align(torch.ones(2, 3, dtype=torch.bool), 2, torch.tensor([1, 0]), torch.tensor([True, True]))
    >>> mask
    tensor([[ True,  True,  True],
            [False,  True,  True]])
    >>> shift
    Shift(rows=tensor([1, 1]), columns=tensor([0, 1]), distances=tensor([1, 1]))
    """
    most = int(valid.max())
    mask = mask[:, : columns + most].clone()
    mask[:, columns:] &= torch.arange(most, device=mask.device) < valid[:, None]
    missing = (most - valid) * active
    rows, source = (mask & (missing > 0)[:, None]).nonzero(as_tuple=True)
    if not len(rows):
        return mask, None
    distances = missing[rows]
    mask[rows, source] = False
    mask[rows, source + distances] = True
    return mask, Shift(rows, source, distances)
