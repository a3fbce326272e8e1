"""Hidden states x output head -> loss, a chunk of positions at a time: full logits never exist.

    loss, metrics = head_loss(hidden, weight, bias, teacher, target, get_loss("forward_kl"),
                              kd_ratio=1.0, temperature=1.0, denominator=n_supervised)
    loss.backward()

Each chunk's gradient is taken during the forward pass and only the gradients of hidden states and head are kept, so
nothing is recomputed and nothing of size [N, V] outlives its chunk. A frozen head costs no weight gradient.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from studykit.losses import Loss, LossInputs, expectation
from studykit.losses.cross_entropy import cross_entropy
from studykit.teacher.signal import TeacherSignal

CHUNK_BYTES = 256 * 2**20
"""Memory aimed at for the logits of one chunk; about four tensors of that size live at a time."""


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
    origin: Tensor | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    vocabulary: int | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return ((1 - kd_ratio) * cross-entropy + kd_ratio * loss), summed over positions, / denominator.

    Args:
        hidden: [N, H], student's hidden states at the supervised positions; float64 stays float64, all else is
            computed in float32 from the logits on.
        weight: [V, H], output projection.
        bias: [V] or None.
        teacher: what the teacher says at the same N positions; None for losses on the label alone.
        target: int64 [N], the label's token ids.
        loss: from `get_loss`.
        kd_ratio: share of the divergence, in [0, 1]; ignored without a teacher.
        temperature: divides the logits of both sides in the divergence only; cross-entropy stays at 1.
        denominator: the supervised tokens of the whole optimizer step, over all micro-batches and ranks.
        scale_by_t2: multiply the divergence by temperature squared.
        progress: share of the stage done, for losses with a schedule.
        sequence, origin: int64 [N], for losses that look at the row a position belongs to, or at who wrote it.
        logit_scale, softcap: of the student's architecture.
        vocabulary: compare on the first so many rows, those that the shared tokenizer knows; None means all.
        chunk: positions per chunk; None chooses by `CHUNK_BYTES`.

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
    settings = _Settings(
        teacher,
        target,
        loss,
        kd_ratio,
        temperature,
        scale_by_t2,
        progress,
        sequence,
        origin,
        logit_scale,
        softcap,
        vocabulary or weight.shape[0],
        denominator,
    )
    settings.chunk = len(target) if loss.couples_rows else chunk or _chunk(settings.vocabulary)
    value = _HeadLoss.apply(settings, hidden, weight, bias, *loss.parameters())
    return value, settings.sums


@dataclass
class _Settings:
    teacher: TeacherSignal | None
    target: Tensor
    loss: Loss
    kd_ratio: float
    temperature: float
    scale_by_t2: bool
    progress: float
    sequence: Tensor | None
    origin: Tensor | None
    logit_scale: float
    softcap: float | None
    vocabulary: int
    denominator: float | Tensor
    chunk: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)


def _chunk(vocabulary: int) -> int:
    return max(1, CHUNK_BYTES // (4 * vocabulary))


class _HeadLoss(torch.autograd.Function):
    """Loss sum over chunks with gradients taken on the way; backward only scales them."""

    @staticmethod
    def forward(ctx, settings: _Settings, hidden: Tensor, weight: Tensor, bias: Tensor | None, *learned: Tensor):
        inputs = (hidden, weight, bias, *learned)
        wanted = [i for i, need in enumerate(ctx.needs_input_grad[1:]) if need]
        grads = [
            torch.zeros_like(x, dtype=_accumulator(x)) if i in wanted and x is not None else None
            for i, x in enumerate(inputs)
        ]
        total = torch.zeros((), dtype=_accumulator(hidden), device=hidden.device)
        for start in range(0, len(settings.target), settings.chunk):
            rows = slice(start, start + settings.chunk)
            total += _chunk_backward(settings, rows, inputs, wanted, grads)
        scale = 1 / torch.as_tensor(settings.denominator, dtype=total.dtype, device=total.device)
        ctx.save_for_backward(
            *(
                None if g is None or x is None else g.mul_(scale.to(g.device)).to(x.dtype)
                for g, x in zip(grads, inputs, strict=True)
            )
        )
        return total * scale

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor):
        (upstream,) = grad_outputs
        return None, *(None if g is None else g * upstream.to(g) for g in ctx.saved_tensors)


def _chunk_backward(
    settings: _Settings, rows: slice, inputs: tuple, wanted: list[int], grads: list[Tensor | None]
) -> Tensor:
    """Add one chunk's gradients to `grads`, its metrics to the sums, and return its loss sum.

    Autograd runs from the loss to the chunk's logits only; from there the two matrix products are written out, so
    that a frozen head or a frozen body costs neither of them.
    """
    hidden, weight, bias, *learned = inputs
    vocabulary = settings.vocabulary
    head, offset = weight[:vocabulary], None if bias is None else bias[:vocabulary]
    part = hidden[rows].to(head.dtype)
    linear = torch.nn.functional.linear(part, head, offset)
    raw = linear.detach().requires_grad_()
    with torch.enable_grad():
        value = _chunk_value(settings, rows, raw)
    if not wanted:
        return value.detach()
    watched = [raw, *(p for i, p in enumerate(learned, 3) if i in wanted)]
    slope, *others = torch.autograd.grad(value, watched, allow_unused=True)
    if grads[0] is not None:
        grads[0][rows] = slope @ head
    if grads[1] is not None:
        grads[1][:vocabulary] += slope.T @ part
    if grads[2] is not None:
        grads[2][:vocabulary] += slope.sum(0)
    for i, other in zip((i for i in wanted if i >= 3), others, strict=True):
        if other is not None and (kept := grads[i]) is not None:
            kept += other
    return value.detach()


def _chunk_value(settings: _Settings, rows: slice, raw: Tensor) -> Tensor:
    """Return one chunk's loss sum from its raw logits, and count its metrics."""
    logits = raw if raw.dtype == torch.float64 else raw.float()
    logits = logits if settings.logit_scale == 1 else logits * settings.logit_scale
    logits = logits if settings.softcap is None else settings.softcap * torch.tanh(logits / settings.softcap)
    target = settings.target[rows]
    notes = [None if note is None else note[rows] for note in (settings.sequence, settings.origin)]
    label = LossInputs(logits.log_softmax(dim=-1), None, target, settings.progress, *notes)
    ce = cross_entropy(label).sum()
    if not settings.loss.needs_teacher:
        _count(settings, label, ce_loss=ce)
        return settings.loss.per_token(label).sum()
    if settings.teacher is None:
        raise ValueError("this loss compares with a teacher, and no TeacherSignal was given")
    student_logp, teacher_logp, category = settings.teacher.inputs(rows, logits, target, settings.temperature)
    kd = settings.loss.per_token(LossInputs(student_logp, teacher_logp, category, settings.progress, *notes)).sum()
    kd = kd * settings.temperature**2 if settings.scale_by_t2 else kd
    _count(settings, label, ce_loss=ce, kd_loss=kd)
    return kd if settings.kd_ratio == 1 else (1 - settings.kd_ratio) * ce + settings.kd_ratio * kd


@torch.no_grad()
def _count(settings: _Settings, label: LossInputs, **losses: Tensor) -> None:
    logp = label.student_logp.detach()
    counted = {name: value.detach() for name, value in losses.items()}
    counted["entropy"] = -expectation(logp, logp).sum()
    counted["correct"] = (logp.argmax(dim=-1) == label.target).sum()
    counted["tokens"] = torch.tensor(len(label.target), device=logp.device)
    for name, value in counted.items():
        settings.sums[name] = settings.sums.get(name, 0) + value


def _accumulator(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
