"""Values of every loss worked out with pencil and paper, for p = (½, ¼, ¼), q = (⅛, ¾, ⅛) and label 0."""

import pytest
import torch

from studykit.losses import LossInputs, get_loss

from .case import P, Q
from .cases import FILES, each


@pytest.mark.parametrize(("name", "options", "constant"), each("CONSTANTS"))
def test_value_equals_the_constant(name, options, constant):
    teacher, student = getattr(FILES[name], "CONSTANT_ROWS", ([P], [Q]))
    p, q = (torch.tensor(rows, dtype=torch.float64).log() for rows in (teacher, student))
    value = get_loss(name, **options).per_token(LossInputs(q, p, torch.zeros(len(p), dtype=torch.long)))
    expected = constant if isinstance(constant, list) else [constant]
    assert value.tolist() == pytest.approx(expected, rel=1e-6)  # the learned temperature is float32
