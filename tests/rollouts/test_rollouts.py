"""Every rollout gives rows to train on: prompt and answer, only the answer supervised, made without a gradient."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from studykit.batches import DATA, STUDENT, TEACHER, Batch, collate
from studykit.chat import encode
from studykit.errors import InputError
from studykit.generation import Sampling, sample
from studykit.models import load_tokenizer
from studykit.rollouts import ROLLOUTS, RolloutContext, answered, get_rollout, joined
from studykit.rollouts.replay import Replay
from studykit.rollouts.teacher import Teacher
from studykit.sources import Example
from studykit.teacher.online import OnlineTeacher

V, END, PAD = 85, 2, 0
ROWS = [0, 6, 13, 3, 20]
OPTIONS: dict[str, dict[str, Any]] = {"replay": {"threshold": 1.0}, "mixed": {"lmbda": 1.0}}
GENERATING = ["both", "interleaved", "mixed", "replay", "student", "teacher"]
WRITER = {"interleaved": STUDENT, "mixed": STUDENT, "replay": STUDENT, "student": STUDENT, "teacher": TEACHER}
every_rollout = pytest.mark.parametrize("name", ROLLOUTS.names())
generating = pytest.mark.parametrize("name", GENERATING)


@pytest.fixture(scope="module")
def models(tiny_model):
    """Make a student with dropout, in training mode as the trainer holds it, and a teacher; both end now and then."""

    def ending(seed, **changes):
        model = tiny_model(seed=seed, spread=8.0, attention_dropout=0.5, **changes)
        with torch.no_grad():
            model.lm_head.weight[END] *= 2
        return model

    return lambda: (ending(1).train(), ending(2).eval().requires_grad_(False))


@pytest.fixture
def context(models, tokenizer):
    """Make what a rollout may use; validation gives a loss after the other from a list."""

    def make(seed=0, losses=(), **changes):
        student, teacher = models()
        left = list(losses)
        return RolloutContext(
            student,
            OnlineTeacher(teacher, tokenizer, V),
            tokenizer,
            torch.Generator().manual_seed(seed),
            validation_loss=lambda: left.pop(0) if left else 1.0,
            **{"max_length": 48, **changes},
        )

    return make


@pytest.fixture
def batch(encoded):
    """Make a batch of examples of the data."""
    return lambda rows=ROWS: collate(encoded, rows, PAD)


def make_rollout(name, **options):
    return get_rollout(name, **(OPTIONS.get(name, {}) | options))


def rows_of(batch: Batch) -> list[tuple[list[int], list[int]]]:
    """Return prompt and answer of each row, and check that nothing else is in it."""
    assert batch.input_ids.dtype == batch.attention_mask.dtype == torch.int64
    assert batch.supervised.dtype == torch.bool
    made = []
    parts = (batch.input_ids.tolist(), batch.attention_mask.tolist(), batch.supervised.tolist())
    for ids, mask, supervised in zip(*parts, strict=True):
        length, start = sum(mask), supervised.index(True)
        assert mask == [1] * length + [0] * (len(ids) - length)
        assert supervised == [False] * start + [True] * (length - start) + [False] * (len(ids) - length)
        assert set(ids[length:]) <= {PAD}
        made.append((ids[:start], ids[start:length]))
    return made


def equal(left: Batch, right: Batch) -> bool:
    tensors = [(b.input_ids, b.attention_mask, b.supervised, b.origin) for b in (left, right)]
    return all(a is b or torch.equal(a, b) for a, b in zip(*tensors, strict=True))


def gives(rollout, batch, context) -> list:
    return rows_of(rollout(batch, context))


# all of them ----------------------------------------------------------------------------------------------------------


def test_the_lists_of_this_file_name_every_rollout():
    assert sorted([*GENERATING, "augmented", "dataset"]) == ROLLOUTS.names()


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
        assert [prompt for prompt, _ in rows] == prompts * (2 if name == "both" else 1)
    answers = [answer for _, answer in rows]
    assert all(END not in answer[:-1] and 1 <= len(answer) <= limit for answer in answers)
    assert all(answer[-1] == END or len(answer) == limit for answer in answers)
    assert {answer[-1] == END for answer in answers} == {True, False}
    assert made.keys == []
    assert made.origin is not None
    by = [TEACHER] * 12 + [STUDENT] * 12 if name == "both" else [WRITER[name]] * 12
    assert made.origin.tolist() == by
    assert len(made.target) == sum(len(answer) for answer in answers)


@generating
def test_no_gradient_flows_and_dropout_is_off_while_training_goes_on(name, batch, context):
    ours, calls = context(), []
    ours.student.register_forward_pre_hook(lambda module, _: calls.append((module.training, torch.is_grad_enabled())))
    made = make_rollout(name, max_new_tokens=5)(batch(), ours)
    assert all(not tensor.requires_grad for tensor in (made.input_ids, made.attention_mask, made.supervised))
    assert all(parameter.grad is None for parameter in ours.student.parameters())
    assert set(calls) == (set() if name == "teacher" else {(False, False)})
    assert ours.student.training


@generating
def test_a_seed_decides_every_answer(name, batch, context):
    options = {"temperature": 1.0, "teacher_temperature": 1.0, "max_new_tokens": 7}
    if name not in ("both", "interleaved"):
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
        assert 0 < ours.watched["accepted"][0] < ours.watched["accepted"][1]
    elif name != "replay":
        assert ours.cost["generated_tokens"] == drawn
        assert ours.watched["answer_length"] == (drawn, len(rows))
        assert ours.watched["ended"] == (sum(answer[-1] == END for _, answer in rows), len(rows))
    assert (ours.cost["scored_tokens"] > 0) == (name in ("both", "interleaved", "teacher"))


@pytest.mark.parametrize("name", GENERATING)
def test_raw_text_has_no_prompt_to_answer(name, tokenizer, context):
    text = Example("t", ({"role": "text", "content": "Spell K AE T"},), "s", "human", "train")
    raw = collate(encode([text], tokenizer, 64), [0], PAD)
    with pytest.raises(InputError, match="raw texts"):
        make_rollout(name)(raw, context())


@pytest.mark.parametrize("name", ["both", "interleaved", "teacher"])
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
    ("both", "teacher_temperature", -1.0),
    ("interleaved", "top_k", 0),
    ("interleaved", "draft_tokens", 0),
    ("interleaved", "teacher_temperature", -1.0),
    ("interleaved", "teacher_top_p", 0.0),
    *(("replay", option, value) for option in ("threshold", "rise") for value in (-0.1, 1.1)),
    ("replay", "checks", 0),
    ("replay", "capacity", 0),
    *(("augmented", "prompt_dropout", value) for value in (-0.1, 1.0)),
]


@pytest.mark.parametrize(("name", "option", "value"), OUT_OF_RANGE)
def test_an_option_out_of_range_is_refused_at_once(name, option, value):
    with pytest.raises(InputError, match=option.removeprefix("teacher_") if option != "teacher_share" else option):
        get_rollout(name, **{option: value})


@every_rollout
def test_an_unknown_option_is_refused(name):
    with pytest.raises(InputError, match="unknown option 'lambada'"):
        get_rollout(name, lambada=1)


# one by one -----------------------------------------------------------------------------------------------------------


def test_the_data_stays_as_it_is(batch, context):
    given, ours = batch(), context()
    assert get_rollout("dataset")(given, ours) is given
    assert get_rollout("dataset").keeps_rows
    assert ours.cost == {}


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
        ends=[END],
        pad=PAD,
        vocabulary=V,
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
    answer = ours.asked_teacher.answer

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
    rollout = get_rollout("both", teacher_temperature=1.0, max_new_tokens=7)
    ours = context()
    first, second = gives(rollout, batch(), ours), gives(rollout, batch(), ours)
    assert first[:5] == second[:5]
    assert first[5:] != second[5:]
    torch.save(rollout.state_dict(), tmp_path / "state.pt")
    later = get_rollout("both", teacher_temperature=1.0, max_new_tokens=7)
    later.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert gives(later, batch(), context(9))[:5] == first[:5]


def test_a_correction_by_the_teacher_is_the_students_draft_where_all_is_accepted(batch, context):
    options = {"temperature": 0.8, "top_p": 0.9, "max_new_tokens": 9}
    drafted = get_rollout("interleaved", top_k=V, draft_tokens=3, **options)(batch(), context(4))
    assert equal(drafted, get_rollout("student", **options)(batch(), context(4)))


def test_a_correction_by_the_teacher_is_its_own_answer_where_only_its_first_is_accepted(batch, context):
    drafted = get_rollout("interleaved", top_k=1, teacher_temperature=0, max_new_tokens=9)(batch(), context(4))
    assert rows_of(drafted) == gives(get_rollout("teacher", max_new_tokens=9), batch(), context())


# replay ---------------------------------------------------------------------------------------------------------------


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


def test_validation_is_asked_only_where_a_check_is_due(batch, context):
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
    with pytest.raises(ValueError, match="asks for validation data"):
        Replay()(batch(), ours)


def test_the_share_of_the_students_rows_is_the_threshold_and_new_answers_get_fewer(batch, context):
    """At progress 3/4 a quarter of the student's batches are new answers, the others come out of the buffer."""
    rollout, ours, given = Replay(threshold=0.4, rise=0, max_new_tokens=1), context(progress=0.75), batch([1])
    rollout(given, ours)
    ours.cost, own, new = {}, 0, 0
    for _ in range(600):
        before = ours.cost.get("generated_tokens", 0)
        own += rollout(given, ours) is not given
        new += ours.cost.get("generated_tokens", 0) > before
    assert abs(own - 240) < 60  # 5 standard deviations of Binomial(600, 0.4)
    assert abs(new - 60) < 37  # and of Binomial(600, 0.1)


def test_the_buffer_forgets_the_oldest(batch, context):
    rollout, ours = Replay(threshold=1.0, capacity=3, max_new_tokens=4), context()
    fresh = []
    keep = rollout._keep
    rollout._keep = lambda rows: (fresh.extend(rows_of(rows)), keep(rows))[1]
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
    assert ours.watched["answer_length"][1] == len(held)  # nothing new


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


# augmented ------------------------------------------------------------------------------------------------------------


def test_augmentation_leaves_out_its_share_of_ordinary_prompt_tokens(batch, context, tokenizer):
    rollout, ours, special = get_rollout("augmented", prompt_dropout=0.3), context(), set(tokenizer.all_special_ids)
    before = after = 0
    for _ in range(60):
        given = batch()
        made = rollout(given, ours)
        for (prompt, answer), (kept, same) in zip(rows_of(given), rows_of(made), strict=True):
            assert same == answer
            assert [token for token in kept if token in special] == [token for token in prompt if token in special]
            left = iter(prompt)
            assert all(token in left for token in kept)  # in their order
            before += sum(token not in special for token in prompt)
            after += sum(token not in special for token in kept)
        assert made.origin is not None
        assert made.origin.tolist() == [DATA] * 5
        assert made.keys == []
    assert abs(before - after - 0.3 * before) < 5 * (before * 0.21) ** 0.5


def test_augmentation_by_nothing_is_the_data(batch, context):
    assert rows_of(get_rollout("augmented", prompt_dropout=0.0)(batch(), context())) == rows_of(batch())


def test_augmentation_costs_nothing_and_follows_the_seed(batch, context):
    rollout, ours = get_rollout("augmented", prompt_dropout=0.5), context(1)
    first, again, other = rollout(batch(), ours), rollout(batch(), context(1)), rollout(batch(), context(2))
    assert equal(first, again)
    assert not equal(first, other)
    assert ours.cost == {}


def test_augmentation_supervises_no_more_than_the_data_does(context):
    """Many chat templates put something behind the end token, such as Qwen's newline: that is never taught."""
    own = load_tokenizer("lexicon/tokenizer", Path())
    own.chat_template = (
        "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} <|end|> 9 {% endfor %}"
        "{% if add_generation_prompt %}<|assistant|> {% endif %}"
    )
    messages = ({"role": "user", "content": "Spell K AE T"}, {"role": "assistant", "content": "c a t"})
    encoded = encode([Example("e", messages, "s", "human", "train")], own, 64)
    given = collate(encoded, [0], PAD)
    made = get_rollout("augmented", prompt_dropout=0.0)(given, context())
    assert own.convert_ids_to_tokens(given.target.tolist()) == ["c", "a", "t", "<|end|>"]
    assert own.convert_ids_to_tokens(made.target.tolist()) == ["c", "a", "t", "<|end|>"]


# what they are made of ------------------------------------------------------------------------------------------------


def test_answered_supervises_the_answer_from_its_first_token(batch):
    made = answered(batch(), [[5, 6, 7], [8]], [[9, 2], []], STUDENT, PAD)
    assert made.input_ids.tolist() == [[5, 6, 7, 9, 2], [8, 0, 0, 0, 0]]
    assert made.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]
    assert made.supervised.int().tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]
    assert made.target.tolist() == [9, 2]
    hidden = torch.arange(10.0).view(2, 5, 1)
    assert made.predicting(hidden)[:, 0].tolist() == [2, 3]  # the prompt's last position predicts the first token


def test_joined_pads_to_the_wider_and_keeps_who_wrote_what(batch):
    wide, narrow = batch([6]), answered(batch(), [[5, 6]], [[7]], TEACHER, PAD)
    both = joined([narrow, wide], PAD)
    assert rows_of(both) == [([5, 6], [7]), *rows_of(wide)]
    assert both.origin is not None
    assert both.origin.tolist() == [TEACHER, DATA]
    assert both.keys == []
    assert joined([wide, wide], PAD).keys == wide.keys * 2
