"""Every rollout gives rows to train on: prompt and answer, only the answer supervised, made without a gradient."""

import pytest
import torch
from rows import END, PAD, equal, gives, make_rollout, rows_of

from studykit.chat import encode
from studykit.collate import collate
from studykit.errors import InputError
from studykit.losses import Author
from studykit.rollouts import ROLLOUTS, get_rollout
from studykit.sources import Example

GENERATING = ["teacher_and_student", "interleaved", "mixed", "replay", "student", "teacher"]
WRITER = {
    "interleaved": Author.STUDENT,
    "mixed": Author.STUDENT,
    "replay": Author.STUDENT,
    "student": Author.STUDENT,
    "teacher": Author.TEACHER,
}
every_rollout = pytest.mark.parametrize("name", ROLLOUTS.names())
generating = pytest.mark.parametrize("name", GENERATING)


def test_the_lists_of_this_file_name_every_rollout():
    assert sorted([*GENERATING, "prompt_dropout", "dataset"]) == ROLLOUTS.names()


@generating
def test_rows_are_prompt_and_answer_and_only_the_answer_is_supervised(name, batch, context):
    given, limit = batch(range(12)), 7
    made = make_rollout(name, max_new_tokens=limit)(given, context())
    rows, prompts = rows_of(made), given.prompts()
    expected = [prompt for prompt, _ in rows_of(given)]
    assert prompts == expected
    if name == "replay":
        assert all(prompt in prompts for prompt, _ in rows)
    else:
        assert [prompt for prompt, _ in rows] == prompts * (2 if name == "teacher_and_student" else 1)
    answers = [answer for _, answer in rows]
    assert all(END not in answer[:-1] and 1 <= len(answer) <= limit for answer in answers)
    assert all(answer[-1] == END or len(answer) == limit for answer in answers)
    assert {answer[-1] == END for answer in answers} == {True, False}
    assert made.keys == []
    assert made.author is not None
    by = [Author.TEACHER] * 12 + [Author.STUDENT] * 12 if name == "teacher_and_student" else [WRITER[name]] * 12
    assert made.author.tolist() == by
    assert len(made.target) == sum(len(answer) for answer in answers)


@generating
def test_no_gradient_flows_and_dropout_is_off_while_training_goes_on(name, batch, context):
    ours, calls = context(), []
    ours.student.register_forward_pre_hook(lambda module, _: calls.append((module.training, torch.is_grad_enabled())))
    made = make_rollout(name, max_new_tokens=5)(batch(), ours)
    assert all(not tensor.requires_grad for tensor in (made.input_ids, made.attention_mask, made.loss_mask))
    assert all(parameter.grad is None for parameter in ours.student.parameters())
    assert set(calls) == (set() if name == "teacher" else {(False, False)})
    assert ours.student.training


@generating
def test_a_seed_decides_every_answer(name, batch, context):
    options = {"temperature": 1.0, "teacher_temperature": 1.0, "max_new_tokens": 7}
    if name not in ("teacher_and_student", "interleaved"):
        del options["teacher_temperature"]
    first, again, other = (make_rollout(name, **options)(batch(), context(seed)) for seed in (1, 1, 2))
    assert equal(first, again)
    assert not equal(first, other)


@generating
def test_a_sequence_is_never_longer_than_the_stage_allows(name, batch, context):
    given = batch()
    longest = max(len(prompt) for prompt in given.prompts())
    rows = gives(make_rollout(name, max_new_tokens=128), given, context(max_length=longest + 2))
    assert max(len(prompt) + len(answer) for prompt, answer in rows) == longest + 2
    assert max(len(answer) for _, answer in rows) > 2
    assert min(len(answer) for _, answer in rows) >= 1


@generating
def test_what_was_drawn_is_counted_and_what_ended_is_watched(name, batch, context):
    ours = context()
    rows = gives(make_rollout(name, max_new_tokens=7), batch(), ours)
    drawn = sum(len(answer) for _, answer in rows)
    if name == "interleaved":
        assert ours.cost["generated_tokens"] > drawn
        assert 0 < ours.metrics["accepted"][0] < ours.metrics["accepted"][1]
    elif name != "replay":
        assert ours.cost["generated_tokens"] == drawn
        assert ours.metrics["answer_length"] == (drawn, len(rows))
        assert ours.metrics["ended"] == (sum(answer[-1] == END for _, answer in rows), len(rows))
    assert (ours.cost["scored_tokens"] > 0) == (name in ("teacher_and_student", "interleaved", "teacher"))


@pytest.mark.parametrize("name", GENERATING)
def test_raw_text_has_no_prompt_to_answer(name, tokenizer, context):
    text = Example("t", ({"role": "text", "content": "Spell K AE T"},), "s", "human", "train")
    raw = collate(encode([text], tokenizer, 64), [0], PAD)
    with pytest.raises(InputError, match="raw texts"):
        make_rollout(name)(raw, context())


@pytest.mark.parametrize("name", ["teacher_and_student", "interleaved", "teacher"])
def test_a_missing_teacher_is_named(name, batch, context):
    ours = context()
    ours.teacher = None
    assert make_rollout(name).needs_teacher
    with pytest.raises(ValueError, match="asks a teacher, and none was given"):
        make_rollout(name)(batch(), ours)


OUT_OF_RANGE = [
    *((name, option, value) for name in GENERATING for option, value in (("max_new_tokens", 0), ("temperature", -1.0))),
    *((name, "top_p", value) for name in GENERATING for value in (0.0, 1.5)),
    *(("mixed", "lmbda", value) for value in (-0.1, 1.1)),
    *(("student", "teacher_share", value) for value in (-0.1, 1.0)),
    ("teacher_and_student", "teacher_temperature", -1.0),
    ("interleaved", "top_k", 0),
    ("interleaved", "draft_tokens", 0),
    ("interleaved", "teacher_temperature", -1.0),
    ("interleaved", "teacher_top_p", 0.0),
    *(("replay", option, value) for option in ("threshold", "rise") for value in (-0.1, 1.1)),
    ("replay", "checks", 0),
    ("replay", "capacity", 0),
    *(("prompt_dropout", "prompt_dropout", value) for value in (-0.1, 1.0)),
]


@pytest.mark.parametrize(("name", "option", "value"), OUT_OF_RANGE)
def test_an_option_out_of_range_is_refused_at_once(name, option, value):
    with pytest.raises(InputError, match=option.removeprefix("teacher_") if option != "teacher_share" else option):
        get_rollout(name, **{option: value})


@every_rollout
def test_an_unknown_option_is_refused(name):
    with pytest.raises(InputError, match="unknown option 'lambada'"):
        get_rollout(name, lambada=1)
