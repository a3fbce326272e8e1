"""What is left out before a budget is drawn: counted by filter, and budgets of the rest stay nested."""

import json
from dataclasses import replace

import numpy as np
import pytest

from studykit.data import Inputs
from studykit.data.filters import apply_filters
from studykit.data.sequences import Sequences
from studykit.errors import InputError
from studykit.spec import Filters, RunSpec
from studykit.study.pin import pin


def with_answer(example, text):
    return replace(example, messages=(*example.messages[:-1], {"role": "assistant", "content": text}))


@pytest.fixture
def pool(examples):
    """Return the shared conversations, two without an answer and one that repeats another in other letters."""
    repeated = {"role": "user", "content": examples[0].messages[0]["content"].upper() + " "}
    again = replace(examples[0], id="again", messages=(repeated, *examples[0].messages[1:]))
    turn = {"role": "user", "content": "Spell cat"}, {"role": "assistant", "content": "C A T"}
    long = replace(examples[1], id="long", messages=(*examples[1].messages, *turn))
    return [with_answer(examples[2], ""), *examples, with_answer(examples[3], " \n"), again, long]


def ids(examples):
    return [example.id for example in examples]


def test_each_filter_leaves_out_its_examples_and_counts_them(pool, examples, encoded, tokenizer):
    lengths, answers = encoded.lengths, encoded.response_tokens
    limits = {"max_tokens": int(np.median(lengths)), "min_response_tokens": 3}
    filters = Filters(on_empty="drop", max_turns=2, drop_duplicates=True, **limits)
    kept = apply_filters(filters, pool, tokenizer)
    expected = (answers >= 3) & (lengths <= limits["max_tokens"])
    assert ids(kept.examples) == [e.id for e, stays in zip(examples, expected, strict=True) if stays]
    assert kept.dropped == {
        "on_empty": 2,
        "max_turns": 1,
        "drop_duplicates": 1,
        "min_response_tokens": int((answers < 3).sum()),
        "max_tokens": int(((answers >= 3) & ~expected).sum()),
    }
    assert min(kept.dropped.values()) > 0
    assert isinstance(kept.counts, Sequences)
    assert [kept.counts.encoded.ids_of(i).tolist() for i in range(2)] == [
        encoded.ids_of(i).tolist() for i in np.flatnonzero(expected)[:2]
    ]


def test_without_filters_nothing_is_left_out(examples, tokenizer):
    assert ids(apply_filters(None, examples, tokenizer).examples) == ids(examples)


def test_empty_answers_are_refused_all_at_once(pool, tokenizer):
    message = r"2 of 44 examples \(4.5%\) are without an answer.*first 'word-2'.*filters=\{'on_empty': 'drop'\}"
    with pytest.raises(InputError, match=message):
        apply_filters(Filters(max_turns=2), pool, tokenizer)


def test_an_answer_that_is_context_may_be_empty(examples, tokenizer):
    context = {"role": "assistant", "content": "", "weight": 0}, {"role": "user", "content": "Again"}
    first, *others = examples[0].messages
    example = replace(examples[0], messages=(first, *context, *others))
    assert ids(apply_filters(None, [example], tokenizer).examples) == [example.id]


@pytest.fixture
def pinned(plain_spec, stage, tmp_path):
    """Pin a run of one stage on the lines of a file, with filters and a budget."""

    def make(lines, filters, examples, method="sft", **changes):
        file = tmp_path / "lines.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        data = {"source": "jsonl", "options": {"path": str(file)}, "filters": filters}
        first = stage(method, data=data | {"budget": {"examples": examples}}, steps=2)
        return pin(RunSpec.parse(plain_spec(first, **changes)), Inputs(tmp_path))

    return make


@pytest.fixture
def lines(examples):
    return [{"id": e.id, "messages": list(e.messages)} for e in examples]


def test_budgets_of_what_is_left_are_nested(pinned, lines):
    filters = {"min_response_tokens": 3, "on_empty": "drop"}
    lines += [{"prompt": "Spell it", "completion": ""}]
    small, large = (pinned(lines, filters, count).stages[0].data for count in (8, 16))
    assert ids(large.examples)[:8] == ids(small.examples)
    assert small.encoded.response_tokens.min() >= 3
    dropped = small.manifest["dropped"]
    assert dropped["on_empty"] == 1
    assert small.manifest["pool_examples"] + sum(dropped.values()) == len(lines)


def test_arms_that_differ_in_filters_share_no_data(stage, plain_spec, tmp_path):
    inputs, budget = Inputs(tmp_path), {"budget": {"examples": 8}}
    arms = [
        stage(data=stage()["data"] | budget | {"filters": filters}) for filters in (None, {"min_response_tokens": 6})
    ]
    plain, filtered = (pin(RunSpec.parse(plain_spec(arm)), inputs).stages[0].data for arm in arms)
    assert plain.encoded.response_tokens.min() < 6 <= filtered.encoded.response_tokens.min()


def test_the_line_before_training_says_what_was_left_out(pinned, lines):
    run = pinned([*lines, {"prompt": "Spell it", "completion": ""}], {"on_empty": "drop", "max_turns": 9}, 8)
    assert run.data_lines == ["budget 8, seen 8 (1.00 epochs); filters left out 1 (on_empty)"]


def test_a_pool_that_runs_dry_says_which_filter_emptied_it(pinned, lines):
    with pytest.raises(InputError, match=r"30 examples is larger than the pool of \d+ .*max_tokens \d+\) of 40"):
        pinned(lines, {"max_tokens": 14}, 30)
    with pytest.raises(InputError, match=r"no example is left .*left out 40 \(max_tokens 40\) of 40"):
        pinned(lines, {"max_tokens": 1}, 30)


def test_long_examples_are_refused_all_at_once(pinned, lines, plain_spec, stage, encoded):
    lengths = encoded.lengths
    limit = int(np.percentile(lengths, 80))
    some = int((lengths > limit).sum())
    whole = stage()["data"] | {"budget": {}}
    drawn = pin(RunSpec.parse(plain_spec(stage(data=whole)))).stages[0].data
    first = next(e.id for e, length in zip(drawn.examples, drawn.encoded.lengths, strict=True) if length > limit)
    with pytest.raises(InputError) as refused:
        pin(RunSpec.parse(plain_spec(stage(max_length=limit, data=whole))))
    assert str(refused.value) == (
        f"{some} of 40 examples ({some / 0.4:.1f}%) are longer than max_length {limit} (median "
        f"{np.median(lengths):.0f}, 99% {np.percentile(lengths, 99):.0f}, longest {lengths.max()} tokens, first "
        f"'{first}'): filters={{'max_tokens': {limit}}} leaves them out"
    )


def test_held_out_items_without_an_answer_are_refused_before_training(pinned, lines, tmp_path):
    file = tmp_path / "test.jsonl"
    file.write_text(json.dumps({"prompt": "Spell it", "completion": ""}) + "\n" + json.dumps(lines[0]) + "\n")
    evaluation = {"data": {"source": "jsonl", "options": {"path": str(file)}, "split": "test"}}
    with pytest.raises(InputError, match=r"1 of 2 examples \(50.0%\) is without an answer"):
        pinned(lines[1:], None, 8, evaluation=evaluation)
    evaluation["data"]["filters"] = {"on_empty": "drop"}
    assert ids(pinned(lines[1:], None, 8, evaluation=evaluation).evaluations[0].held_out) == ["word-0"]


@pytest.mark.parametrize("off", [{}, {"on_empty": "refuse"}, {"drop_duplicates": False}, {"max_tokens": None}])
def test_filters_that_are_off_leave_the_id_as_it_is(off, plain_spec, stage):
    data = stage()["data"]
    plain, with_filters = (plain_spec(stage(data=part)) for part in (data, data | {"filters": off}))
    assert RunSpec.parse(plain).run_id == RunSpec.parse(with_filters).run_id
