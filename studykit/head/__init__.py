"""Hidden states x output head -> loss, a chunk of positions at a time: full logits never exist.

    head = OutputHead(weight)
    objective = Objective(get_loss("forward_kl"), kd_ratio=0.5)
    loss, sums = head_loss(hidden, head, signal, Labels(target), objective, denominator=len(target))
    loss.backward()

Each chunk's gradient is taken during the forward pass and only the gradients of hidden states and head are kept, so
nothing is recomputed and nothing of size [N, V] outlives its chunk. A frozen head costs no weight gradient.

A chunk is the result of one matrix product, in the dtype of the products. Its blocks of a few rows each go through
softmax, loss and derivative in float32 (`studykit.head.block`): on a CPU a block stays in the cache, without which
most of the time would be spent on memory, and on a GPU blocks are larger and compiled into a few kernels.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from studykit.head.block import BlockRules, Labels, Objective, compiled_block, run_block
from studykit.losses import FunctionLoss
from studykit.models.projection import OutputHead, linear
from studykit.teacher.signal import TeacherSignal

__all__ = ["Chunking", "Labels", "Objective", "OutputHead", "head_loss"]

CHUNK_BYTES = 768 * 2**20
"""Target size of the logits of one chunk, student's and teacher's together."""

BLOCK_BYTES = {"cpu": 5 * 2**19, "cuda": 256 * 2**20}
"""Target size of the float32 logits of one block; a handful of tensors of that size exist at a time."""


@dataclass(frozen=True)
class Chunking:
    """How the positions are worked on; it changes time and memory and, rounding aside, no result.

    Attributes:
        size: positions per chunk; None derives it from `target_bytes`.
        target_bytes: size of the logits of one chunk, student's and teacher's together.
        fused: compile the work on a block, for losses that are a function in closed form; None does on CUDA.
    """

    size: int | None = None
    target_bytes: int = CHUNK_BYTES
    fused: bool | None = None


def head_loss(
    hidden: Tensor,
    head: OutputHead,
    signal: TeacherSignal | None,
    labels: Labels,
    objective: Objective,
    denominator: float | Tensor,
    chunking: Chunking = Chunking(),
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the objective summed over positions / denominator.

    Args:
        hidden: [N, H], student's hidden states; from the logits on all but float64 is computed in float32.
        head: the student's; the matrix products are in its weight's dtype, or in autocast's where that is on.
        signal: the teacher's, at the same N positions; None for losses on the label alone.
        labels, objective: of the N positions; the loss, its temperature and its share against cross-entropy.
        denominator: the supervised tokens of the whole optimizer step, over all micro-batches and ranks.
        chunking: number of positions per chunk.

    Returns:
        The loss, a scalar with graph (also at N = 0), and detached sums over positions: `ce_loss`, `kd_loss` with a
        teacher, `entropy` of the student (all in nats), `correct` (argmax hits) and `tokens`.

    Example:
        >>> from studykit.losses import get_loss
        >>> head, labels = OutputHead(torch.eye(2)), Labels(torch.tensor([0, 1]))
        >>> value, _ = head_loss(torch.eye(2), head, None, labels, Objective(get_loss("cross_entropy")), denominator=2)
        >>> round(value.item(), 4)                                          # log(1 + 1/e)
        0.3133
    """
    if len(labels.target) == 0:
        return hidden.sum() * 0 + head.weight.sum() * 0, {}
    if objective.loss.needs_teacher and signal is None:
        raise ValueError("this loss compares with a teacher, and no TeacherSignal was given")
    job = _job(hidden, head, signal, labels, objective, chunking)
    inputs = (hidden, head.weight, head.bias, *objective.loss.parameters())
    if not torch.is_grad_enabled():  # else the autograd function would compute gradients that nothing uses
        inputs = tuple(None if x is None else x.detach() for x in inputs)
    value = _HeadLoss.apply(job, torch.as_tensor(denominator, dtype=torch.float64), *inputs)
    return value, job.sums


@dataclass(frozen=True)
class _Job:
    """Everything about a call of `head_loss` that has no gradient, and the sums over the blocks done."""

    rules: BlockRules
    signal: TeacherSignal | None
    labels: Labels
    vocab_size: int
    dtype: torch.dtype
    chunk: int
    block: int
    work: Callable[..., tuple]
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, sums: dict[str, Tensor]) -> None:
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0) + value


def _job(
    hidden: Tensor,
    head: OutputHead,
    signal: TeacherSignal | None,
    labels: Labels,
    objective: Objective,
    chunking: Chunking,
) -> _Job:
    loss, count = objective.loss, len(labels.target)
    signal = signal if loss.needs_teacher else None
    vocab_size, dtype = head.vocab_size or head.weight.shape[0], _product_dtype(head.weight)
    bytes_per_row = (1 if signal is None else 2) * dtype.itemsize * vocab_size
    chunk = chunking.size or _even_size(count, chunking.target_bytes // bytes_per_row)
    block = BLOCK_BYTES.get(hidden.device.type, BLOCK_BYTES["cuda"]) // (4 * vocab_size)
    if loss.couples_rows:
        chunk = block = count
    fused = hidden.is_cuda if chunking.fused is None else chunking.fused
    work = compiled_block() if fused and isinstance(loss, FunctionLoss) and loss.closed_form else run_block
    rules = BlockRules(objective, head.logit_scale, head.softcap)
    return _Job(rules, signal, labels, vocab_size, dtype, max(1, chunk), max(1, block), work)


def _even_size(count: int, largest: int) -> int:
    """Return the size of equal portions: from the second on their gradients are added up, so none should be small.

    >>> _even_size(1024, 883)
    512
    """
    portions = -(-count // max(1, largest))
    return -(-count // portions)


def _product_dtype(weight: Tensor) -> torch.dtype:
    """Return the dtype of matrix products: float16 is replaced, where derivatives underflow whatever the loss scale."""
    kind = weight.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    return torch.float32 if dtype == torch.float16 else dtype


class _HeadLoss(torch.autograd.Function):
    """Loss over chunks with gradients taken on the way; backward only multiplies them by the incoming gradient."""

    @staticmethod
    def forward(ctx, job: _Job, denominator: Tensor, *inputs: Tensor | None):
        wanted = [need and x is not None for need, x in zip(ctx.needs_input_grad[2:], inputs, strict=True)]
        with torch.autocast(job.labels.target.device.type, enabled=False):
            total, grads = _chunks(job, denominator, inputs, wanted)
        ctx.save_for_backward(
            *(None if g is None or x is None else g.to(x.dtype) for g, x in zip(grads, inputs, strict=True))
        )
        return total

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor):
        (grad,) = grad_outputs
        if not grad.is_cuda and grad == 1:  # saves a pass over [V, H]; on a GPU the comparison would cost more
            return None, None, *ctx.saved_tensors
        return None, None, *(None if g is None else g * grad.to(g) for g in ctx.saved_tensors)


def _chunks(job: _Job, denominator: Tensor, inputs: tuple, wanted: list[bool]) -> tuple[Tensor, list[Tensor | None]]:
    """Return the loss over all positions and the gradients that are wanted, in the order of the inputs.

    The matrix products around a block's work are written out here, so that a frozen head or a frozen body costs none.
    """
    hidden, weight, bias, *learned = inputs
    hidden_wanted, weight_wanted, bias_wanted, *learned_wanted = wanted
    head = OutputHead(weight, bias).first_rows(job.vocab_size)
    head_weight = head.weight.to(job.dtype)
    exact = torch.promote_types(hidden.dtype, torch.float32)
    factor = (1 / denominator.to(hidden.device)).to(exact)
    trained = [parameter for parameter, want in zip(learned, learned_wanted, strict=True) if want]
    total, pieces = torch.zeros((), dtype=exact, device=hidden.device), []
    weight_grad, bias_grad, trained_grads = None, None, [None] * len(trained)
    for start in range(0, len(job.labels.target), job.chunk):
        rows = slice(start, start + job.chunk)
        part = hidden[rows].to(job.dtype)
        value, grad, parts = _chunk(job, rows, linear(part, head_weight, head.bias), factor, any(wanted), trained)
        total += value
        if hidden_wanted:
            pieces.append(grad @ head_weight)
        if weight_wanted:
            weight_grad = _add(weight_grad, grad.T @ part, weight)
        if bias_wanted:
            bias_grad = _add(bias_grad, grad.sum(0, dtype=exact), bias)
        trained_grads = [_add(*each) for each in zip(trained_grads, parts, trained, strict=True)]
    hidden_grad, grads_in_order = torch.cat(pieces) if pieces else None, iter(trained_grads)
    learned_grads = [next(grads_in_order) if want else None for want in learned_wanted]
    return total, [hidden_grad, weight_grad, bias_grad, *learned_grads]


def _add(total: Tensor | None, part: Tensor, like: Tensor) -> Tensor:
    """Add the gradient of one chunk: alone it is returned as it is, from the second on the sum is float32 at least."""
    if total is None and part.shape == like.shape:
        return part
    exact = torch.promote_types(part.dtype, torch.float32)
    total = torch.zeros_like(like, dtype=exact) if total is None else total.to(exact)
    (total if part.shape == like.shape else total[: len(part)]).add_(part)
    return total


def _chunk(
    job: _Job, rows: slice, raw: Tensor, factor: Tensor, wants_grad: bool, learned: list[Tensor]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return a chunk's loss, its derivative in the raw logits (in the same memory) and those in learned parameters."""
    signal = None if job.signal is None else job.signal.at(rows, job.vocab_size, job.dtype)
    labels = job.labels.at(rows)
    one_block = job.block >= len(raw)
    totals: list[Tensor] = []
    for start in range(0, len(raw), job.block):
        block = slice(None) if one_block else slice(start, start + job.block)
        sums, value, grad, learned_grads = job.work(
            job.rules, raw[block], signal, block, labels.at(block), wants_grad, learned
        )
        job.add(sums)
        parts = [value, *learned_grads]
        totals = [total + part for total, part in zip(totals, parts, strict=True)] if totals else parts
        if one_block and wants_grad:
            raw = (grad * factor).to(raw.dtype)
        elif wants_grad:
            raw[block] = grad * factor
    value, *learned_grads = (total * factor for total in totals)
    return value, raw, learned_grads
