"""The student's drafts, corrected by the teacher."""

from rows import V, equal, gives, rows_of

from studykit.losses import Author
from studykit.rollouts import get_rollout

AUTHORS = (Author.STUDENT,)
REFUSED = {"top_k": (0, 1.5), "draft_tokens": (0,)}
METHOD_OPTIONS = {
    "sampling_temperature": 1.0,
    "teacher_sampling_temperature": 1.0,
    "draft_tokens": 3,
    "top_k": 10,
}


def test_a_correction_by_the_teacher_is_the_students_draft_where_all_is_accepted(batch, context):
    options = {"temperature": 0.8, "top_p": 0.9, "max_new_tokens": 9}
    drafted = get_rollout("interleaved", top_k=V, draft_tokens=3, **options)(batch(), context(4))
    assert equal(drafted, get_rollout("student", **options)(batch(), context(4)))


def test_a_correction_by_the_teacher_is_its_own_answer_where_only_its_first_is_accepted(batch, context):
    drafted = get_rollout("interleaved", top_k=1, teacher_temperature=0, max_new_tokens=9)(batch(), context(4))
    assert rows_of(drafted) == gives(get_rollout("teacher", max_new_tokens=9, train_on_cut=True), batch(), context())


def test_the_accepted_share_of_the_verified_tokens_is_logged(batch, context):
    ours = context()
    get_rollout("interleaved", max_new_tokens=7)(batch(), ours)
    accepted, verified = ours.metrics["accepted"]
    assert 0 < accepted < verified
