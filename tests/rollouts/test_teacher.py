"""Answers of the teacher, generated once per prompt."""

import torch
from rows import END, equal, rows_of

from studykit.losses import Author
from studykit.rollouts.teacher import Teacher

AUTHORS = (Author.TEACHER,)
OPTIONS = {"train_on_cut": True}
METHOD_OPTIONS = {"sampling_temperature": 1.0, "train_on_cut": True}


def test_the_teacher_answers_each_prompt_once(batch, context, monkeypatch):
    rollout, ours, asked = Teacher(temperature=1.0, max_new_tokens=7, train_on_cut=True), context(), []
    generate = ours.required_teacher.generate

    def counting(batch, rows, *arguments):
        asked.append(len(rows))
        return generate(batch, rows, *arguments)

    monkeypatch.setattr(ours.teacher, "generate", counting)
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


def test_an_answer_that_was_cut_is_trained_on_only_by_request(batch, context):
    rows = list(range(40))
    default, asked = (Teacher(temperature=1.0, max_new_tokens=20, train_on_cut=cut) for cut in (False, True))
    given, everything = (rollout(batch(rows), context(1)) for rollout in (default, asked))
    ended = torch.tensor([answer[-1] == END for _, answer in rows_of(everything)])
    assert 0 < ended.sum() < len(rows)
    assert torch.equal(given.input_ids, everything.input_ids)
    assert torch.equal(given.loss_mask, everything.loss_mask & ended[:, None])


def test_the_teachers_answers_survive_a_restart(batch, context, tmp_path):
    first, second = (Teacher(temperature=1.0, max_new_tokens=7) for _ in range(2))
    written = first(batch(), context(1))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    ours = context(2)
    assert equal(second(batch(), ours), written)
    assert ours.cost == {}
    assert not equal(Teacher(temperature=1.0, max_new_tokens=7)(batch(), context(2)), written)
