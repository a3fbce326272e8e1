"""Sorted L1 -log q(y) + w Σ |sort(p) - sort(q)|: a teacher with another tokenizer, compared by shape alone (ULD).

Formula: `-log q(y) + w Σ_i |p_(i) - q_(i)|`, p and q each sorted from the likeliest down, the shorter one padded with
zeros.

Code: Nicolas-BZRD/llm-recipes@8e69e7a98753:models/distillation_model.py, w = 1.5 in
Nicolas-BZRD/llm-recipes@8e69e7a98753:configs/distillation.py.

Agreement: tests/losses/test_against_peers.py::test_sorted_l1_equals_trls_universal_logit_loss in value and gradient.

Differs: the release averages the distance over the tokens that both answers have, then over answers; here a token
counts the same in every answer, and both parts are divided by the tokens of the optimizer step.

Differs: trl 1.16 compares by default the logits one position later, `uld_token_merge_strategy="observed"`; the test
sets `bayesian`, which compares those that predict the same token, as here.
"""

from torch import Tensor
from torch.nn.functional import pad

from studykit.losses import LossInputs
from studykit.losses.cross_entropy import cross_entropy

NEEDS_SHARED_CATEGORIES = True
ACROSS_TOKENIZERS = True


def sorted_l1(x: LossInputs, *, weight: float = 1.5) -> Tensor:
    """Return -log q(y) + weight Σ_i |p_(i) - q_(i)|, p and q each sorted from the likeliest down.

    The only loss here that lets teacher and student have different vocabularies: the i-th likeliest token is compared
    with the i-th likeliest, whatever either is called, so that cross-entropy must say which it is. Prefer any other
    loss where the tokenizers agree.

    Args:
        x: `student_logp` [N, C], `teacher_logp` [N, C_teacher] and `target` [N] in the student's categories. The
            smaller vocabulary is padded with probability 0. A position whose teacher has no mass at all, since its
            answer has fewer tokens, counts no distance.
        weight: weight of the sorted distance.

    Returns:
        float [N], nats plus weight times a distance in [0, 2]; at least 0.

    Source:
        Boizard, El Haddad, Hudelot, Colombo (2024), Towards Cross-Tokenizer Distillation: the Universal Logit
        Distillation Loss for LLMs.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[0.25, 0.5, 0.25]]), torch.tensor([[0.25, 0.75]])
        >>> sorted_l1(LossInputs(q.log(), p.log(), torch.tensor([0])), weight=1.0)    # log 4 + ¼ + 0 + ¼
        tensor([1.8863])
    """
    p, q = (logp.exp().sort(dim=-1, descending=True).values for logp in (x.teacher, x.student_logp))
    width = max(p.shape[1], q.shape[1])
    p, q = (pad(side, (0, width - side.shape[1])) for side in (p, q))
    known = p.sum(dim=-1) > 0
    return cross_entropy(x) + weight * known * (p - q).abs().sum(dim=-1)
