"""Which answers of a conversation are trained on, by `turns`, and by the marks of a template."""

import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from small_tokenizers import ANSWER, CHATML, QUESTION, RETURN, THINK, bpe, conversation, said, trained

from studykit.chat import as_sequences, encode, encode_prompts
from studykit.data import Inputs
from studykit.errors import InputError
from studykit.spec import Stage

LAND = {"role": "user", "content": "this land"}
TALK = conversation(QUESTION, said("Rome"), LAND, said("Paris"))
STRIPS = CHATML.replace("{{ m.content }}", "{{ m.content if loop.last else m.content.split('</think>')[-1] }}")
MARKED = CHATML.replace(
    "{{ m.content }}<|im_end|>",
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}",
)


def test_each_answer_ends_a_separate_sequence_and_is_rendered_as_the_last():
    sequences, owners = as_sequences([TALK, conversation(QUESTION, ANSWER, name="b")], "each")
    assert [(e.id, len(e.messages)) for e in sequences] == [("a#1", 2), ("a#2", 4), ("b", 2)]
    assert owners.tolist() == [0, 0, 1]
    tokenizer = bpe(THINK)
    assert [trained(e, tokenizer) for e in sequences[:2]] == [["Rome<|im_end|>"], ["Paris<|im_end|>"]]
    for prompt in encode_prompts(sequences, tokenizer):
        assert tokenizer.decode(prompt).endswith("<think>\n\n</think>\n\n")


def test_the_last_answer_alone_is_trained_on_where_that_is_chosen():
    (last,), _ = as_sequences([TALK], "last")
    assert last.id == "a"
    assert trained(last, bpe()) == ["Paris<|im_end|>"]
    assert encode([last], bpe(THINK), None).left_out.tolist() == [0]


def test_answers_of_weight_0_make_no_sequence_and_nothing_after_the_last_answer_is_rendered():
    talk = conversation(QUESTION, said("Rome"), LAND, said("Paris"), QUESTION, said("town") | {"weight": 0})
    assert [len(e.messages) for e in as_sequences([talk], "each")[0]] == [2, 4]
    assert trained(talk, bpe(RETURN)) == ["Paris<|endoftext|>"]
    with pytest.raises(InputError, match="example 'a' has no answer to generate"):
        encode_prompts([talk], bpe())


def test_answers_that_are_left_out_are_counted_also_from_the_cache(empty_cache):
    for _ in range(2):
        encoded = encode([TALK, conversation(QUESTION, ANSWER)], bpe(THINK), None)
        assert (encoded.answers.tolist(), encoded.left_out.tolist()) == ([1, 1], [1, 0])
    assert encode([TALK], bpe(), None).answers.tolist() == [2]


def test_an_earlier_answer_that_the_template_shortens_is_left_out_and_as_context_no_fault():
    talk = conversation(QUESTION, said("<think>land</think>Rome"), LAND, said("<think>town</think>Paris"))
    assert trained(talk, bpe(STRIPS)) == ["<think>town</think>Paris<|im_end|>"]
    assert encode([talk], bpe(STRIPS), None).left_out.tolist() == [1]
    assert [trained(e, bpe(STRIPS)) for e in as_sequences([talk], "each")[0]] == [
        ["<think>land</think>Rome<|im_end|>"],
        ["<think>town</think>Paris<|im_end|>"],
    ]


def test_the_ends_of_answers_are_read_off_the_loss_mask():
    tokenizer = bpe(RETURN)
    sequences, _ = as_sequences([TALK], "each")
    encoded = encode(sequences, tokenizer, None)
    assert tokenizer.convert_ids_to_tokens(encoded.ends()) == ["<|endoftext|>"]
    assert encoded.ends() == sorted({int(encoded.ids_of(i)[encoded.supervised_of(i)][-1]) for i in range(2)})


@pytest.fixture
def stage_data(tmp_path, empty_cache):
    """Draw the data of a stage from two conversations, of two answers and of one."""
    talks = [list(TALK.messages), [QUESTION, said("Paris this land")]]
    lines = [json.dumps({"id": str(number), "messages": talk}) for number, talk in enumerate(talks)]
    (tmp_path / "talks.jsonl").write_text("\n".join(lines), encoding="utf-8")
    inputs = Inputs(tmp_path)

    def draw(template: str, budget: dict[str, Any], turns: str | None = None, **more: Any) -> Any:
        data = {"source": "jsonl", "options": {"path": str(tmp_path / "talks.jsonl")}, "budget": budget}
        stage = {"data": data, "method": "sft", "steps": 1, "learning_rate": 0.1, "turns": turns, **more}
        student: Any = SimpleNamespace(name=template, tokenizer=bpe(template))
        return inputs.stage_data(Stage.model_validate(stage), student)

    return draw


@pytest.mark.parametrize(("turns", "counts"), [("each", (3, 3)), ("last", (2, 2)), (None, (2, 2))])
def test_a_budget_counts_conversations_and_the_manifest_their_sequences_too(stage_data, turns, counts):
    data = stage_data(THINK, {}, turns)
    manifest = data.manifest
    assert (manifest["sequences"], manifest["answers"]) == counts == (len(data.examples), len(data.encoded))
    assert manifest["examples"] == 2
    assert manifest["answers_left_out"] == (turns is None)
    one = stage_data(THINK, {"examples": 1, "seed": 1}, turns)
    assert one.manifest["examples"] == 1
    assert one.manifest["response_tokens"] == int(one.encoded.response_tokens.sum())


def test_a_budget_in_tokens_counts_those_of_all_sequences_of_a_conversation(stage_data):
    whole = stage_data(THINK, {}, "each").encoded.response_tokens.sum()
    assert stage_data(THINK, {"tokens": int(whole)}, "each").manifest["examples"] == 2
    assert stage_data(THINK, {"tokens": int(whole) - 1}, "each").manifest["examples"] == 1


def test_all_answers_are_refused_by_name_where_the_template_renders_them_otherwise(stage_data):
    assert stage_data(CHATML, {}, "all").manifest["answers"] == 3
    with pytest.raises(InputError, match="example '0': turns='all' cannot train on 1 of its answers"):
        stage_data(THINK, {}, "all")


def test_answers_that_are_left_out_by_default_are_named_once_with_their_number(stage_data, caplog):
    with caplog.at_level(logging.WARNING):
        for rate in (0.1, 0.2):
            stage_data(THINK, {}, learning_rate=rate)
        stage_data(THINK, {}, "last")
        stage_data(CHATML, {})
    (line,) = [r.getMessage() for r in caplog.records]
    assert "of 1 conversations" in line
    assert "1 answers are left out" in line


def test_marks_of_the_template_choose_the_answers_and_may_hold_its_own_words():
    assert trained(TALK, bpe(MARKED)) == ["Rome<|im_end|>", "Paris<|im_end|>"]
    wide = MARKED.replace("{% generation %}", "{% generation %}<think>\n\n</think>\n\n")
    assert trained(TALK, bpe(wide)) == ["Rome<|im_end|>", "Paris<|im_end|>"]
    narrow = MARKED.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>")
    assert trained(TALK, bpe(narrow)) == ["Rome<|im_end|>", "Paris<|im_end|>"]
    apart = MARKED.replace(
        "{{ m.content }}<|im_end|>{% endg", "{{ m.content }}{% endgeneration %}{% generation %}<|im_end|>{% endg"
    )
    assert trained(TALK, bpe(apart)) == ["Rome<|im_end|>", "Paris<|im_end|>"]
    first = MARKED.replace("m.role == 'assistant' %}{% g", "m.role == 'assistant' and loop.index0 < 2 %}{% g")
    assert trained(TALK, bpe(first)) == ["Rome<|im_end|>"]
    assert encode([TALK], bpe(first), None).left_out.tolist() == [1]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            MARKED.replace("{% generation %}{{ m.content }}", "{{ m.content[:2] }}{% generation %}{{ m.content[2:] }}"),
            "example 'a': of the answer in turn 1 the marks .* hold only 'me<|im_end|>'",
        ),
        (
            CHATML.replace("{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}"),
            "example 'a': the marks .* hold words of the user",
        ),
    ],
)
def test_marks_that_cut_an_answer_or_hold_other_words_are_refused_by_name(template, message):
    with pytest.raises(InputError, match=message.replace("|", r"\|")):
        encode([TALK], bpe(template), None)
