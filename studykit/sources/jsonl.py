"""A user's own data: one JSON object per line, in any layout of trl, OpenAI, axolotl or LLaMA-Factory.

    {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}
    {"prompt": "2+2?", "completion": "4", "id": "sum-1", "source": "arithmetic", "annotator": "gpt-x"}
    {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]}
    {"instruction": "Add.", "input": "2+2", "output": "4"}
    {"text": "a plain document"}

`id`, `source`, `annotator` and `split` may be given on a line; otherwise they are the hash of the line's content, the
file's name, "human" and the requested split. Keys that nothing reads are named once for each file, in a log message.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from studykit.errors import InputError
from studykit.sources import Example
from studykit.sources._records import to_messages

_LOG = logging.getLogger(__name__)


def jsonl(split: str, *, path: str) -> list[Example]:
    """Return the examples of a JSONL file that belong to a split.

    Args:
        split: lines that name another split are left out; lines that name none belong to every requested split.
        path: the file; `{split}` in it is replaced, so that "data/{split}.jsonl" serves train and test.

    Raises:
        InputError: no such file, a malformed line (by number), or one id given twice.
    """
    file = Path(path.replace("{split}", split)).expanduser()
    lines_of: dict[str, int] = {}
    examples, ignored = [], Counter[str]()
    for number, record in _records(file):
        example, is_named, unread = _example(file, number, record, split)
        if example.split != split:
            continue
        ignored.update(unread)
        if example.id in lines_of and not is_named:
            example = replace(example, id=f"{example.id}-line-{number}")  # real data repeats texts
        if example.id in lines_of:
            raise InputError(
                f"{file}:{number}: id {example.id!r} was used on line {lines_of[example.id]}; ids are unique"
            )
        lines_of[example.id] = number
        examples.append(example)
    if ignored:
        counts = ", ".join(f"{key!r} ({count:,} lines)" for key, count in sorted(ignored.items()))
        _LOG.warning("%s: nothing reads the keys %s", file, counts)
    return examples


def _records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number and object of every line that is not blank; a byte order mark is skipped.

    Raises:
        InputError: no such file, or a line that is no JSON object.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="\n") as stream:  # other line ends may stand inside a text
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, _object(f"{file}:{number}", line)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"source 'jsonl': cannot read {file}: {error}") from None


def _object(where: str, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
        if "\\u" in line:  # an escape may be half of a surrogate pair, which no tokenizer takes
            json.dumps(record, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: not JSON ({error.msg} at column {error.colno}); one JSON object per line is expected"
        ) from None
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: half of a surrogate pair ({error.object[error.start]!a}): cut text; repair it"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: JSON that cannot be read ({str(error)[:80]})") from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: a JSON object is expected, received {type(record).__name__}")
    return record


def _example(file: Path, number: int, record: dict[str, Any], split: str) -> tuple[Example, bool, set[str]]:
    """Return the example of a line, whether its id was given, and the keys that nothing reads."""
    messages, unread = to_messages(record, f"{file}:{number}")
    content = hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:16]
    given = {key: str(record[key]) for key in ("id", "source", "annotator", "split") if record.get(key) is not None}
    example = Example(
        id=given.get("id", content),
        messages=messages,
        source=given.get("source", file.stem),
        annotator=given.get("annotator", "human"),
        split=given.get("split", split),
    )
    return example, "id" in given, unread
