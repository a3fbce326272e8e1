"""Which tokens the loss mask includes: the assistant's and the end of its turn, whatever the template adds."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from studykit.chat import Encoded, encode, encode_prompts, encoding, tokenizer_hash
from studykit.errors import InputError
from studykit.sources import PLAIN_TEXT, Example

CHATML = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
SPECIAL = ["<|pad|>", "<|start|>", "<|end|>", "<|unknown|>"]


def make_tokenizer(template: str | None = CHATML, pad: str = "<|pad|>") -> Any:
    """Make a tokenizer in which every character is a token."""
    alphabet = [*SPECIAL, *"abcdefghijklmnopqrstuvwxyz0123456789?!+= \n"]
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(alphabet)}, unk_token="<|unknown|>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad,
        unk_token="<|unknown|>",
        eos_token="<|end|>",
        extra_special_tokens=["<|start|>"],
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def chat_of(*turns: str, system: str | None = None, name: str = "a") -> Example:
    """Make a conversation from the contents of its turns, the user's first."""
    roles = ["user", "assistant"] * len(turns)
    messages = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)]
    messages = [{"role": "system", "content": system}, *messages] if system else messages
    return Example(name, tuple(messages), "s", "human", "train")


def text_of(content: str, name: str = "t") -> Example:
    return Example(name, ({"role": PLAIN_TEXT, "content": content},), "s", "human", "train")


def loss_mask(example: Example, tokenizer: Any) -> list[str]:
    """Return the supervised stretches of one example as text."""
    encoded = encode([example], tokenizer, 1000)
    stretches, before = [], False
    for token, chosen in zip(encoded.ids_of(0), encoded.supervised_of(0), strict=True):
        if chosen and not before:
            stretches.append("")
        if chosen:
            stretches[-1] += tokenizer.convert_ids_to_tokens(int(token))
        before = chosen
    return stretches


def test_answer_and_end_token_are_supervised_and_nothing_else(tokenizer):
    assert loss_mask(chat_of("2+2?", "4"), make_tokenizer()) == ["4<|end|>"]
    example = chat_of("Pronounce c a t", "K AE T")
    assert loss_mask(example, tokenizer) == ["KAET<|end|>"]


def test_the_newline_that_a_template_adds_after_the_end_token_is_not_supervised():
    tokenizer = make_tokenizer()
    encoded = encode([chat_of("2+2?", "4")], tokenizer, 1000)
    assert tokenizer.convert_ids_to_tokens(encoded.ids_of(0).tolist())[-3:] == ["4", "<|end|>", "\n"]
    assert encoded.supervised_of(0).tolist()[-3:] == [True, True, False]


def test_every_assistant_turn_is_supervised():
    example = chat_of("hi", "hello!", "2+2?", "4", system="be brief")
    assert loss_mask(example, make_tokenizer()) == ["hello!<|end|>", "4<|end|>"]


def test_the_end_token_is_supervised_where_it_also_pads():
    assert loss_mask(chat_of("2+2?", "4"), make_tokenizer(pad="<|end|>")) == ["4<|end|>"]


def test_an_answer_that_repeats_the_question_is_located_by_its_position():
    assert loss_mask(chat_of("4", "4", "4", "4"), make_tokenizer()) == ["4<|end|>", "4<|end|>"]
    assert encode([chat_of("4", "4")], make_tokenizer(), 99).response_tokens.tolist() == [2]


def test_a_raw_text_is_supervised_whole_and_gets_an_end_token():
    tokenizer = make_tokenizer()
    assert loss_mask(text_of("once"), tokenizer) == ["once<|end|>"]
    assert loss_mask(text_of("once<|end|>"), tokenizer) == ["once<|end|>"]
    encoded = encode([text_of("once")], tokenizer, 99)
    assert encoded.response_tokens.tolist() == [4]  # nothing predicts the first token


def test_conversations_and_texts_may_be_mixed():
    examples = [text_of("abc"), chat_of("2+2?", "4"), text_of("de")]
    encoded = encode(examples, make_tokenizer(), 99)
    assert encoded.response_tokens.tolist() == [3, 2, 2]


def test_no_template_is_refused_for_conversations_only():
    tokenizer = make_tokenizer(template=None)
    with pytest.raises(InputError, match="has no chat template"):
        encode([chat_of("2+2?", "4")], tokenizer, 99)
    assert len(encode([text_of("abc")], tokenizer, 99)) == 1


def test_a_long_example_is_refused_by_name():
    examples = [chat_of("2+2?", "4", name="short"), chat_of("2+2?", "4" * 50, name="long")]
    longest = int(encode(examples, make_tokenizer(), 99).lengths.max())
    assert len(encode(examples, make_tokenizer(), longest)) == 2
    with pytest.raises(InputError, match=f"is longer than max_length {longest - 1} .* longest {longest} .*'long'"):
        encode(examples, make_tokenizer(), longest - 1)


def test_an_example_without_a_supervised_token_is_refused_by_name():
    question, answer = chat_of("2+2?", "4").messages
    silent = Example("a", (question, {**answer, "weight": 0}), "s", "human", "train")
    with pytest.raises(InputError, match=r"1 of 1 .* is without a supervised token .*'a'"):
        encode([silent], make_tokenizer(), 99)


EXAMPLES = [chat_of("2+2?", "4" * (1 + n % 5), name=f"e{n}") for n in range(9)] + [text_of("abc" * 3)]


def same(left: Encoded, right: Encoded) -> bool:
    counts = np.array_equal(left.response_tokens, right.response_tokens)
    rows = range(len(left)) if len(left) == len(right) else ()
    return counts and all(
        np.array_equal(left.ids_of(i), right.ids_of(i))
        and np.array_equal(left.supervised_of(i), right.supervised_of(i))
        for i in rows
    )


def test_a_cached_encoding_equals_a_fresh_one(empty_cache, monkeypatch):
    made = encode(EXAMPLES, make_tokenizer(), 99)
    monkeypatch.setattr(encoding, "tokenize", None)
    kept = encode(EXAMPLES, make_tokenizer(), 99)
    assert same(made, kept)
    assert (made.ids.dtype, kept.ids.dtype, kept.loss_mask.dtype) == (np.int32, np.int32, bool)


def test_response_tokens_are_the_supervised_ones_after_the_first_token():
    encoded = encode(EXAMPLES, make_tokenizer(), 99)
    for whole in (encoded, encoded.take(np.array([9, 2, 2]))):
        slow = [sum(whole.supervised_of(i).tolist()[1:]) for i in range(len(whole))]
        assert whole.response_tokens.tolist() == slow
        assert whole.lengths.tolist() == [len(whole.ids_of(i)) for i in range(len(whole))]
    assert encoded.response_tokens[9] == 9 != encoded.supervised_of(9).sum()


@pytest.mark.parametrize("damage", ["truncated", "empty", "another format"])
def test_a_damaged_cached_encoding_is_replaced(damage, empty_cache):
    made = encode(EXAMPLES, make_tokenizer(), 99)
    (file,) = (empty_cache / "tokens").iterdir()
    content = file.read_bytes()
    file.unlink()  # what is mapped stays whole for those who hold it
    file.write_bytes({"truncated": content[:-3], "empty": b"", "another format": b"PK\3\4" * 9}[damage])
    again = encode(EXAMPLES, make_tokenizer(), 99)
    assert same(made, again)
    assert file.read_bytes() == content


def offsets_in(content: bytes) -> dict[str, tuple[int, int]]:
    """Return where each array of a safetensors file begins and ends."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    entries = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return {name: (8 + length + start, 8 + length + end) for name, (start, end) in entries.items()}


@pytest.mark.parametrize("name", ["ids", "loss_mask", "starts", "lengths", "response_tokens"])
def test_one_flipped_bit_of_a_cached_encoding_is_noticed(name, empty_cache, caplog):
    made = encode(EXAMPLES, make_tokenizer(), 99)
    (file,) = (empty_cache / "tokens").iterdir()
    right = file.read_bytes()
    start, end = offsets_in(right)[name]
    wrong = bytearray(right)
    wrong[(start + end) // 2] ^= 1
    file.unlink()
    file.write_bytes(wrong)
    os.utime(file, (0, 0))  # another time of change, however fast this is
    assert same(made, encode(EXAMPLES, make_tokenizer(), 99))
    assert file.read_bytes() == right
    assert "is damaged: its tokens are computed again" in caplog.text


def test_an_encoding_without_checksums_is_computed_again(empty_cache):
    made = encode(EXAMPLES, make_tokenizer(), 99)
    (file,) = (empty_cache / "tokens").iterdir()
    right = file.read_bytes()
    file.unlink()
    save_file(vars(made), file)
    assert same(made, encode(EXAMPLES, make_tokenizer(), 99))
    assert file.read_bytes() == right


def resident_mib() -> float:
    """Return the memory that this process holds, mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads a process's memory as Linux tells it")
def test_a_large_pool_is_mapped_and_its_selections_copy_no_tokens(empty_cache, monkeypatch):
    count, width = 200_000, 60
    row = text_of("a" * width)
    columns = {
        "ids": np.tile(np.arange(width, dtype=np.int32), count),
        "loss_mask": np.ones(count * width, dtype=bool),
        "starts": np.arange(count) * width,
        "lengths": np.full(count, width),
        "response_tokens": np.full(count, width - 1),
        "answers": np.ones(count, dtype=np.int64),
        "left_out": np.zeros(count, dtype=np.int64),
    }
    monkeypatch.setattr(encoding, "tokenize", lambda examples, tokenizer: Encoded(**columns))
    encode([row], make_tokenizer(), None)
    before = resident_mib()
    opened = encode([row], make_tokenizer(), None)
    assert len(opened) == count
    assert int(opened.response_tokens.sum()) == count * (width - 1)
    taken = opened.take(np.arange(0, count, 2)[::-1])
    assert np.shares_memory(taken.ids, opened.ids)
    assert np.shares_memory(taken.loss_mask, opened.loss_mask)
    assert taken.ids_of(0).tolist() == list(range(width))
    assert resident_mib() - before < 20  # the tokens and masks are 57 MiB
    assert opened.ids.sum() > 0
    assert resident_mib() - before > 40  # so that the line above could fail


def test_a_write_into_a_mapped_encoding_stays_in_memory(empty_cache):
    encoded = encode(EXAMPLES, make_tokenizer(), 99)
    before = encoded.ids_of(0).copy()
    encoded.ids[:] = 0
    assert np.array_equal(encode(EXAMPLES, make_tokenizer(), 99).ids_of(0), before)


def test_a_cached_encoding_is_checked_too(empty_cache):
    encode(EXAMPLES, make_tokenizer(), 99)
    with pytest.raises(InputError, match=r"10 of 10 .* are longer than max_length 5"):
        encode(EXAMPLES, make_tokenizer(), 5)


def test_another_template_or_other_content_is_encoded_afresh(empty_cache):
    files = []
    for tokenizer, examples in (
        (make_tokenizer(), EXAMPLES),
        (make_tokenizer(CHATML.replace("<|start|>", "<|start|> ")), EXAMPLES),
        (make_tokenizer(), EXAMPLES[:-1]),
    ):
        encode(examples, tokenizer, 99)
        files.append(len(list((empty_cache / "tokens").iterdir())))
    assert files == [1, 2, 3]


def test_order_and_other_examples_change_no_example():
    whole = encode(EXAMPLES, make_tokenizer(), 99)
    order = np.array([7, 0, 9, 3])
    assert same(whole.take(order), encode([EXAMPLES[i] for i in order], make_tokenizer(), 99))
    assert whole.take(order).key_of(2) == whole.key_of(9)


def test_a_key_depends_on_tokens_and_loss_mask():
    encoded = encode([chat_of("4", "44"), chat_of("44", "4"), text_of("4")], make_tokenizer(), 99)
    assert len({encoded.key_of(i) for i in range(3)}) == 3
    silent = copy.deepcopy(encoded)
    silent.loss_mask[:] = True
    assert silent.key_of(0) != encoded.key_of(0)


def test_prompts_end_where_the_answer_begins():
    tokenizer, example = make_tokenizer(), chat_of("hi", "hello", "2+2?", "4")
    (prompt,) = encode_prompts([example], tokenizer)
    encoded = encode([example], tokenizer, 99)
    answer = np.flatnonzero(encoded.supervised_of(0))[-2]
    assert prompt == encoded.ids_of(0)[:answer].tolist()


def test_the_tokenizer_hash_follows_the_rules_and_not_the_object(tokenizer):
    assert tokenizer_hash(make_tokenizer()) == tokenizer_hash(make_tokenizer())
    changed = make_tokenizer(CHATML + " "), make_tokenizer(pad="<|end|>"), tokenizer
    assert len({tokenizer_hash(t) for t in (make_tokenizer(), *changed)}) == 4
    used = make_tokenizer()
    used(["abc", "a"], padding=True, truncation=True, max_length=2)
    assert tokenizer_hash(used) == tokenizer_hash(make_tokenizer())
