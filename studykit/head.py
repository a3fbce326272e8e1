"""Hidden states x output head -> loss, a chunk of positions at a time: full logits never exist.

    loss, metrics = head_loss(hidden, weight, bias, teacher, target, get_loss("forward_kl"),
                              kd_ratio=1.0, temperature=1.0, denominator=n_supervised)
    loss.backward()

Each chunk's gradient is taken during the forward pass and only the gradients of hidden states and head are kept, so
nothing is recomputed and nothing of size [N, V] outlives its chunk. A frozen head costs no weight gradient.

A chunk is what one matrix product makes, in the dtype of the products. Within it, blocks of a few rows go through
softmax, loss and derivative in float32: on a CPU a block stays in the cache, which is where most of the time would be
lost otherwise, and on a GPU blocks are larger and compiled into a few kernels.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from studykit.losses import FunctionLoss, Loss, LossInputs
from studykit.models.projection import linear, scale_and_softcap
from studykit.teacher.signal import TeacherSignal, log_softmax_backward

CHUNK_BYTES = 768 * 2**20
"""Memory aimed at for the logits of one chunk, student's and teacher's together."""

BLOCK_BYTES = {"cpu": 5 * 2**19, "cuda": 256 * 2**20}
"""Memory aimed at for the float32 logits of one block; a handful of tensors of that size live at a time."""


_KINDS = 64
"""Versions of a compiled block that a process may keep: some for every divergence and kind of teacher it meets."""


def head_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    teacher: TeacherSignal | None,
    target: Tensor,
    loss: Loss,
    *,
    kd_ratio: float = 1.0,
    temperature: float = 1.0,
    denominator: float | Tensor,
    scale_by_t2: bool = False,
    progress: float = 0.0,
    sequence: Tensor | None = None,
    author: Tensor | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    vocab_size: int | None = None,
    chunk: int | None = None,
    memory: int = CHUNK_BYTES,
    fused: bool | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return ((1 - kd_ratio) * cross-entropy + kd_ratio * loss), summed over positions, / denominator.

    Args:
        hidden: [N, H], student's hidden states at the supervised positions; float64 stays float64, all else is
            computed in float32 from the logits on.
        weight: [V, H], output projection; the matrix products are in its dtype, or in autocast's where that is on.
        bias: [V] or None.
        teacher: what the teacher says at the same N positions; None for losses on the label alone.
        target: int64 [N], the label's token ids.
        loss: from `get_loss`.
        kd_ratio: share of the divergence, in [0, 1]; ignored without a teacher.
        temperature: divides the logits of both sides in the divergence only; cross-entropy stays at 1.
        denominator: the supervised tokens of the whole optimizer step, over all micro-batches and ranks.
        scale_by_t2: multiply the divergence by temperature squared.
        progress: share of the stage done, for losses with a schedule.
        sequence, author: int64 [N], for losses that look at the row a position belongs to, or at who wrote it.
        logit_scale, softcap: of the student's architecture.
        vocab_size: compare on the first so many rows, those that the shared tokenizer knows; None means all.
        chunk: positions per chunk; None chooses by memory.
        memory: bytes aimed at for the logits of one chunk, student's and teacher's together.
        fused: compile what is done to a block, for losses that are a function with a closed form; None does on CUDA.

    Returns:
        The loss, a float32 scalar with graph (0 with a graph when N is 0), and detached sums over positions:
        `ce_loss`, `kd_loss` where a teacher took part, `entropy` of the student (all in nats), `correct` (argmax
        hits) and `tokens`.

    Example:
        >>> from studykit.losses import get_loss
        >>> hidden, weight = torch.eye(2), torch.eye(2).requires_grad_()
        >>> label, loss = torch.tensor([0, 1]), get_loss("cross_entropy")
        >>> value, sums = head_loss(hidden, weight, None, None, label, loss, denominator=2)
        >>> round(value.item(), 4)                                          # log(1 + 1/e)
        0.3133
    """
    if len(target) == 0:
        return hidden.sum() * 0 + weight.sum() * 0, {}
    rules = _Rules(loss, kd_ratio, temperature, scale_by_t2, logit_scale, softcap, progress)
    rows, products = vocab_size or weight.shape[0], _products(weight)
    chunk = chunk or _even(len(target), memory // ((1 if teacher is None else 2) * products.itemsize * rows))
    block = BLOCK_BYTES.get(hidden.device.type, BLOCK_BYTES["cuda"]) // (4 * rows)
    fused = (hidden.is_cuda if fused is None else fused) and isinstance(loss, FunctionLoss) and loss.closed_form
    if loss.couples_rows:
        chunk = block = len(target)
    if not torch.is_grad_enabled():  # an autograd function would be told of gradients that nobody will take
        hidden, weight, bias = hidden.detach(), weight.detach(), None if bias is None else bias.detach()
    job = _Job(
        rules,
        teacher if loss.needs_teacher else None,
        (target, sequence, author),
        rows,
        products,
        max(1, chunk),
        max(1, block),
        _fused() if fused else _block,
    )
    value = _HeadLoss.apply(
        job, 1 / torch.as_tensor(denominator, dtype=torch.float64), hidden, weight, bias, *loss.parameters()
    )
    return value, job.sums


@dataclass(frozen=True)
class _Rules:
    """What the loss of a position is, given both sides' logits."""

    loss: Loss
    kd_ratio: float
    temperature: float
    scale_by_t2: bool
    logit_scale: float
    softcap: float | None
    progress: float


@dataclass(frozen=True)
class _Job:
    """Positions, what is said about them (label, sequence, origin), and in which portions they are worked on."""

    rules: _Rules
    teacher: TeacherSignal | None
    notes: tuple[Tensor, Tensor | None, Tensor | None]
    vocab_size: int
    products: torch.dtype
    chunk: int
    block: int
    work: Callable[..., tuple]
    sums: dict[str, Tensor] = field(default_factory=dict)


def _even(count: int, most: int) -> int:
    """Return the size of equal portions: from the second on their gradients are added up, so none should be small.

    >>> _even(1024, 883)
    512
    """
    portions = -(-count // max(1, most))
    return -(-count // portions)


def _products(weight: Tensor) -> torch.dtype:
    """Return what matrix products are computed in; in float16 derivatives would vanish before any loss scale helps."""
    kind = weight.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    return torch.float32 if dtype == torch.float16 else dtype


class _HeadLoss(torch.autograd.Function):
    """Loss over chunks with gradients taken on the way; backward only multiplies them by what arrives from above."""

    @staticmethod
    def forward(ctx, job: _Job, scale: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None, *learned: Tensor):
        inputs = (hidden, weight, bias, *learned)
        wanted = [need and x is not None for need, x in zip(ctx.needs_input_grad[2:], inputs, strict=True)]
        with torch.autocast(hidden.device.type, enabled=False):
            total, grads = _chunks(job, scale.to(hidden.device), inputs, wanted)
        kept = (None if g is None or x is None else g.to(x.dtype) for g, x in zip(grads, inputs, strict=True))
        ctx.save_for_backward(*kept)
        return total

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor):
        (above,) = grad_outputs
        if not above.is_cuda and above == 1:  # a pass over [V, H] is saved; on a GPU looking would cost more than it
            return None, None, *ctx.saved_tensors
        return None, None, *(None if g is None else g * above.to(g) for g in ctx.saved_tensors)


def _chunks(job: _Job, scale: Tensor, inputs: tuple, wanted: list[bool]) -> tuple[Tensor, list[Tensor | None]]:
    """Return the scaled loss over all positions, and the gradients that are wanted, in the order of the inputs.

    What lies between logits and loss is a block's business; the matrix products around it are written out here, so
    that a frozen head or a frozen body costs neither of them.
    """
    hidden, weight, bias, *learned = inputs
    head, offset = weight[: job.vocab_size].to(job.products), None if bias is None else bias[: job.vocab_size]
    exact = torch.promote_types(hidden.dtype, torch.float32)
    total = torch.zeros((), dtype=exact, device=hidden.device)
    grads: list[Tensor | None] = [None] * len(inputs)
    learns = {place: p for place, p in enumerate(learned, 3) if wanted[place]}
    pieces = []
    for start in range(0, len(job.notes[0]), job.chunk):
        rows = slice(start, start + job.chunk)
        part = hidden[rows].to(job.products)
        raw = linear(part, head, offset)
        value, grad, *others = _chunk(job, scale.to(exact), rows, raw, any(wanted), list(learns.values()))
        total += value
        if wanted[0]:
            pieces.append(grad @ head)
        if wanted[1]:
            grads[1] = _added(grads[1], grad.T @ part, weight)
        if wanted[2] and bias is not None:
            grads[2] = _added(grads[2], grad.sum(0, dtype=exact), bias)
        for place, other in zip(learns, others, strict=True):
            grads[place] = _added(grads[place], other, inputs[place])
    if pieces:
        grads[0] = torch.cat(pieces)
    return total, grads


def _added(total: Tensor | None, part: Tensor, like: Tensor) -> Tensor:
    """Add one chunk's gradient: as it is while it is the only one, in float32 at least from the second on."""
    if total is None and part.shape == like.shape:
        return part
    exact = torch.promote_types(part.dtype, torch.float32)
    total = torch.zeros_like(like, dtype=exact) if total is None else total.to(exact)
    (total if part.shape == like.shape else total[: len(part)]).add_(part)
    return total


def _chunk(job: _Job, scale: Tensor, rows: slice, raw: Tensor, wants_grad: bool, learns: list[Tensor]) -> list[Tensor]:
    """Return a chunk's scaled loss, its derivative in the raw logits (in their place), and in what the loss learns."""
    teacher = None if job.teacher is None else job.teacher.at(rows, job.vocab_size, job.products)
    notes = [None if note is None else note[rows] for note in job.notes]
    sums: list[Tensor] = []
    for start in range(0, len(raw), job.block):
        own = slice(start, start + job.block) if job.block < len(raw) else slice(None)
        here = [None if note is None else note[own] for note in notes]
        counted, grad, *parts = job.work(job.rules, raw[own], teacher, own, *here, wants_grad, learns)
        for name, value in counted.items():
            job.sums[name] = job.sums.get(name, 0) + value
        sums = [a + b for a, b in zip(sums, parts, strict=True)] if sums else parts
        if wants_grad and job.block < len(raw):
            raw[own] = grad * scale
        elif wants_grad:
            raw = (grad * scale).to(raw.dtype)
    return [sums[0] * scale, raw, *(total * scale for total in sums[1:])]


def _block(
    rules: _Rules,
    raw: Tensor,
    teacher: TeacherSignal | None,
    rows: slice,
    target: Tensor,
    sequence: Tensor | None,
    author: Tensor | None,
    wants_grad: bool,
    learns: list[Tensor],
) -> tuple:
    """Return sums to log, the loss sum's derivative in raw logits [b, V], the loss sum, and its others.

    Args:
        rules: what the loss is.
        raw: the student's logits before scale and cap, [b, V].
        teacher: the signal of the chunk, or None.
        rows: which of the chunk's rows these are.
        target, sequence, author: int64 [b].
        wants_grad: whether derivatives are wanted; without, None stands for them.
        learns: what the loss learns.
    """
    logits = scale_and_softcap(raw, rules.logit_scale, rules.softcap)
    logp = logits.log_softmax(dim=-1)
    q, places = logp.exp(), target[:, None]
    ce = -logp.gather(1, places).sum()
    counted = {
        "ce_loss": ce,
        "entropy": -(q * logp).sum(),
        "correct": (logits.max(dim=-1).indices == target).sum(),
        "tokens": torch.ones_like(target).sum(),
    }
    if not rules.loss.needs_teacher:
        x = LossInputs(logp, None, target, rules.progress, sequence, author)
        value, grad, *others = _derived(rules.loss, x, wants_grad, learns)
        grad = log_softmax_backward(grad, q) if wants_grad else None
    elif teacher is None:
        raise ValueError("this loss compares with a teacher, and no TeacherSignal was given")
    else:
        student_logp, teacher_logp, category, back = teacher.compare(rows, logits, logp, target, rules.temperature)
        x = LossInputs(student_logp, teacher_logp, category, rules.progress, sequence, author)
        kd, grad, *others = _derived(rules.loss, x, wants_grad, learns)
        scale = rules.temperature**2 if rules.scale_by_t2 else 1.0
        counted["kd_loss"] = kd = kd * scale
        value, share = kd if rules.kd_ratio == 1 else (1 - rules.kd_ratio) * ce + rules.kd_ratio * kd, rules.kd_ratio
        others = [other * (share * scale) for other in others]
        if wants_grad:
            grad = back(grad) if share * scale == 1 else back(grad) * (share * scale)
            if share != 1:
                grad = grad.add_(q, alpha=1 - share).scatter_add_(1, places, (share - 1) * torch.ones_like(q[:, :1]))
    if grad is not None and rules.softcap is not None:
        grad = grad * (1 - (logits / rules.softcap).square())
    if grad is not None and rules.logit_scale != 1:
        grad = grad * rules.logit_scale
    return counted, grad, value, *others


def _derived(loss: Loss, x: LossInputs, wants_grad: bool, learns: list[Tensor]) -> tuple:
    """Return the loss sum, its derivative in the student's log-probabilities [n, C], and in what the loss learns."""
    if not wants_grad:
        return loss.per_token(x).sum(), None
    if loss.closed_form:
        value, grad = loss.value_and_grad(x)
        return value.sum(), grad
    free = x.student_logp.detach().requires_grad_()
    with torch.enable_grad():
        value = loss.per_token(replace(x, student_logp=free)).sum()
    return value.detach(), *torch.autograd.grad(value, [free, *learns], materialize_grads=True)


@cache
def _fused() -> Callable[..., tuple]:
    """Return the block's work compiled into few kernels; where it cannot be compiled, as it is."""
    from torch._dynamo import config  # on use: it takes a second to import
    from torch._dynamo.exc import TorchDynamoException

    config.recompile_limit = max(_KINDS, config.recompile_limit)
    work = torch.compile(_block, dynamic=True)

    def compiled(*inputs: Any) -> tuple:
        nonlocal work
        try:
            return work(*inputs)
        except TorchDynamoException as error:
            if work is _block:
                raise
            warnings.warn(f"the head is not compiled: {str(error).splitlines()[0]}", stacklevel=2)
            work = _block
            return work(*inputs)

    return compiled
