"""Every prompt with the teacher's answer and with the student's."""

import torch
from rows import gives

from studykit.losses import Author
from studykit.rollouts import get_rollout

AUTHORS = Author.TEACHER, Author.STUDENT


def test_the_teachers_rows_then_the_students(batch, context, tmp_path):
    rollout = get_rollout("teacher_and_student", teacher_temperature=1.0, max_new_tokens=7)
    ours = context()
    first, second = gives(rollout, batch(), ours), gives(rollout, batch(), ours)
    assert first[:5] == second[:5]
    assert first[5:] != second[5:]
    torch.save(rollout.state_dict(), tmp_path / "state.pt")
    later = get_rollout("teacher_and_student", teacher_temperature=1.0, max_new_tokens=7)
    later.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert gives(later, batch(), context(9))[:5] == first[:5]
