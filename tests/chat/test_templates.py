"""Templates as model families publish them: which tokens are trained on, where an answer ends, and what is refused."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_tokenizers import (
    ANSWER,
    CHANNEL,
    CHATML,
    QUESTION,
    RETURN,
    ROLES,
    SPACED,
    THINK,
    TRIMMED,
    WORDS_ONLY,
    bpe,
    conversation,
    said,
    trained,
)
from tokenizers import AddedToken

from studykit.chat import as_sequences, encode, encode_prompts, find_turn_ends, template
from studykit.chat.template import render
from studykit.errors import InputError
from studykit.sources import Example


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, "Paris<|im_end|>"),
        (ROLES, "Paris<|user|>"),  # the next turn's token ends the answer
        (THINK, "Paris<|im_end|>"),
        (CHANNEL, "Paris<|im_end|>"),
        (SPACED, " Paris<|endoftext|>"),  # the first token of the answer holds the space before it
        (RETURN, "Paris<|endoftext|>"),
        (TRIMMED, "Paris<|im_end|>"),
        (WORDS_ONLY, " Paris<|endoftext|>"),
    ],
)
def test_the_answer_and_its_end_are_trained_on_and_generation_starts_from_what_is_before(template, expected):
    tokenizer, example = bpe(template), conversation(QUESTION, ANSWER)
    assert trained(example, tokenizer) == [expected]
    ids, (prompt,) = encode([example], tokenizer, None).ids_of(0).tolist(), encode_prompts([example], tokenizer)
    assert ids[: len(prompt)] == prompt
    assert tokenizer.decode(ids[len(prompt) :]).startswith(expected)
    end = tokenizer(expected.replace("Paris", "").strip(), add_special_tokens=False)["input_ids"][0]
    assert end in find_turn_ends(tokenizer).ids


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, ["Rome<|im_end|>", "Paris<|im_end|>"]),
        (ROLES, ["Rome<|user|>", "Paris<|user|>"]),
        (CHANNEL, ["Rome<|im_end|>", "Paris<|im_end|>"]),
        (CHATML.replace("{% endif %}", "{% else %}<|endoftext|>{% endif %}"), ["Rome<|im_end|>", "Paris<|im_end|>"]),
        (THINK, ["Paris<|im_end|>"]),  # an earlier answer is rendered without the block that the last one has
        (RETURN, ["Paris<|endoftext|>"]),
        (WORDS_ONLY, [" Paris<|endoftext|>"]),  # nothing ends an earlier answer
    ],
)
def test_earlier_answers_are_trained_on_where_the_template_renders_them_as_when_they_were_last(template, expected):
    talk = conversation(QUESTION, said("Rome"), {"role": "user", "content": "this land"}, said("Paris"))
    assert trained(talk, bpe(template)) == expected


def test_an_answer_with_weight_0_is_context():
    talk = conversation(QUESTION, said("Rome") | {"weight": 0}, QUESTION, said("Paris"))
    assert trained(talk, bpe()) == ["Paris<|im_end|>"]


@pytest.mark.parametrize("template", [CHATML, "{% if messages[0].role == 'system' %}{% endif %}" + CHATML, TRIMMED])
def test_a_conversation_may_begin_with_the_assistant(template):
    talk = conversation(said("Rome"), QUESTION, said("Paris"))
    assert trained(talk, bpe(template)) == ["Rome<|im_end|>", "Paris<|im_end|>"]


@pytest.mark.parametrize(
    "answer", ["  Paris", "Paris\n", "4 + 4 = 8", "<|user|> is a token", "Ünïcødé 😀 ends", "assistant"]
)
def test_answers_of_any_text_are_trained_on_whole(answer):
    (run,) = trained(conversation(QUESTION, said(answer)), bpe())
    assert run == f"{answer}<|im_end|>"


def test_reasoning_inside_an_answer_is_a_part_of_it_however_the_template_lays_it_out():
    reasoning = CHATML.replace(
        "{{ m.content }}",
        "{% if m.role == 'assistant' %}<think>\n{% if '</think>' in m.content %}"
        "{{ m.content.split('</think>')[0].replace('<think>', '').strip() }}{% endif +%}\n</think>\n\n"
        "{{ m.content.split('</think>')[-1].strip() }}{% else %}{{ m.content }}{% endif %}",
    )
    assert trained(conversation(QUESTION, said("<think>land</think>Paris")), bpe(reasoning)) == [
        "<think>\nland\n</think>\n\nParis<|im_end|>"
    ]


def test_a_template_that_rewrites_an_answer_is_refused_by_name():
    with pytest.raises(InputError, match="example 'a': the chat template changes the text of the answer in turn 1"):
        encode(
            [conversation(QUESTION, ANSWER)],
            bpe(CHATML.replace("m.content", "m.content | replace('Paris', 'Rome')")),
            None,
        )
    with pytest.raises(InputError, match="example 'a': the chat template does not render the answer in turn 1"):
        encode([conversation(QUESTION, ANSWER)], bpe(CHATML.replace("m.content", "m.text")), None)


def test_a_template_that_refuses_a_conversation_names_the_example():
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role here') }}{% endif %}" + CHATML
    system = {"role": "system", "content": "Be kind."}
    fine = conversation(QUESTION, ANSWER, name="fine")
    with pytest.raises(
        InputError, match=r"example 'told': .* refuses its turns \(system, user, assistant\): no system"
    ):
        encode([fine, conversation(system, QUESTION, ANSWER, name="told")], bpe(strict), None)


def test_without_any_end_a_tokenizer_is_refused():
    tokenizer = bpe(WORDS_ONLY, eos=None)
    with pytest.raises(InputError, match="no end token, and its chat template writes none after an answer"):
        encode([conversation(QUESTION, ANSWER)], tokenizer, None)
    with pytest.raises(InputError, match="no end token, which raw texts are trained to end with"):
        encode([Example("t", ({"role": "text", "content": "Paris"},), "s", "human", "train")], tokenizer, None)


def test_all_tokens_that_end_a_turn_are_found():
    def ends(template, **more):
        tokenizer = bpe(template, **more)
        return set(tokenizer.convert_ids_to_tokens(list(find_turn_ends(tokenizer).ids)))

    assert ends(CHATML) == {"<|im_end|>", "<|endoftext|>"}
    assert ends(CHATML, eos=None) == {"<|im_end|>"}
    assert ends(ROLES) == {"<|user|>", "<|endoftext|>"}
    assert ends(RETURN, eos="<|im_end|>") == {"<|im_end|>", "<|endoftext|>"}


def test_an_end_token_that_is_not_called_special_ends_a_turn_too():
    tokenizer = bpe(special=("<|endoftext|>", "<|im_start|>"))
    tokenizer.add_tokens([AddedToken("<|im_end|>", special=False)])
    assert trained(conversation(QUESTION, ANSWER), tokenizer) == ["Paris<|im_end|>"]


@pytest.mark.parametrize(
    "reach",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(messages[0]) }}",
        "{{ raise_exception.__globals__['os'] }}",
        "{% include '/etc/hostname' %}",
        "{{ range(10 ** 9) | list }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(reach):
    with pytest.raises(InputError, match=r"example 'a': the chat template refuses its turns \(user, assistant\)"):
        encode([conversation(QUESTION, ANSWER)], bpe(reach + CHATML), None)


def test_templates_get_the_same_date_on_every_day():
    dated = bpe("{{- strftime_now('%d %b %Y') }}\n" + CHATML)
    (text,) = render([[QUESTION]], dated)
    assert text.startswith("26 Jul 2024\n<|im_start|>")
    (text,) = render([[QUESTION]], bpe("{{ strftime_now('%A, %B %-d, %Y at %H:%M; %F') }}\n" + CHATML))
    assert text.startswith("Friday, July 26, 2024 at 00:00; 2024-07-26\n")
    undated = bpe("\n" + CHATML)  # the macro in front of a template changes no whitespace of it
    assert render([[QUESTION]], undated) == [undated.apply_chat_template([QUESTION], tokenize=False)]


TRL = Path(find_spec("trl").origin).parent / "chat_templates" if find_spec("trl") else Path()  # type: ignore[union-attr, arg-type]
TRL_ALSO = {
    **dict.fromkeys(("cohere", "gemma", "gemma3", "diffusion_gemma", "lfm2", "lfm2_v2", "llama3"), " "),
    **dict.fromkeys(("qwen2_5", "qwen2_5_vl", "qwen3_instruct_2507", "qwen3_vl"), " "),
    "cohere2": "<|END_OF_TURN_TOKEN|>",
    **dict.fromkeys(("deepseekv3", "deepseek_r1_distill"), "<｜Assistant｜>"),
    "gptoss": "<|start|>assistant<|channel|>final<|message|>",
    "muse_glimmer": "<|start|>assistantto=user<|message|>",
    **dict.fromkeys(("phi3", "phi3_5"), "<|endoftext|>"),  # written once after a whole conversation
    **dict.fromkeys(("glm4moe", "nemotron_3_nano", "nemotron_3_super", "nemotron_3_ultra"), "<think></think>"),
    **dict.fromkeys(("qwen3", "qwen3_5_think", "qwen3_5_nothink", "qwen3_6", "qwen3_8"), "<think></think>"),
}
"""What trl trains on beside the answer and its end: here the template's own words before an answer are the prompt."""


def tokenizer_of(source: str) -> Any:
    """Make a tokenizer whose special tokens are those that a family's template writes."""
    special = ["<|endoftext|>", "<think>", "</think>", "<|channel|>", "<|message|>"]
    special += sorted(
        set(re.findall(r"<[|｜]?[A-Za-z_▁|｜ ]+[|｜]?>", source)) - {"<function-name>", "<args-json-object>"}
    )
    tokenizer = bpe(source, special=tuple(dict.fromkeys(special)))
    tokenizer.bos_token = special[0]
    return tokenizer


@pytest.mark.parametrize("family", TRL_ALSO)
@pytest.mark.skipif(not TRL.is_dir(), reason="trl is not installed")
def test_trl_trains_on_the_same_tokens(family):
    source = (TRL / f"{family}_training.jinja").read_text(encoding="utf-8")
    tokenizer = tokenizer_of(source)
    talk = conversation(QUESTION, said("Rome"), {"role": "user", "content": "this land"}, said("Paris"))
    theirs = tokenizer.apply_chat_template(
        list(talk.messages),
        chat_template=template._fixed_date() + source,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    encoded = encode([talk], tokenizer, None)
    ours = encoded.ids_of(0).tolist()
    assert ours == theirs["input_ids"]
    mask, reference = encoded.supervised_of(0), np.array(theirs["assistant_masks"], dtype=bool)
    more, fewer = (tokenizer.decode(np.array(ours)[m].tolist()) for m in (reference & ~mask, mask & ~reference))
    more = "".join(more.split())  # and the newline after the end
    if family == "gptoss":  # ends the last answer with another token, so that earlier ones are context here
        more = more.replace("Rome<|end|>", "", 1)
    assert not more.replace(TRL_ALSO[family], "")
    assert not fewer


REWRITING = {
    "qwen3": ("<|im_end|>", "<think>\n\n</think>\n\n", 1),
    "qwen3_5_think": ("<|im_end|>", "<think>\n\n</think>\n\n", 1),
    "gptoss": ("<|return|>", "<|channel|>final<|message|>", 1),
    "phi3": ("<|end|>", "<|assistant|>\n", 0),
    "deepseekv3": ("<｜end▁of▁sentence｜>", "<｜Assistant｜>", 0),
    "lfm2_2_5": ("<|im_end|>", "<|im_start|>assistant\n", 0),
    "glm4moe": ("<|user|>", "<think></think>\n", 0),
}
"""Templates that render earlier turns otherwise: the end and the words before an answer, and how many are left out."""


@pytest.mark.parametrize("family", REWRITING)
@pytest.mark.skipif(not TRL.is_dir(), reason="trl is not installed")
def test_each_answer_is_trained_on_as_the_last_turn_whatever_a_family_does_with_earlier_ones(family):
    end, before, left_out = REWRITING[family]
    tokenizer = tokenizer_of((TRL / f"{family}.jinja").read_text(encoding="utf-8"))
    talk = conversation(QUESTION, said("Rome"), {"role": "user", "content": "this land"}, said("Paris"))
    sequences, _ = as_sequences([talk], "each")
    assert [trained(sequence, tokenizer) for sequence in sequences] == [[f"Rome{end}"], [f"Paris{end}"]]
    for prompt in encode_prompts(sequences, tokenizer):
        assert tokenizer.decode(prompt).endswith(before)
    assert encode([talk], tokenizer, None).left_out.tolist() == [left_out]
