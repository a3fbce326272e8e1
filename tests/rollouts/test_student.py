"""Answers of the student, or of a mixture of student and teacher."""

from rows import END, PAD, V, gives

from studykit.generation import Sampling, Vocabulary, generate
from studykit.losses import Author
from studykit.rollouts import get_rollout

AUTHORS = (Author.STUDENT,)
REFUSED = {"teacher_share": (-0.1, 1.0)}


def test_students_answers_are_drawn_from_the_student_without_dropout(batch, context):
    ours, theirs = context(3), context(3)
    rows = gives(get_rollout("student", temperature=0.7, top_p=0.9, max_new_tokens=9), batch(), ours)
    prompts = batch().prompts()
    models, vocabulary = [(theirs.student.eval(), 1.0)], Vocabulary([END], PAD, V)
    expected = generate(models, prompts, [9] * 5, Sampling(0.7, 0.9), theirs.generator, vocabulary)
    assert [answer for _, answer in rows] == expected.tokens


def test_a_share_of_the_teacher_is_mixed_in(batch, context):
    ours = context()
    almost_all = get_rollout("student", teacher_share=1 - 1e-9, max_new_tokens=7, temperature=0)
    own = get_rollout("student", temperature=0, max_new_tokens=7)
    teachers = get_rollout("teacher", temperature=0, max_new_tokens=7, train_on_cut=True)
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
