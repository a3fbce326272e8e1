"""A user's own file: its layouts, and every fault named by its line."""

import json
from dataclasses import replace

import pytest

from studykit.errors import InputError
from studykit.sources import PLAIN_TEXT, Example, content_hash, load_examples

TALK = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]


@pytest.fixture
def write(tmp_path):
    """Write a file of lines (objects become JSON) and return its path."""

    def made(*lines, name="sums.jsonl", end="\n"):
        file = tmp_path / name
        text = end.join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
        file.write_bytes((text + end if lines else "").encode())
        return str(file)

    return made


def read(path, split="train"):
    return load_examples("jsonl", split, {"path": path})


def test_all_three_layouts(write):
    lines = {"messages": TALK}, {"prompt": "2+2?", "completion": "4", "id": "pair"}, {"text": "once upon"}
    talk, pair, text = read(write(*lines))
    assert talk.messages == pair.messages == tuple(TALK)
    assert text.messages == ({"role": PLAIN_TEXT, "content": "once upon"},)
    assert (talk.is_text, text.is_text) == (False, True)
    assert (talk.answer, text.answer) == ("4", "once upon")
    assert {(e.source, e.annotator, e.split) for e in (talk, text)} == {("sums", "human", "train")}


def test_a_line_may_name_id_source_annotator_and_split(write):
    line = {"messages": TALK, "id": 0, "source": "arithmetic", "annotator": "gpt-x", "split": "test"}
    (example,) = read(write(line), "test")
    assert (example.id, example.source, example.annotator, example.split) == ("0", "arithmetic", "gpt-x", "test")


def test_other_keys_of_a_message_do_not_reach_the_template(write):
    line = {"messages": [TALK[0], TALK[1] | {"weight": 1, "name": "x"}]}
    assert read(write(line))[0].messages == tuple(TALK)


def test_an_id_is_the_lines_content(write):
    first = read(write({"messages": TALK}, name="a.jsonl"))
    second = read(write({"text": "x"}, {"prompt": "2+2?", "completion": "4"}, name="b.jsonl"))
    assert first[0].id == second[1].id != second[0].id
    assert content_hash(first) != content_hash(second[1:])  # another file is another source


def test_splits_are_kept_apart(write):
    path = write({"text": "a", "split": "train"}, {"text": "b", "split": "test"}, {"text": "c"})
    assert [e.answer for e in read(path, "train")] == ["a", "c"]
    assert [e.answer for e in read(path, "test")] == ["b", "c"]
    assert [e.split for e in read(path, "test")] == ["test", "test"]


def test_a_path_may_hold_the_split_and_splits_may_be_joined(write, tmp_path):
    write({"text": "a"}, name="train.jsonl")
    write({"text": "b"}, name="test.jsonl")
    assert [e.answer for e in read(str(tmp_path / "{split}.jsonl"), "train+test")] == ["a", "b"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_a_unicode_line_separator_inside_a_text_is_no_new_line(write, separator):
    (example,) = read(write({"text": f"one{separator}two"}))
    assert example.answer == f"one{separator}two"


def test_windows_line_ends_and_a_missing_last_one_are_read(write, tmp_path):
    assert len(read(write({"text": "a"}, {"text": "b"}, end="\r\n"))) == 2
    (tmp_path / "c.jsonl").write_text('{"text": "a"}\n{"text": "b"}', encoding="utf-8")
    assert len(read(str(tmp_path / "c.jsonl"))) == 2


GOOD = {"text": "fine"}
BAD = {
    "not JSON": ('{"text": ', "not JSON"),
    "a list": ("[1]", "a JSON object is expected, received list"),
    "a number": ("7", "a JSON object is expected, received int"),
    "no layout": ({"question": "2+2?"}, r"needs `messages`, .* has \['question'\]"),
    "prompt alone": ({"prompt": "2+2?"}, r"has \['prompt'\]"),
    "no messages": ({"messages": []}, "needs `messages`"),
    "messages as text": ({"messages": "hi"}, "a list of messages is expected, received str"),
    "message as text": ({"messages": ["hi"]}, "every message is an object with role and content"),
    "no role": ({"messages": [{"content": "hi"}]}, "every message is an object with role and content"),
    "no content": ({"messages": [TALK[0], {"role": "assistant"}]}, "the assistant's content must be non-empty text"),
    "empty content": ({"prompt": " ", "completion": "4"}, "the user's content must be non-empty text"),
    "number as answer": ({"prompt": "2+2?", "completion": 4}, "non-empty text, received 4"),
    "empty text": ({"text": ""}, "must be non-empty text"),
    "user last": ({"messages": TALK[:1]}, "the last message must be the assistant's, received 'user'"),
    "half an emoji": (r'{"text": "town \ud83d"}', "half of a surrogate pair"),
    "half an emoji in the id": (r'{"text": "a", "id": "\udcb2"}', "half of a surrogate pair"),
    "a number of 5,000 digits": ('{"text": "a", "id": ' + "9" * 5000 + "}", "JSON that cannot be read"),
    "deep brackets": ("[" * 100_000 + "]" * 100_000, "JSON that cannot be read"),
    "a tool call": ({"messages": [TALK[0], {**TALK[1], "tool_calls": [{"id": "1"}]}]}, "`tool_calls` changes what"),
    "tools": ({"messages": TALK, "tools": [{"name": "look"}]}, "`tools` changes what the model learns"),
    "reasoning": ({"messages": [TALK[0], {**TALK[1], "reasoning_content": "2 + 2"}]}, "`reasoning_content` changes"),
    "no answer that is trained on": ({"messages": [TALK[0], {**TALK[1], "train": False}]}, "no answer is trained on"),
    "half a weight": ({"messages": [TALK[0], {**TALK[1], "weight": 0.5}]}, r"weight is 0 .* or 1, received 0.5"),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image"}]}, TALK[1]]}, "is no text"),
    "torn": ('{"text": "half a li', "not JSON"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_line_is_named_by_number(fault, write):
    line, message = BAD[fault]
    path = write(GOOD, line, GOOD | {"id": "last"})
    with pytest.raises(InputError, match=rf"sums.jsonl:2: .*{message}") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_an_id_used_twice_is_named_with_both_lines(write):
    path = write({"text": "a", "id": "x"}, {"text": "b"}, {"text": "c", "id": "x"})
    with pytest.raises(InputError, match=r"sums.jsonl:3: id 'x' was used at .*sums.jsonl:1;"):
        read(path)


def test_the_same_text_twice_without_ids_is_two_examples(write):
    ids = [example.id for example in read(write({"text": "a"}, {"text": "a"}))]

    assert ids[1] == f"{ids[0]}-line-2"


def test_a_file_that_cannot_be_read_is_named(write, tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*absent.jsonl"):
        read(str(tmp_path / "absent.jsonl"))
    with pytest.raises(InputError, match="cannot read"):
        read(str(tmp_path))
    (tmp_path / "latin.jsonl").write_bytes('{"text": "café"}'.encode("latin-1"))
    with pytest.raises(InputError, match=r"latin.jsonl:1: not UTF-8 \(byte 0xe9\)"):
        read(str(tmp_path / "latin.jsonl"))


def test_no_examples_are_refused(write):
    with pytest.raises(InputError, match="no examples in split 'train'"):
        read(write())
    with pytest.raises(InputError, match="no examples in split 'test'"):
        read(write({"text": "a", "split": "train"}), "test")


SAID = ("2+2?", "4")
LAYOUTS = {
    "messages": {"messages": TALK},
    "text parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "2+2?"}]}, TALK[1]]},
    "prompt and completion": {"prompt": "2+2?", "completion": "4"},
    "prompt and completion as messages": {"prompt": TALK[:1], "completion": TALK[1:]},
    "ShareGPT": {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
    "conversations of messages": {"conversations": TALK},
    "Alpaca": {"instruction": "2+2?", "input": "", "output": "4"},
    "a text beside messages": {"messages": TALK, "text": "### 2+2? ### 4"},
    "a text beside prompt and completion": {"prompt": "2+2?", "completion": "4", "text": "### 2+2? ### 4"},
    "missing values as datasets writes them": {
        "messages": [m | {"weight": None} for m in TALK],
        "text": None,
        "tools": [],
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layouts_of_other_tools_are_read_as_the_same_conversation(layout, write):
    (example,) = read(write(LAYOUTS[layout]))
    assert [(m["role"], m["content"]) for m in example.messages] == [("user", "2+2?"), ("assistant", "4")]
    assert not example.is_text


def test_instruction_input_history_and_system_are_turns(write):
    record = {"system": "Add.", "history": [["1+1", "2"]], "instruction": "Sum of", "input": "2, 2", "output": "4"}
    (example,) = read(write(record))
    roles, texts = zip(*((m["role"], m["content"]) for m in example.messages), strict=True)
    assert roles == ("system", "user", "assistant", "user", "assistant")
    assert texts == ("Add.", "1+1", "2", "Sum of\n2, 2", "4")


def test_a_byte_order_mark_and_blank_lines_are_skipped(tmp_path):
    file = tmp_path / "marked.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}\n\n')
    assert [example.answer for example in read(str(file))] == ["a", "b"]


def test_a_weight_of_0_stays_with_the_message(write):
    (example,) = read(write({"messages": [TALK[0], {**TALK[1], "weight": 0}, TALK[0], {**TALK[1], "weight": 1}]}))
    assert [message.get("weight") for message in example.messages] == [None, 0, None, None]


def test_keys_that_nothing_reads_are_counted_and_named_once(write, caplog):
    read(write({"text": "a", "topic": "x"}, {"text": "b", "topic": "y", "score": 1}))
    (message,) = [record.getMessage() for record in caplog.records]
    assert "nothing reads the keys 'score' (1 records), 'topic' (2 records)" in message


def test_a_record_may_name_the_answers_to_choose_from(write, caplog):
    line = {"prompt": "2+2?", "completion": "4", "id": "sum"}
    first, *others = read(write(line | {"choices": ["3", "4"]}, line | {"id": "b"}, line | {"id": "c", "choices": []}))
    assert first.choices == ("3", "4")
    assert [example.choices for example in others] == [(), ()]
    assert not caplog.messages
    assert content_hash([first]) != content_hash([replace(first, choices=("4", "3"))])
    for other in ("3", [3], ["3", " "], {"text": ["3"]}):  # of other tools: no choices, and named as unread
        caplog.clear()
        [example] = read(write(line | {"choices": other}))
        assert example.choices == ()
        assert "nothing reads the keys 'choices' (1 records)" in caplog.text


def test_fields_of_other_names_are_named(tmp_path):
    file = tmp_path / "intents.csv"
    file.write_text('text,category\n"Where is it, please?",card_arrival\nHow much?,fees\n', encoding="utf-8")
    options = {"path": str(file), "prompt": "text", "completion": "category"}
    examples = load_examples("jsonl", "test", options)
    assert [[m["content"] for m in e.messages] for e in examples] == [
        ["Where is it, please?", "card_arrival"],
        ["How much?", "fees"],
    ]
    with pytest.raises(InputError, match=r"intents.csv:1: unknown field 'texts'; did you mean 'text'\?"):
        load_examples("jsonl", "test", options | {"prompt": "texts"})


def test_half_of_a_surrogate_pair_from_any_source_is_refused_by_example():
    example = Example("cut", ({"role": "user", "content": "a\ud83d"},), "s", "human", "train")
    with pytest.raises(InputError, match=r"example 'cut': half of a surrogate pair \('\\ud83d'\)"):
        content_hash([example])
