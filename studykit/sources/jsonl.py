"""A user's own data: one JSON object per line, with `messages`, or `prompt` and `completion`, or `text`.

    {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}
    {"prompt": "2+2?", "completion": "4", "id": "sum-1", "source": "arithmetic", "annotator": "gpt-x"}
    {"text": "a plain document"}

`id`, `source`, `annotator` and `split` may be given on a line; otherwise they are the line's own content hash, the
file's name, "human" and the split asked for.
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
        split: lines that name another split are left out; lines that name none belong to every split asked for.
        path: the file; `{split}` in it is replaced, so that "data/{split}.jsonl" serves train and test.

    Raises:
        InputError: no such file, an empty or malformed line (by number), or one id given twice.
    """
    file = Path(path.replace("{split}", split)).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"source 'jsonl': cannot read {file}: {error}") from None
    lines = text.removesuffix("\n").split("\n") if text else []  # splitlines would also split inside a text
    numbered: dict[str, int] = {}
    examples = []
    for number, line in enumerate(lines, 1):
        example, is_named = _example(file, number, line, split)
        if example.split != split:
            continue
        if example.id in numbered and not is_named:
            example = replace(example, id=f"{example.id}-line-{number}")  # the same text again, as real data has it
        if example.id in numbered:
            raise InputError(
                f"{file}:{number}: id {example.id!r} was used on line {numbered[example.id]}; ids are unique"
            )
        numbered[example.id] = number
        examples.append(example)
    return examples


def _example(file: Path, number: int, line: str, split: str) -> tuple[Example, bool]:
    """Return the example of a line, and whether its id was given."""
    where = f"{file}:{number}"
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        fault = "an empty line" if not line.strip() else f"not JSON ({error.msg} at column {error.colno})"
        raise InputError(f"{where}: {fault}; one JSON object per line is expected") from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: a JSON object is expected, received {type(record).__name__}")
    messages = _messages(where, record)
    content = hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:16]
    example = Example(
        id=content if record.get("id") is None else str(record["id"]),
        messages=messages,
        source=str(record.get("source", file.stem)),
        annotator=str(record.get("annotator", "human")),
        split=str(record.get("split", split)),
    )
    return example, record.get("id") is not None


def _messages(where: str, record: dict[str, Any]) -> tuple[dict[str, str], ...]:
    """Read any of the three layouts; every content must be a non-empty string and the assistant must end."""
    if "text" in record:
        messages = [{"role": PLAIN_TEXT, "content": record["text"]}]
    elif "prompt" in record and "completion" in record:
        messages = [
            {"role": "user", "content": record["prompt"]},
            {"role": "assistant", "content": record["completion"]},
        ]
    elif isinstance(record.get("messages"), list) and record["messages"]:
        messages = record["messages"]
    else:
        raise InputError(f"{where}: needs `messages`, `prompt` with `completion`, or `text`; has {sorted(record)}")
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
