"""A file of the user: one JSON object per line, with `messages`, or `prompt` and `completion`, or `text`.

    {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}
    {"prompt": "2+2?", "completion": "4", "id": "sum-1", "source": "arithmetic", "annotator": "gpt-x"}
    {"text": "a plain document"}

A line may also have `id`, `source`, `annotator` and `split`. Without them they are the hash of the messages, the name
of the file, "human", and the split that is loaded.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from studykit.errors import InputError
from studykit.sources import PLAIN_TEXT, Example


def jsonl(split: str, *, path: str) -> list[Example]:
    """Return the examples of a JSONL file that belong to a split.

    Args:
        split: the split to load; lines with another split are left out, lines without one belong to every split.
        path: the file; "{split}" in it is replaced, so that "data/{split}.jsonl" stands for train and test files.

    Raises:
        InputError: the file is missing, a line is empty or malformed, or two lines have the same id.
    """
    file = Path(path.replace("{split}", split)).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"source 'jsonl': cannot read {file}: {error}") from None
    lines = text.removesuffix("\n").split("\n") if text else []  # splitlines would also split inside a text
    line_of_id: dict[str, int] = {}
    examples = []
    for number, line in enumerate(lines, 1):
        example, has_id = _parse_line(file, number, line, split)
        if example.split != split:
            continue
        if example.id in line_of_id and not has_id:
            example = replace(example, id=f"{example.id}-line-{number}")  # real data repeats texts
        if example.id in line_of_id:
            raise InputError(
                f"{file}:{number}: id {example.id!r} was used on line {line_of_id[example.id]}; ids are unique"
            )
        line_of_id[example.id] = number
        examples.append(example)
    return examples


def _parse_line(file: Path, number: int, line: str, split: str) -> tuple[Example, bool]:
    """Return the example of a line, and whether the line has an id."""
    where = f"{file}:{number}"
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        fault = "an empty line" if not line.strip() else f"not JSON ({error.msg} at column {error.colno})"
        raise InputError(f"{where}: {fault}; one JSON object per line is expected") from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: a JSON object is expected, received {type(record).__name__}")
    messages = _parse_messages(where, record)
    sha256 = hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:16]
    example = Example(
        id=sha256 if record.get("id") is None else str(record["id"]),
        messages=messages,
        source=str(record.get("source", file.stem)),
        annotator=str(record.get("annotator", "human")),
        split=str(record.get("split", split)),
    )
    return example, record.get("id") is not None


def _parse_messages(where: str, record: dict[str, Any]) -> tuple[dict[str, str], ...]:
    """Return the messages of a line; every content must be a non-empty string, and the last role the assistant's."""
    messages = _read_layout(where, record)
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InputError(f"{where}: every message is an object with role and content, received {message!r:.80}")
        if not isinstance(message.get("content"), str) or not message["content"].strip():
            raise InputError(
                f"{where}: the {message['role']}'s content must be non-empty text, received "
                f"{message.get('content')!r:.80}"
            )
    if messages[-1]["role"] not in ("assistant", PLAIN_TEXT):
        raise InputError(f"{where}: the last message must be the assistant's, received {messages[-1]['role']!r}")
    return tuple({"role": message["role"], "content": message["content"]} for message in messages)


def _read_layout(where: str, record: dict[str, Any]) -> list[Any]:
    """Return the unchecked messages of any of the three layouts."""
    if "text" in record:
        return [{"role": PLAIN_TEXT, "content": record["text"]}]
    if "prompt" in record and "completion" in record:
        return [
            {"role": "user", "content": record["prompt"]},
            {"role": "assistant", "content": record["completion"]},
        ]
    if isinstance(record.get("messages"), list) and record["messages"]:
        return record["messages"]
    raise InputError(f"{where}: needs `messages`, `prompt` with `completion`, or `text`; has {sorted(record)}")
