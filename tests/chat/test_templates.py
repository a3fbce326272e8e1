"""Templates as model families publish them: which tokens are trained on, where an answer ends, and what is refused."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from studykit.chat import encode, encode_prompts, find_turn_ends, template
from studykit.chat.template import render
from studykit.errors import InputError
from studykit.sources import Example

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|channel|>", "<|message|>")
QUESTION, ANSWER = {"role": "user", "content": "Which town?"}, {"role": "assistant", "content": "Paris"}


def bpe(template: str = CHATML, eos: str | None = "<|endoftext|>", special=SPECIAL) -> Any:
    """Make a byte-level BPE tokenizer, whose words carry the space before them."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=500,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(
        ["Which town? Paris Rome\n\nuser assistant system USER: ASSISTANT: this land"] * 9, trainer
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, chat_template=template)


def conversation(*messages: dict[str, Any], name: str = "a") -> Example:
    return Example(name, tuple(messages), "s", "human", "train")


def trained(example: Example, tokenizer: Any) -> list[str]:
    """Return the runs of trained tokens as text."""
    encoded = encode([example], tokenizer, None)
    on = np.flatnonzero(encoded.supervised_of(0))
    runs = np.split(on, np.flatnonzero(np.diff(on) > 1) + 1)
    return [tokenizer.decode(encoded.ids_of(0)[run].tolist()) for run in runs]


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


ROLES = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
THINK = CHATML.replace(
    "{{ m.content }}", "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
)
CHANNEL = CHATML.replace(
    "<|im_start|>{{ m.role }}\n",
    "<|im_start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final<|message|>{% else %}\n{% endif %}",
)
SPACED = (
    "{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }} {% else %}ASSISTANT: {{ m.content }}"
    "<|endoftext|>{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
RETURN = CHATML.replace("<|im_end|>", "{{ '<|endoftext|>' if loop.last and m.role == 'assistant' else '<|im_end|>' }}")
TRIMMED = CHATML.replace("{{ m.content }}", "{{ m.content | trim }}")
WORDS_ONLY = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}"


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
    assert end in find_turn_ends(tokenizer)


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


def test_a_conversation_may_begin_with_the_assistant():
    template = "{% if messages[0].role == 'system' %}{% endif %}" + CHATML
    assert trained(conversation(said("Rome"), QUESTION, said("Paris")), bpe(template)) == [
        "Rome<|im_end|>",
        "Paris<|im_end|>",
    ]


@pytest.mark.parametrize(
    "answer", ["  Paris", "Paris\n", "4 + 4 = 8", "<|im_end|> is a token", "Ünïcødé 😀 ends", "assistant"]
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
    with pytest.raises(InputError, match="example 'a': the chat template renders 0 of its 1 answers"):
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
        return set(tokenizer.convert_ids_to_tokens(find_turn_ends(tokenizer)))

    assert ends(CHATML) == {"<|im_end|>", "<|endoftext|>"}
    assert ends(CHATML, eos=None) == {"<|im_end|>"}
    assert ends(ROLES) == {"<|user|>", "<|endoftext|>"}
    assert ends(RETURN, eos="<|im_end|>") == {"<|im_end|>", "<|endoftext|>"}


def test_an_end_token_that_is_not_called_special_ends_a_turn_too():
    tokenizer = bpe(special=("<|endoftext|>", "<|im_start|>"))
    tokenizer.add_tokens([AddedToken("<|im_end|>", special=False)])
    assert trained(conversation(QUESTION, ANSWER), tokenizer) == ["Paris<|im_end|>"]


def test_templates_get_the_same_date_on_every_day():
    dated = bpe("{{- strftime_now('%d %b %Y') }}\n" + CHATML)
    (text,) = render([[QUESTION]], dated)
    assert text.startswith("26 Jul 2024\n<|im_start|>")
    undated = bpe("\n" + CHATML)  # the macro in front of a template changes no whitespace of it
    assert render([[QUESTION]], undated) == [undated.apply_chat_template([QUESTION], tokenize=False)]


TRL = Path(find_spec("trl").origin).parent / "chat_templates" if find_spec("trl") else Path()  # type: ignore[union-attr, arg-type]
FAMILIES = (
    "cohere",
    "deepseekv3",
    "gemma",
    "gemma3",
    "glm4moe",
    "gptoss",
    "lfm2",
    "llama3",
    "phi3",
    "qwen2_5",
    "qwen3",
)
TRL_ALSO = {
    "deepseekv3": "<｜Assistant｜>",
    "glm4moe": "<think></think>",
    "gptoss": "<|start|>assistant<|channel|>final<|message|>",
    "phi3": "<|endoftext|>",  # written once after a whole conversation
    "qwen3": "<think></think>",
}
"""What trl trains on beside the answer and its end: here the template's own words before an answer are the prompt."""


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.skipif(not TRL.is_dir(), reason="trl is not installed")
def test_trl_trains_on_the_same_tokens(family):
    special = ["<|endoftext|>", "<think>", "</think>", "<|channel|>", "<|message|>"]
    source = (TRL / f"{family}_training.jinja").read_text(encoding="utf-8")
    special += sorted(
        set(re.findall(r"<[|｜]?[A-Za-z_▁|｜ ]+[|｜]?>", source)) - {"<function-name>", "<args-json-object>"}
    )
    tokenizer = bpe(source, special=tuple(dict.fromkeys(special)))
    tokenizer.bos_token = special[0]
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
    assert not more.replace(TRL_ALSO.get(family, " "), "")
    assert not fewer
