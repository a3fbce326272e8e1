"""Every rollout gives rows to train on: prompt and answer, only the answer supervised, made without a gradient."""

from types import ModuleType
from typing import Any

import pytest
import torch
from rows import END, GENERATING, PAD, authors_of, case_of, equal, gives, make_rollout, rows_of, takes

from studykit.chat import encode
from studykit.collate import collate
from studykit.errors import InputError
from studykit.losses import Author
from studykit.rollouts import ROLLOUTS, FunctionRollout, Rollout, get_rollout
from studykit.sources import Example

REFUSED: dict[str, tuple[Any, ...]] = {
    "max_new_tokens": (0, 2.5),
    "temperature": (-1.0, "1"),
    "top_p": (0.0, 1.5),
    "teacher_temperature": (-1.0,),
    "teacher_top_p": (0.0, 1.5),
}
every_rollout = pytest.mark.parametrize("name", ROLLOUTS.names())
generating = pytest.mark.parametrize("name", GENERATING)
WITH_TEACHER = [name for name in GENERATING if get_rollout(name).needs_teacher]


def refused(name: str, option: str) -> list[Any]:
    """Return values that an option refuses: a mapping, which no option takes, and those out of its range."""
    return [{"not": "a value"}, *(REFUSED | getattr(case_of(name), "REFUSED", {})).get(option, ())]


@generating
def test_rows_are_prompt_and_answer_and_only_the_answer_is_supervised(name, batch, context):
    given, limit, case = batch(range(12)), 7, case_of(name)
    made = make_rollout(name, max_new_tokens=limit)(given, context())
    rows, prompts = rows_of(made), given.prompts()
    assert prompts == [prompt for prompt, _ in rows_of(given)]
    if getattr(case, "FROM_BUFFER", False):
        assert all(prompt in prompts for prompt, _ in rows)
    else:
        assert [prompt for prompt, _ in rows] == prompts * len(authors_of(name))
    answers = [answer for _, answer in rows]
    assert all(END not in answer[:-1] and 1 <= len(answer) <= limit for answer in answers)
    assert all(answer[-1] == END or len(answer) == limit for answer in answers)
    assert {answer[-1] == END for answer in answers} == {True, False}
    assert made.keys == []
    assert made.author is not None
    assert made.author.tolist() == [author for author in authors_of(name) for _ in range(12)]
    assert made.author.dtype == torch.int64
    assert len(made.target) == sum(len(answer) for answer in answers)


@generating
def test_no_gradient_flows_and_dropout_is_off_while_training_goes_on(name, batch, context):
    ours, calls = context(), []
    ours.student.register_forward_pre_hook(lambda module, _: calls.append((module.training, torch.is_grad_enabled())))
    made = make_rollout(name, max_new_tokens=5)(batch(), ours)
    assert all(not tensor.requires_grad for tensor in (made.input_ids, made.attention_mask, made.loss_mask))
    assert all(parameter.grad is None for parameter in ours.student.parameters())
    assert set(calls) == ({(False, False)} if Author.STUDENT in authors_of(name) else set())
    assert ours.student.training


@generating
def test_a_seed_decides_every_answer(name, batch, context):
    options = {option: 1.0 for option in ("temperature", "teacher_temperature") if option in takes(name)}
    rollouts = [make_rollout(name, max_new_tokens=7, **options) for _ in range(3)]
    first, again, other = (r(batch(), context(seed)) for r, seed in zip(rollouts, (1, 1, 2), strict=True))
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
def test_drawn_tokens_are_counted_and_length_and_end_are_logged(name, batch, context):
    ours = context()
    rows = gives(make_rollout(name, max_new_tokens=7), batch(), ours)
    drawn = sum(len(answer) for _, answer in rows)
    if not getattr(case_of(name), "FROM_BUFFER", False):
        rejected = "accepted" in ours.metrics
        assert ours.cost["generated_tokens"] > drawn if rejected else ours.cost["generated_tokens"] == drawn
        assert ours.metrics["answer_length"] == (drawn, len(rows))
        assert ours.metrics["ended"] == (sum(answer[-1] == END for _, answer in rows), len(rows))
    assert (ours.cost["scored_tokens"] > 0) == (name in WITH_TEACHER)


@generating
def test_raw_text_has_no_prompt_to_answer(name, tokenizer, context):
    text = Example("t", ({"role": "text", "content": "Spell K AE T"},), "s", "human", "train")
    raw = collate(encode([text], tokenizer, 64), [0], PAD)
    with pytest.raises(InputError, match="raw texts"):
        make_rollout(name)(raw, context())


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_a_missing_teacher_is_named(name, batch, context):
    ours = context()
    ours.teacher = None
    with pytest.raises(ValueError, match="needs a teacher, and none was given"):
        make_rollout(name)(batch(), ours)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [(name, option, value) for name in ROLLOUTS.names() for option in takes(name) for value in refused(name, option)],
)
def test_an_option_out_of_range_is_refused_at_once(name, option, value):
    with pytest.raises(InputError, match=rf"rollout '{name}': {option} must be"):
        get_rollout(name, **{option: value})


@every_rollout
def test_an_unknown_option_is_refused(name):
    with pytest.raises(InputError, match="unknown option 'lambada'"):
        get_rollout(name, lambada=1)


def test_a_function_takes_all_flags_from_its_file():
    module = ModuleType("made_up")
    flags = ["keeps_rows", "needs_teacher", "needs_validation", "across_tokenizers"]
    vars(module).update({flag.upper(): True for flag in flags})
    rollout = FunctionRollout(lambda batch, context: batch, module, {})
    assert all(getattr(rollout, flag) is True for flag in flags)
    assert not any(getattr(Rollout, flag) for flag in flags)
