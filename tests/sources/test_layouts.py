"""What other tools write is read as they read it, or refused by file and line, in the shapes of their documentation.

Sources: the pages on dataset formats of trl, axolotl, LLaMA-Factory, OpenAI, Together, Mistral and `datasets`.
"""

import bz2
import gzip
import json
import lzma

import datasets
import pyarrow as pa
import pytest

from studykit.errors import InputError
from studykit.sources import load_examples

ASK, ANSWER = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
LOOK = {"type": "function", "function": {"name": "look", "parameters": {}}}


def read(file, split="train"):
    return load_examples("jsonl", split, {"path": str(file)})


def said(example):
    """Return the turns of an example: role, text, and whether it may be trained on."""
    return [(m["role"], m["content"], m.get("weight", 1)) for m in example.messages]


@pytest.fixture
def file_of(tmp_path):
    """Write records as JSON lines."""

    def write(*records):
        file = tmp_path / "data.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return file

    return write


PLAIN = [("user", "2+2?", 1), ("assistant", "4", 1)]
LONGER = [("user", "hi", 1), ("assistant", "hello", 1), *PLAIN]
UNTAUGHT = [("user", "hi", 1), ("assistant", "hello", 0), *PLAIN]
BRIEF = [("system", "Be brief.", 1), *PLAIN]
GREETING = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
FROM = [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]

READ = {
    "trl: messages": ({"messages": [ASK, ANSWER]}, PLAIN),
    "trl: prompt and completion": ({"prompt": "2+2?", "completion": "4"}, PLAIN),
    "trl: prompt and completion as messages": ({"prompt": [ASK], "completion": [ANSWER]}, PLAIN),
    "trl: answers inside a prompt": ({"prompt": [*GREETING, ASK], "completion": [ANSWER]}, UNTAUGHT),
    "trl: a good answer of unpaired preferences": ({"prompt": "2+2?", "completion": "4", "label": True}, PLAIN),
    "trl: no tools": ({"messages": [ASK, ANSWER], "tools": None}, PLAIN),
    "axolotl: messages": ({"conversations": [ASK, ANSWER]}, PLAIN),
    "axolotl: from and value": ({"conversations": FROM}, PLAIN),
    "axolotl: role and value": ({"conversations": [{"role": "human", "value": "2+2?"}, FROM[1]]}, PLAIN),
    "axolotl: field_messages: data": ({"data": [ASK, ANSWER]}, PLAIN),
    "axolotl: train": (
        {
            "conversations": [
                {"from": "system", "value": "Be brief.", "train": False},
                {"from": "human", "value": "2+2?", "train": False},
                {"from": "assistant", "value": "4", "train": True},
            ]
        },
        BRIEF,
    ),
    "axolotl: an answer that is not trained on": (
        {"messages": [GREETING[0], {**GREETING[1], "train": False}, ASK, {**ANSWER, "train": True}]},
        UNTAUGHT,
    ),
    "LLaMA-Factory: alpaca": (
        {
            "instruction": "2+2?",
            "input": "",
            "output": "4",
            "system": "Be brief.",
            "history": [],
        },
        BRIEF,
    ),
    "LLaMA-Factory: history": ({"instruction": "2+2?", "output": "4", "history": [["hi", "hello"]]}, LONGER),
    "LLaMA-Factory: input alone": ({"instruction": "", "input": "2+2?", "output": "4"}, PLAIN),
    "LLaMA-Factory: instruction and input": (
        {"instruction": "Sum", "input": "2, 2", "output": "4"},
        [("user", "Sum\n2, 2", 1), ("assistant", "4", 1)],
    ),
    "LLaMA-Factory: sharegpt": ({"conversations": FROM, "system": "Be brief.", "tools": "[]"}, BRIEF),
    "LLaMA-Factory: one system prompt twice": (
        {"conversations": [{"from": "system", "value": "Be brief."}, *FROM], "system": "Be brief."},
        BRIEF,
    ),
    "LLaMA-Factory: a good answer of KTO": ({"instruction": "2+2?", "output": "4", "kto_tag": True}, PLAIN),
    "OpenAI: weight": (
        {"messages": [GREETING[0], {**GREETING[1], "weight": 0}, ASK, {**ANSWER, "weight": 1}]},
        UNTAUGHT,
    ),
    "OpenAI: system beside messages": ({"system": "Be brief.", "messages": [ASK, ANSWER]}, BRIEF),
    "OpenAI: no refusal": ({"messages": [ASK, {**ANSWER, "refusal": None, "annotations": []}]}, PLAIN),
    "OpenAI: parts": ({"messages": [{"role": "user", "content": [{"type": "text", "text": "2+2?"}]}, ANSWER]}, PLAIN),
    "Together: instruction": ({"prompt": "2+2?", "completion": "4"}, PLAIN),
    "Together: conversation": ({"messages": [{"role": "system", "content": "Be brief."}, ASK, ANSWER]}, BRIEF),
    "Mistral: weight": ({"messages": [GREETING[0], {**GREETING[1], "weight": 0}, ASK, ANSWER]}, UNTAUGHT),
    "Gemini's role": ({"messages": [ASK, {"role": "model", "content": "4"}]}, PLAIN),
    "datasets: parts with missing fields": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "2+2?", "image": None}]}, ANSWER]},
        PLAIN,
    ),
    "datasets: missing fields": (
        {"messages": [{**ASK, "weight": None, "tool_calls": None}, ANSWER], "text": None, "images": []},
        PLAIN,
    ),
}


@pytest.mark.parametrize("shape", READ)
def test_a_shape_is_read_as_its_tool_reads_it(shape, file_of):
    record, turns = READ[shape]
    (example,) = read(file_of(record))
    assert said(example) == turns


TALK = {"messages": [ASK, ANSWER]}
REFUSED = {
    "trl: tools": ({**TALK, "tools": [LOOK]}, "`tools` changes what the model learns"),
    "trl: tools as a text": ({**TALK, "tools": json.dumps([LOOK])}, "`tools` changes what the model learns"),
    "trl: chat_template_kwargs": (
        {**TALK, "chat_template_kwargs": {"enable_thinking": False}},
        "changes how the templ",
    ),
    "trl: images": ({**TALK, "images": ["a.png"]}, "`images` cannot be read"),
    "trl: preferences": ({"prompt": "2+2?", "chosen": "4", "rejected": "5"}, "`chosen` belongs to a pair"),
    "trl: a bad answer": ({"prompt": "2+2?", "completion": "5", "label": False}, "`label: false` marks a bad answer"),
    "trl: thinking": ({"messages": [ASK, {**ANSWER, "thinking": "2 and 2"}]}, "`thinking` changes what"),
    "axolotl: train_detail": (
        {"conversations": [ASK, {**ANSWER, "train_detail": [{"begin_offset": 0, "end_offset": 0, "train": True}]}]},
        "`train_detail` trains on parts of an answer",
    ),
    "axolotl: a question that is trained on": (
        {"conversations": [{**FROM[0], "train": True}, FROM[1]]},
        "`train: true` on the user's message",
    ),
    "axolotl: segments": ({"segments": [{"label": True, "text": "4"}]}, r"needs `messages`, .* has \['segments'\]"),
    "axolotl: marks that contradict": (
        {"messages": [ASK, {**ANSWER, "train": True, "weight": 0}]},
        "weight and train contradict|train and weight contradict",
    ),
    "a mark that is not known": (
        {"messages": [ASK, {**ANSWER, "loss_mask": 0}]},
        "a message's 'loss_mask' is not known",
    ),
    "LLaMA-Factory: function_call": (
        {"conversations": [FROM[0], {"from": "function_call", "value": "{}"}, FROM[1]], "tools": ""},
        "`tool_calls` changes what",
    ),
    "LLaMA-Factory: preferences": (
        {"conversations": FROM[:1], "chosen": FROM[1], "rejected": {"from": "gpt", "value": "5"}},
        "`chosen` belongs to a pair",
    ),
    "LLaMA-Factory: a bad answer": ({"instruction": "2+2?", "output": "5", "kto_tag": False}, "`kto_tag: false` marks"),
    "LLaMA-Factory: two system prompts": (
        {"conversations": [{"from": "system", "value": "Add."}, *FROM], "system": "Be brief."},
        "two system prompts",
    ),
    "OpenAI: a tool call": (
        {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}], "parallel_tool_calls": False},
        "`tool_calls` changes what",
    ),
    "OpenAI: functions": ({**TALK, "functions": [{"name": "look"}]}, "`functions` changes what"),
    "OpenAI: a function call": (
        {"messages": [ASK, {"role": "assistant", "content": None, "function_call": {"name": "look"}}]},
        "`function_call` changes what",
    ),
    "OpenAI: refusal": ({"messages": [ASK, {**ANSWER, "refusal": "No."}]}, "`refusal` changes what"),
    "OpenAI: an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ANSWER]},
        "a part of the user's content is no text",
    ),
    "OpenAI, Together: preferences": (
        {"input": TALK, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]},
        "`preferred_output` belongs to a pair",
    ),
    "OpenAI: nothing is trained on": ({"messages": [ASK, {**ANSWER, "weight": 0}]}, "no answer is trained on"),
    "Mistral: prefix": ({"messages": [ASK, {**ANSWER, "prefix": True}]}, "`prefix` has an answer go on"),
    "a part without text": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}, ANSWER]},
        "no text",
    ),
    "an answer given twice": ({"messages": [ASK, {**ANSWER, "value": "5"}]}, "`content` and another `value`"),
    "an unknown role": ({"messages": [{"role": "asistant", "content": "4"}]}, "unknown role 'asistant'; did you mean"),
}


@pytest.mark.parametrize("shape", REFUSED)
def test_what_changes_training_and_is_not_followed_is_refused_by_line(shape, file_of):
    record, message = REFUSED[shape]
    with pytest.raises(InputError, match=rf"data.jsonl:2: .*({message})") as refused:
        read(file_of(TALK, record))
    assert "\n" not in str(refused.value)


def test_keys_that_nothing_reads_are_named_once_those_of_messages_too(file_of, caplog):
    read(file_of({**TALK, "parallel_tool_calls": False}, {"messages": [{**ASK, "name": "Ann", "time": 3}, ANSWER]}))
    (message,) = [record.getMessage() for record in caplog.records]
    for key in ("'messages[].name' (1 records)", "'messages[].time' (1 records)", "'parallel_tool_calls' (1 records)"):
        assert key in message


ROWS = [{"prompt": "2+2?", "completion": "4"}, {"prompt": "é😀", "completion": "5\n6"}]
TEXTS = [("2+2?", "4"), ("é😀", "5\n6")]


def lines_of(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zstd(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


FILES = {
    "a.json": json.dumps(ROWS).encode(),
    "pretty.json": json.dumps(ROWS, indent=2).encode(),
    "nested.json": json.dumps({"data": ROWS, "version": 1}).encode(),
    "nested-pretty.json": b"\xef\xbb\xbf\n" + json.dumps({"data": ROWS}, indent=2).encode(),
    "a.jsonl.gz": gzip.compress(lines_of(ROWS)),
    "a.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "a.jsonl.bz2": bz2.compress(lines_of(ROWS)),
    "a.jsonl.xz": lzma.compress(lines_of(ROWS)),
    "a.jsonl.zst": zstd(lines_of(ROWS)),
    "b.csv": '\ufeffprompt,completion,tools\r\n2+2?,4,\r\né😀,"5\n6",\r\n'.encode(),
    "b.csv.gz": gzip.compress('prompt,completion\n2+2?,4\né😀,"5\n6"\n'.encode()),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_whatever_wrote_it(name, tmp_path):
    file = tmp_path / name
    file.write_bytes(FILES[name])
    assert [(e.messages[0]["content"], e.answer) for e in read(file)] == TEXTS


def test_tables_of_datasets_are_read(tmp_path):
    table = datasets.Dataset.from_list(ROWS)
    table.save_to_disk(tmp_path / "saved")
    table.to_parquet(tmp_path / "a.parquet")
    table.to_json(tmp_path / "lines.jsonl")
    table.to_json(tmp_path / "list.json", lines=False)
    with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.data.table.schema) as writer:
        writer.write_table(table.data.table)
    for name in ("saved/data-00000-of-00001.arrow", "a.parquet", "lines.jsonl", "list.json", "b.arrow"):
        assert [(e.messages[0]["content"], e.answer) for e in read(tmp_path / name)] == TEXTS


WRONG = {
    "cut.jsonl.gz": (gzip.compress(lines_of(ROWS))[:-9], "cannot read .*cut.jsonl.gz"),
    "flipped.jsonl.gz": (gzip.compress(lines_of(ROWS) * 9)[:12] + b"\xff" * 40, "cannot read .*flipped.jsonl.gz"),
    "cut.jsonl.zst": (zstd(lines_of(ROWS))[:12], "cannot read .*cut.jsonl.zst"),
    "cut.parquet": (b"PAR1 and no more", "cannot read .*cut.parquet"),
    "cut.arrow": (b"\xff\xff\xff\xff and no more", "cannot read .*cut.arrow"),
    "open.json": (b'[{"text": "a"},\n{"text": "b"}', r"open.json:2 \(item 3\): not JSON"),
    "torn.json": (b'[\n{"text": "a"},\n{"text": \n}]', r"torn.json:3 \(item 2\): not JSON \(.* at line 4, column 1\)"),
    "item.json": (b'[{"text": "a"},\n\n7]', r"item.json:3 \(item 2\): a JSON object is expected, received int"),
    "second.json": (b'[{"text": "a"}, {"text": ""}]', r"second.json:1 \(item 2\): the text's content"),
    "other.json": (b'{\n"rows": [{"text": "a"}]}', "other.json:1: one JSON object per line is expected, or a list"),
    "two.jsonl": (b'{"text": "a"} {"text": "b"}', r"two.jsonl:1: not JSON \(Extra data at column 14\)"),
    "latin.jsonl": ('{"text": "a"}\n{"text": "é"}'.encode("latin-1"), "latin.jsonl:2: not UTF-8"),
    "utf-16.jsonl": ('{"text": "a"}'.encode("utf-16"), "utf-16.jsonl:1: not UTF-8"),
    "after.json": (b'[{"text": "a"}] and more', r"after.json:1: not JSON \(Extra data after the list of objects\)"),
    "twice.jsonl": (b'{"text": "a", "text": "b"}', r"twice.jsonl:1: JSON .* \(an object names 'text' twice\)"),
    "ragged.csv": (b"prompt,completion\na,b\na,b,c\n", "ragged.csv:2: a row of 3 cells, and the file has 2 columns"),
    "short.csv": (b"prompt,completion\na\n", "short.csv:1: a row of 1 cells, and the file has 2 columns"),
    "columns.csv": (b"text,text\na,b\n", "columns.csv: two columns have the name 'text'"),
    "quote.csv": (b'text\n"a\n', "cannot read .*quote.csv: unexpected end of data"),
    "latin.csv": ("text\né\n".encode("latin-1"), "latin.csv: not UTF-8"),
    "number.csv": (b"prompt,completion\n2+2?,\n", "number.csv:1: needs `messages`"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_damaged_is_refused_in_one_line(name, tmp_path):
    content, message = WRONG[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as refused:
        read(tmp_path / name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("path", ["~no-user-of-that-name/a.jsonl", "a\0.jsonl", "a\n.jsonl"])
def test_a_path_that_cannot_be_one_is_refused(path):
    with pytest.raises(InputError) as refused:
        read(path)
    assert "\n" not in str(refused.value)
