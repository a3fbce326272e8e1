"""Who answers: the student, the teacher, a mixture of them, both after each other, or the student corrected."""

import pytest
import torch
from rows import END, PAD, V, equal, gives, rows_of

from studykit.generation import Sampling, sample
from studykit.rollouts import get_rollout
from studykit.rollouts.teacher import Teacher


def test_students_answers_are_drawn_from_the_student_without_dropout(batch, context):
    ours, theirs = context(3), context(3)
    rows = gives(get_rollout("student", temperature=0.7, top_p=0.9, max_new_tokens=9), batch(), ours)
    prompts = batch().prompts()
    expected = sample(
        [(theirs.student.eval(), 1.0)],
        prompts,
        [9] * 5,
        Sampling(0.7, 0.9),
        theirs.generator,
        eos_token_ids=[END],
        pad_token_id=PAD,
        vocab_size=V,
    )
    assert [answer for _, answer in rows] == expected.tokens


def test_a_share_of_the_teacher_is_mixed_in(batch, context):
    ours = context()
    almost_all = get_rollout("student", teacher_share=1 - 1e-9, max_new_tokens=7, temperature=0)
    own, teachers = (get_rollout(name, temperature=0, max_new_tokens=7) for name in ("student", "teacher"))
    made, theirs, students = (gives(rollout, batch(), ours) for rollout in (almost_all, teachers, own))
    assert made == theirs != students
    assert almost_all.needs_teacher
    assert not own.needs_teacher


def test_the_teacher_reads_what_it_takes_part_in(batch, context):
    ours, alone = context(), context()
    rows = gives(get_rollout("student", teacher_share=0.2, max_new_tokens=7), batch(), ours)
    assert ours.cost["scored_tokens"] == sum(len(prompt) + len(answer) - 1 for prompt, answer in rows)
    get_rollout("student", max_new_tokens=7)(batch(), alone)
    assert alone.cost["scored_tokens"] == 0


@pytest.mark.parametrize(("lmbda", "own"), [(0.0, 0), (1.0, 30)])
def test_lmbda_at_its_ends_is_the_data_or_the_student(lmbda, own, batch, context):
    rollout, ours, given = get_rollout("mixed", lmbda=lmbda, max_new_tokens=2), context(), batch([1])
    assert sum(rollout(given, ours) is not given for _ in range(30)) == own


def test_lmbda_is_the_share_of_micro_batches_that_are_the_students(batch, context):
    rollout, ours, given = get_rollout("mixed", lmbda=0.25, max_new_tokens=1), context(), batch([1])
    own = sum(rollout(given, ours) is not given for _ in range(400))
    assert abs(own - 100) < 44  # 5 standard deviations of Binomial(400, 1/4)


def test_the_teacher_is_asked_once_per_prompt(batch, context, monkeypatch):
    rollout, ours, asked = Teacher(temperature=1.0, max_new_tokens=7), context(), []
    answer = ours.required_teacher.answer

    def counting(batch, rows, *arguments):
        asked.append(len(rows))
        return answer(batch, rows, *arguments)

    monkeypatch.setattr(ours.teacher, "answer", counting)
    first = rollout(batch([0, 6, 13, 0]), ours)
    again = rollout(batch([13, 0, 6]), ours)
    rows = rows_of(first)
    assert rows_of(again) == [rows[2], rows[0], rows[1]]
    assert rows[0] == rows[3]
    assert asked == [3]
    more = rows_of(rollout(batch([6, 3]), ours))
    assert asked == [3, 1]
    assert more[0] == rows[1]
    assert ours.cost["generated_tokens"] == sum(len(answer) for _, answer in [*rows[:3], more[1]])


def test_the_teachers_answers_survive_a_restart(batch, context, tmp_path):
    first, second = (Teacher(temperature=1.0, max_new_tokens=7) for _ in range(2))
    written = first(batch(), context(1))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    ours = context(2)
    assert equal(second(batch(), ours), written)
    assert ours.cost == {}
    assert not equal(Teacher(temperature=1.0, max_new_tokens=7)(batch(), context(2)), written)


def test_both_gives_the_teachers_rows_then_the_students(batch, context, tmp_path):
    rollout = get_rollout("teacher_and_student", teacher_temperature=1.0, max_new_tokens=7)
    ours = context()
    first, second = gives(rollout, batch(), ours), gives(rollout, batch(), ours)
    assert first[:5] == second[:5]
    assert first[5:] != second[5:]
    torch.save(rollout.state_dict(), tmp_path / "state.pt")
    later = get_rollout("teacher_and_student", teacher_temperature=1.0, max_new_tokens=7)
    later.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert gives(later, batch(), context(9))[:5] == first[:5]


def test_a_correction_by_the_teacher_is_the_students_draft_where_all_is_accepted(batch, context):
    options = {"temperature": 0.8, "top_p": 0.9, "max_new_tokens": 9}
    drafted = get_rollout("interleaved", top_k=V, draft_tokens=3, **options)(batch(), context(4))
    assert equal(drafted, get_rollout("student", **options)(batch(), context(4)))


def test_a_correction_by_the_teacher_is_its_own_answer_where_only_its_first_is_accepted(batch, context):
    drafted = get_rollout("interleaved", top_k=1, teacher_temperature=0, max_new_tokens=9)(batch(), context(4))
    assert rows_of(drafted) == gives(get_rollout("teacher", max_new_tokens=9), batch(), context())
