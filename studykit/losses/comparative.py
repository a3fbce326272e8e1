"""Comparative τ² KL(softmax(Δz_T/τ)‖softmax(Δz_S/τ)) on differences Δz of two positions, for a scarce teacher (CKD).

Formula: `τ² KL(softmax(Δz_T/τ)‖softmax(Δz_S/τ))` on differences Δz between two samples, and the same with differences
of labels for Δz_T.

Code: the authors' was not seen.

Agreement: tests/losses/test_all_losses.py::test_value_equals_the_slow_reference, in a loop over pairs.

Differs: the paper compares samples of a classification, and groups of them; here positions of answers, one with one.
The union of likeliest categories, `partners` and `clip` are of this kit.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from studykit.losses import LOG_FLOOR, Loss, LossInputs, expectation


class Comparative(Loss):
    """Return, per position i, the mean over its partners j of τ² KL(softmax(Δ_T/τ)‖softmax(Δ_S/τ)) + the label's part.

    Δ is the log-probabilities at i minus those at j, on the union of the teacher's likeliest categories at both
    positions, labels included. The label's part has Δ_Y = onehot(y_i) - onehot(y_j) in place of Δ_T. N teacher
    outputs give N(N-1) differences: prefer it when teacher tokens are few and cached.

    Column c must be the same token in every row, which does not hold for a teacher folded position by position.

    Args:
        temperature: τ; 2 to 4 is usual.
        top_k: number of categories that each position adds to the union, its label included.
        partners: number of other positions that each is compared with, spread evenly over the batch; None is all of
            them, and memory then grows as N².
        clip: differences are cut to ±clip nats: a token likely at one position only would outweigh all others.
        teacher_weight: weight of the teacher's part, which is 0 at q = p.
        label_weight: weight of the label's part.

    Attributes:
        needs_shared_categories: True: column c is the same token in all rows.

    Source:
        Wilf et al. (2023), Comparative Knowledge Distillation, carried over from samples to positions.

    Example:
        >>> p, q = torch.tensor([[0.75, 0.25], [0.5, 0.5]]), torch.tensor([[0.5, 0.5], [0.5, 0.5]])
        >>> x = LossInputs(q.log(), p.log(), torch.tensor([0, 0]))
        >>> Comparative(temperature=1.0, label_weight=0.0).per_token(x)    # (¾, ¼) and (¼, ¾) from (½, ½)
        tensor([0.1308, 0.1308])
    """

    couples_rows = True
    needs_shared_categories = True

    def __init__(
        self,
        *,
        temperature: Annotated[float, Field(gt=0)] = 2.0,
        top_k: Annotated[int, Field(ge=1)] = 16,
        partners: Annotated[int, Field(ge=1)] | None = 16,
        clip: Annotated[float, Field(gt=0)] = 10.0,
        teacher_weight: float = 1.0,
        label_weight: float = 1.0,
    ):
        self.temperature, self.top_k, self.partners, self.clip = temperature, top_k, partners, clip
        self.teacher_weight, self.label_weight = teacher_weight, label_weight

    def pair_count(self, n: int) -> int:
        """Return the number of ordered pairs of n positions that are compared: n times partners, at most n(n-1).

        >>> [Comparative(partners=None).pair_count(n) for n in (1, 2, 10, 100)]
        [0, 2, 90, 9900]
        """
        return n * len(self._offsets(n))

    def per_token(self, x: LossInputs) -> Tensor:
        """Return the mean over each position's pairs, float [N], nats; 0 for a single position."""
        n = len(x.target)
        if n < 2:
            return 0 * x.student_logp.sum(dim=-1)
        here = torch.arange(n, device=x.target.device)[:, None]
        there = (here + torch.tensor(self._offsets(n), device=x.target.device)) % n
        ids, counts = self._union(x, here, there)
        rows = here[:, :, None], there[:, :, None]

        def difference(logp: Tensor) -> Tensor:
            return self._softmax(logp[rows[0], ids] - logp[rows[1], ids], counts)

        labels = [(ids == x.target[row]).to(x.student_logp.dtype) for row in rows]
        student = difference(x.student_logp)
        targets = difference(x.teacher), self._softmax(labels[0] - labels[1], counts)
        parts = [expectation(target, target - student).mean(dim=1) for target in targets]
        return self.temperature**2 * (self.teacher_weight * parts[0] + self.label_weight * parts[1])

    def _offsets(self, n: int) -> list[int]:
        others = max(n - 1, 0)
        count = others if self.partners is None else min(self.partners, others)
        return [1 + i * others // count for i in range(count)]

    def _union(self, x: LossInputs, here: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        # ids [N, P, 2k] and a mask of those that count: each token once, and none that is impossible at both positions.
        k = min(self.top_k, x.teacher.shape[1])
        top = x.teacher.scatter(1, x.target[:, None], torch.inf).topk(k, dim=-1).indices
        first, second = top[here].expand(-1, there.shape[1], -1), top[there]
        repeated = (second[..., :, None] == first[..., None, :]).any(dim=-1)
        ids = torch.cat([first, second], dim=-1)
        likeliest = torch.maximum(x.teacher, x.student_logp.detach())
        possible = torch.maximum(likeliest[here[..., None], ids], likeliest[there[..., None], ids]) > 0.99 * LOG_FLOOR
        return ids, possible & ~torch.cat([torch.zeros_like(repeated), repeated], dim=-1)

    def _softmax(self, difference: Tensor, counts: Tensor) -> Tensor:
        clipped = difference.clamp(-self.clip, self.clip) / self.temperature
        return clipped.masked_fill(~counts, LOG_FLOOR).log_softmax(dim=-1)
