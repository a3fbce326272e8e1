"""Replay: a threshold that rises with validation, and a buffer of the student's answers that survives a restart."""

from itertools import pairwise

import pytest
import torch
from rows import ROWS, equal, rows_of

from studykit.generation.cost import Cost
from studykit.losses import Author
from studykit.rollouts.replay import Replay

AUTHORS = (Author.STUDENT,)
FROM_BUFFER = True
OPTIONS = {"threshold": 1.0}
REFUSED = {
    "threshold": (-0.1, 1.1),
    "rise": (-0.1, 1.1),
    "tolerance": (float("nan"),),
    "checks": (0,),
    "capacity": (0,),
}
STEPS = 6
METHOD_OPTIONS = {"threshold": 0.5, "rise": 0.1, "tolerance": -9.0, "checks": STEPS, "capacity": 6}


def thresholds(rollout, batch, context, steps=20) -> list[float]:
    seen = []
    for step in range(steps):
        context.progress = step / steps
        rollout(batch, context)
        seen.append(rollout.threshold)
    return seen


def test_the_threshold_rises_only_when_validation_gets_worse(batch, context):
    losses = [3.0, 2.0, 2.0, 2.5, 2.6, 2.4, 2.45, 2.0, 2.0, 2.1]
    rollout = Replay(rise=0.1, checks=10, max_new_tokens=1)
    seen = thresholds(rollout, batch([1]), context(losses=losses))
    worse = [later > earlier for earlier, later in pairwise(losses)]
    assert [round(value, 6) for value in seen[::2]] == [round(0.1 * sum(worse[:n]), 6) for n in range(10)]
    assert seen[::2] == seen[1::2]  # a check every other step
    assert sum(worse) == 4


def test_the_threshold_rises_to_one_and_no_further(batch, context):
    rollout = Replay(threshold=0.5, rise=0.3, checks=4, max_new_tokens=1)
    assert thresholds(rollout, batch([1]), context(losses=[1.0, 2.0, 3.0, 4.0]), steps=4) == [0.5, 0.8, 1.0, 1.0]


def test_validation_must_get_worse_by_more_than_the_tolerance(batch, context):
    rollout = Replay(rise=0.1, tolerance=0.2, checks=4, max_new_tokens=1)
    assert thresholds(rollout, batch([1]), context(losses=[1.0, 1.2, 1.5, 1.6]), steps=4) == [0, 0, 0.1, 0.1]


def test_validation_is_computed_only_where_a_check_is_due(batch, context):
    ours, asked = context(), []
    ours.validation_loss = lambda: asked.append(ours.progress) or 1.0
    thresholds(Replay(checks=5), batch([1]), ours, steps=20)
    assert asked == [0, 0.2, 0.4, 0.6, 0.8]


def test_without_a_threshold_the_data_stays(batch, context):
    rollout, given, ours = Replay(), batch([1]), context()
    assert all(rollout(given, ours) is given for _ in range(50))


def test_validation_data_must_be_there(batch, context):
    ours = context()
    ours.validation_loss = None
    assert Replay().needs_validation
    with pytest.raises(ValueError, match="needs validation data"):
        Replay()(batch(), ours)


def test_the_share_of_the_students_rows_is_the_threshold_and_new_answers_get_fewer(batch, context):
    """At progress 3/4 a quarter of the student's batches are new answers, the others come out of the buffer."""
    rollout, ours, given = Replay(threshold=0.4, rise=0, max_new_tokens=1), context(progress=0.75), batch([1])
    rollout(given, ours)
    ours.cost, own, new = Cost(), 0, 0
    for _ in range(600):
        before = ours.cost.get("generated_tokens", 0)
        own += rollout(given, ours) is not given
        new += ours.cost.get("generated_tokens", 0) > before
    assert abs(own - 240) < 60  # 5 standard deviations of Binomial(600, 0.4)
    assert abs(new - 60) < 37  # and of Binomial(600, 0.1)


def test_the_buffer_forgets_the_oldest(batch, context, monkeypatch):
    rollout, ours = Replay(threshold=1.0, capacity=3, max_new_tokens=4), context()
    fresh, student = [], rollout.student
    answer = student.answer

    def noting(prompts, context):
        answers = answer(prompts, context)
        fresh.extend(zip(prompts, answers, strict=True))
        return answers

    monkeypatch.setattr(student, "answer", noting)
    for rows in ([0, 6], [13, 3], [20, 1]):
        rollout(batch(rows), ours)
        assert list(rollout.buffer) == fresh[-3:]
    assert len(fresh) == 6


def test_rows_come_out_of_the_buffer_at_random(batch, context):
    rollout, ours = Replay(threshold=1.0, max_new_tokens=4), context()
    rollout(batch(ROWS), ours)
    ours.progress = 1.0
    held = list(rollout.buffer)
    made = [rollout(batch([1, 2, 4]), ours) for _ in range(100)]
    drawn = [row for one in made for row in rows_of(one)]
    counts = [drawn.count(row) for row in held]
    assert sum(counts) == 300
    assert all(abs(count - 60) < 35 for count in counts)  # 5 standard deviations of Binomial(300, 1/5)
    assert ours.metrics["answer_length"][1] == len(held)  # nothing new


def test_a_restored_buffer_gives_the_same_rows(batch, context, tmp_path):
    rollout, ours = Replay(threshold=0.6, rise=0.2, checks=4, capacity=7, max_new_tokens=5), context(losses=[1.0, 2.0])
    for step, rows in enumerate([[0, 6, 3], [13, 3, 1], [20, 1, 2]]):
        ours.progress = step / 8
        rollout(batch(rows), ours)
    torch.save([rollout.state_dict(), ours.generator.get_state()], tmp_path / "state.pt")
    state, randomness = torch.load(tmp_path / "state.pt", weights_only=True)
    later, theirs = Replay(threshold=0.6, rise=0.2, checks=4, capacity=7, max_new_tokens=5), context()
    later.load_state_dict(state)
    theirs.generator.set_state(randomness)
    assert (later.threshold, later.last, later.checked) == (0.8, 2.0, 2)
    for step in range(3, 8):
        ours.progress = theirs.progress = step / 8
        assert equal(rollout(batch(), ours), later(batch(), theirs))
    assert rollout.state_dict() == later.state_dict()
    assert later.buffer.maxlen == 7
