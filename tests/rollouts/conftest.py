"""Models, batches and a context for the tests of rollouts."""

import pytest
import torch

from studykit.collate import collate
from studykit.rollouts import RolloutContext
from studykit.teacher.live import LiveTeacher

pytest.register_assert_rewrite("rows")


@pytest.fixture(scope="module")
def models(tiny_model):
    """Make a student with dropout, in training mode as the trainer holds it, and a teacher; both end now and then."""
    from rows import END

    def ending(seed, **changes):
        model = tiny_model(seed=seed, spread=8.0, attention_dropout=0.5, **changes)
        with torch.no_grad():
            model.lm_head.weight[END] *= 2
        return model

    return lambda: (ending(1).train(), ending(2).eval().requires_grad_(False))


@pytest.fixture
def context(models, tokenizer):
    """Make what a rollout may use; validation gives a loss after the other from a list."""
    from rows import V

    def make(seed=0, losses=(), **changes):
        student, teacher = models()
        left = list(losses)
        return RolloutContext(
            student,
            LiveTeacher(teacher, tokenizer, V),
            tokenizer,
            torch.Generator().manual_seed(seed),
            validation_loss=lambda: left.pop(0) if left else 1.0,
            **{"max_length": 48, **changes},
        )

    return make


@pytest.fixture
def batch(encoded):
    """Make a batch of examples of the data."""
    from rows import PAD, ROWS

    return lambda rows=ROWS: collate(encoded, rows, PAD)
