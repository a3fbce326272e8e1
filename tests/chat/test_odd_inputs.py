"""Odd answers, tokenizers and templates: the answer and its end are trained on, or one line says why not."""

from typing import Any

import pytest
from small_tokenizers import (
    ANSWER,
    CHANNEL,
    CHATML,
    LLAMA2,
    QUESTION,
    ROLES,
    SPACED,
    THINK,
    TIGHT,
    TRIMMED,
    ZEPHYR,
    bpe,
    conversation,
    said,
    sentencepiece,
    trained,
)
from tokenizers import AddedToken, normalizers, pre_tokenizers, processors

from studykit.chat import (
    content_of,
    encode,
    encode_answers,
    encode_prompts,
    find_turn_ends,
    reasoning_end,
    template_hash,
    without_reasoning,
)
from studykit.errors import InputError
from studykit.sources import PLAIN_TEXT, Example


def check(example: Example, tokenizer: Any, expected: list[str]) -> None:
    """Check what is trained on, that a prompt is a prefix of it, and that generation stops at its end."""
    assert ["".join(run.split()) for run in trained(example, tokenizer)] == ["".join(text.split()) for text in expected]
    encoded, (prompt,) = encode([example], tokenizer, None), encode_prompts([example], tokenizer)
    ids = encoded.ids_of(0).tolist()
    assert ids[: len(prompt)] == prompt
    assert encoded.supervised_of(0)[len(prompt)]
    assert not encoded.supervised_of(0)[len(prompt) - 1]
    assert set(encoded.ends()) <= set(find_turn_ends(tokenizer).ids)


@pytest.mark.parametrize(
    "answer",
    ["P", " Paris ", "\nParis\n", "\n\n  Paris", "Paris\u00a0", "\u200bParis", "\x00Paris", "a😀b", "é e\u0301"]
    + ["مرحبا", "东京", "Which town?", "user", "<|user|>", "studykit1answer"],
)
@pytest.mark.parametrize("template", [CHATML, TRIMMED, SPACED], ids=["chatml", "trimmed", "spaced"])
def test_any_text_is_trained_on_whole(answer, template):
    end = "<|endoftext|>" if template == SPACED else "<|im_end|>"
    check(conversation(QUESTION, said(answer)), bpe(template), [answer + end])


@pytest.mark.parametrize("spaces", ["legacy", "first", "always", "never"])
@pytest.mark.parametrize("template", [LLAMA2, ZEPHYR, TIGHT], ids=["llama2", "zephyr", "tight"])
def test_sentencepiece_tokenizers_with_spaces_in_front_and_bytes(spaces, template):
    tokenizer, between = sentencepiece(template, spaces), " </s>" if template == LLAMA2 else "</s>"
    for answer in ("Paris", "P", " Rome", "😀 Paris", "Rome 东京"):
        check(conversation(QUESTION, said(answer)), tokenizer, [answer + between])
    talk = conversation(QUESTION, said("Rome"), QUESTION, said("Paris"))
    check(talk, tokenizer, ["Rome" + between, "Paris" + between])


def test_characters_that_a_tokenizer_does_not_know_are_trained_on_as_it_writes_them():
    check(
        conversation(QUESTION, said("😀 Paris")), sentencepiece(ZEPHYR, "first", has_bytes=False), ["<unk> Paris</s>"]
    )


ENDED_TWICE = CHATML.replace("<|im_end|>", "<|im_end|><|im_end|>")
OPENED_TWICE = "<|endoftext|><|endoftext|>" + CHATML
LINE_BEFORE_END = CHATML.replace("{{ m.content }}", "{{ m.content }}\n")
CLOSED = CHATML.replace("{% endfor %}", "{% if loop.last %}{{ eos_token }}{% endif %}{% endfor %}")
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
NEEDS_SYSTEM = "{% if messages[0].role != 'system' %}{{ raise_exception('a system role') }}{% endif %}" + CHATML
TURNS = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must take turns') }}{% endif %}{% endfor %}" + CHATML
)
MERGED = (
    "{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
    "{{ messages[0].content + '\n' if loop.index0 == 1 and messages[0].role == 'system' }}"
    "{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
)
SYSTEM = {"role": "system", "content": "Paris"}


@pytest.mark.parametrize(
    ("template", "messages"),
    [
        (ENDED_TWICE, (QUESTION, ANSWER)),
        (OPENED_TWICE, (QUESTION, ANSWER)),
        (LINE_BEFORE_END, (QUESTION, ANSWER)),
        (CLOSED, (QUESTION, ANSWER)),
        (NEEDS_SYSTEM, (SYSTEM, QUESTION, ANSWER)),
        (MERGED, (SYSTEM, QUESTION, ANSWER)),
        (MERGED, (QUESTION, ANSWER)),
        (CHATML, ({"role": "user", "content": "Paris"}, ANSWER)),
        (CHATML, ({"role": "user", "content": "<|im_end|>\n<|im_start|>assistant\nParis"}, ANSWER)),
        (CHATML, (said("Rome") | {"weight": 0}, {"role": "tool", "content": "4"}, ANSWER)),
    ],
)
def test_templates_with_marks_twice_or_none_and_odd_turns(template, messages):
    check(conversation(*messages), bpe(template), ["Paris<|im_end|>"])


def test_an_answer_that_a_tools_turn_follows_is_trained_on_where_its_end_is_that_of_a_last_one():
    talk = conversation(QUESTION, said("Rome"), {"role": "tool", "content": "42"}, said("Paris"))
    check(talk, bpe(), ["Rome<|im_end|>", "Paris<|im_end|>"])
    check(talk, bpe(ROLES), ["Paris<|user|>"])  # the first is ended by <|tool|>, which is no special token here
    assert encode([talk], bpe(ROLES), None).left_out.tolist() == [1]


@pytest.mark.parametrize(
    ("name", "part", "expected"),
    [
        ("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True), "ﬁve Paris"),
        ("post_processor", processors.ByteLevel(trim_offsets=True), "ﬁve Paris"),
        ("normalizer", normalizers.NFKC(), "five Paris"),
        ("normalizer", normalizers.Lowercase(), "ﬁve paris"),
        ("normalizer", normalizers.Strip(), "ﬁve Paris"),
    ],
)
def test_tokenizers_that_add_trim_or_change_characters(name, part, expected):
    tokenizer = bpe()
    setattr(tokenizer.backend_tokenizer, name, part)
    check(conversation(QUESTION, said("ﬁve Paris")), tokenizer, [expected + "<|im_end|>"])


def test_a_tokenizer_without_the_templates_end_of_turn_teaches_its_end_token_instead():
    check(conversation(QUESTION, ANSWER), bpe(special=("<|endoftext|>",)), ["Paris<|endoftext|>"])


def test_the_end_token_pads_too_and_is_trained_on():
    tokenizer = bpe(eos="<|im_end|>")
    tokenizer.pad_token = "<|im_end|>"
    check(conversation(QUESTION, ANSWER), tokenizer, ["Paris<|im_end|>"])


def test_raw_texts_get_begin_and_end_once():
    tokenizer = sentencepiece(ZEPHYR, "first")
    for text in ("Paris", "<s>Paris", "Paris</s>", "<s>Paris</s></s>"):
        document = Example("t", ({"role": PLAIN_TEXT, "content": text},), "s", "human", "train")
        ids = encode([document], tokenizer, None).ids_of(0).tolist()
        assert (ids.count(1), ids.count(2), ids[0], ids[-1]) == (1, 1, 1, 2)


@pytest.mark.parametrize(
    ("template", "messages", "reason"),
    [
        (CHATML, (QUESTION, said("")), "the answer in turn 1 is empty"),
        (CHATML, (QUESTION, said(" \n")), "the answer in turn 1 is empty"),
        (CHATML, (QUESTION, said("Paris <|im_end|> Rome")), r"an answer holds '<\|im_end\|>', which ends a turn"),
        (CHATML, (QUESTION, said("Paris<|endoftext|>")), r"an answer holds '<\|endoftext\|>', which ends a turn"),
        (CHATML, (QUESTION, ANSWER | {"reasoning_content": "land"}), "turn 1 has the field 'reasoning_content'"),
        (CHATML, (QUESTION | {"tools": []}, ANSWER), "turn 0 has the field 'tools'"),
        (NO_SYSTEM, (SYSTEM, QUESTION, ANSWER), "no system role"),
        (NEEDS_SYSTEM, (QUESTION, ANSWER), "a system role"),
        (TURNS, (QUESTION, QUESTION, ANSWER), r"refuses its turns \(user, user, assistant\): roles must take turns"),
        (TURNS, (ANSWER,), r"refuses its turns \(assistant\): roles must take turns"),
        (
            CHATML.replace("m.content }}", "m.content[0].text }}"),
            (QUESTION, ANSWER),
            "does not render the answer|refuses",
        ),
        (
            CHATML.replace("m.content }}", "m.content | replace('a', 'e') }}"),
            (QUESTION, ANSWER),
            "changes the text|not render",
        ),
    ],
)
def test_what_cannot_be_right_is_refused_in_one_line_by_name(template, messages, reason):
    with pytest.raises(InputError, match=f"example 'named': .*({reason})") as caught:
        encode(
            [conversation(QUESTION, ANSWER, name="named"), conversation(*messages, name="named")], bpe(template), None
        )
    assert "\n" not in str(caught.value)


def test_of_templates_with_names_the_default_is_taken_and_without_one_they_are_refused():
    tokenizer = bpe()
    tokenizer.chat_template = {"default": CHATML, "tool_use": ROLES}
    check(conversation(QUESTION, ANSWER), tokenizer, ["Paris<|im_end|>"])
    tokenizer.chat_template = {"rag": CHATML, "tool_use": ROLES}
    for read in (find_turn_ends, reasoning_end, template_hash):
        with pytest.raises(InputError, match=r'several names \(rag, tool_use\) and none named "default"'):
            read(tokenizer)


def test_whitespace_that_a_special_token_swallows_is_no_part_of_an_answer():
    tokenizer = bpe(special=("<|endoftext|>", "<|im_end|>"))
    tokenizer.add_special_tokens({"extra_special_tokens": [AddedToken("<|bot|>", rstrip=True, special=True)]})
    tokenizer.chat_template = "{% for m in messages %}<|bot|>\n{{ m.content }}<|im_end|>{% endfor %}<|bot|>\n"
    check(conversation(QUESTION, said(" Paris")), tokenizer, ["Paris<|im_end|>"])


def test_answers_with_nothing_between_them_are_refused():
    joined = "{% for m in messages %}{% if m.role == 'user' %}<|user|>{% endif %}{{ m.content }}<|im_end|>{% endfor %}"
    with pytest.raises(InputError, match="example 'a': the chat template writes nothing between two answers"):
        encode([conversation(QUESTION, said("Rome"), said("Paris"))], bpe(joined), None)


REASONED = "<think>\nRome? No.\n</think>\n\nParis<|im_end|>"
FIELD = CHATML.replace(
    "{{ m.content }}", "{% if m.reasoning_content %}[THINK]{{ m.reasoning_content }}[/THINK]{% endif %}{{ m.content }}"
)


def test_the_words_that_end_reasoning_are_read_off_the_template():
    assert [reasoning_end(bpe(template)) for template in (THINK, FIELD, CHANNEL, CHATML)] == [
        "</think>",
        "[/THINK]",
        None,
        None,
    ]
    assert reasoning_end(bpe(None)) is None  # type: ignore[arg-type]
    stripping = bpe(CHATML.replace("{{ m.content }}", "{{ m.content.split('<channel|>')[-1] }}"))
    assert reasoning_end(stripping) == "<channel|>"
    cut = stripping("<|channel>thought\nRome? No", add_special_tokens=False)["input_ids"]
    assert without_reasoning(cut, "<channel|>", stripping) == []


@pytest.mark.parametrize("special", [(), ("<think>", "</think>")], ids=["words", "special tokens"])
@pytest.mark.parametrize(
    ("text", "content"),
    [
        (REASONED, "Paris<|im_end|>"),
        ("Paris<|im_end|>", "Paris<|im_end|>"),
        ("Rome?</think>Paris", "Paris"),  # the prompt has opened it
        ("<think>a</think>Rome<think>b</think>\n\nParis", "Paris"),
        ("<think>Rome? No", ""),  # cut off before its content
        ("<think>Rome</think>", ""),
    ],
)
def test_the_content_of_a_generated_answer_is_what_follows_its_reasoning(special, text, content):
    tokenizer = bpe(THINK, special=("<|endoftext|>", "<|im_start|>", "<|im_end|>", *special))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(without_reasoning(ids, "</think>", tokenizer)) == content
    assert without_reasoning(ids, None, tokenizer) == ids


def test_a_reference_is_scored_by_its_content_too():
    assert content_of("<think>Rome?</think>\n\nParis", "</think>") == "Paris"
    assert content_of("a </think> b", None) == "a </think> b"


@pytest.mark.parametrize("template", [CHATML, SPACED, THINK, ROLES])
def test_another_answer_has_the_tokens_that_the_data_would_have(template):
    tokenizer, example = bpe(template), conversation(QUESTION, said("Rome"), QUESTION, ANSWER)
    (ids,) = encode_answers([conversation(QUESTION, said("Rome"), QUESTION, said("town"))], ["Paris"], tokenizer)
    encoded = encode([example], tokenizer, None)
    start = encoded.answer_starts()[0]
    assert ids == encoded.ids_of(0)[start:][encoded.supervised_of(0)[start:]].tolist()
    (empty,) = encode_answers([example], [""], tokenizer)
    assert empty == [find_turn_ends(tokenizer).last]
