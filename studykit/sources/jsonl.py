"""A user's own data, in any layout of trl, OpenAI, axolotl, LLaMA-Factory, Together or Mistral.

    {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}
    {"prompt": "2+2?", "completion": "4", "id": "sum-1", "source": "arithmetic", "annotator": "gpt-x"}
    {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]}
    {"instruction": "Add.", "input": "2+2", "output": "4"}
    {"text": "a plain document"}

The file holds one JSON object per line, a list of them, or a table (Parquet, Arrow, CSV), and may be compressed. `id`,
`source`, `annotator` and `split` may be given in a record; otherwise they are the hash of its content, the file's name,
"human" and the requested split. `choices`, a list of texts, are the answers that a scorer may choose from. Keys that
nothing reads are named once for each file, in a log message.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from studykit.errors import InputError, unknown
from studykit.sources import Example
from studykit.sources._files import read_records
from studykit.sources._records import to_choices, to_messages

_LOG = logging.getLogger(__name__)


def jsonl(split: str, *, path: str, prompt: str | None = None, completion: str | None = None) -> Iterator[Example]:
    """Yield the examples of a file that belong to a split.

    Args:
        split: records that name another split are left out; those that name none belong to every requested split.
        path: the file; `{split}` in it is replaced, so that "data/{split}.jsonl" serves train and test.
        prompt: field, or column of a table, that holds the question, where it is not called so.
        completion: field or column that holds the answer, where it is not called so.

    Raises:
        InputError: no such file, a malformed record (by line), or one id given twice.
    """
    names = {field: name for field, name in (("prompt", prompt), ("completion", completion)) if name is not None}
    (file,) = files(split, path=path)
    place_of: dict[str, str] = {}
    ignored = Counter[str]()
    for where, number, record in read_records(file):
        example, is_named, unread = _example(file, where, _rename(record, names, where), split)
        if example.split != split:
            continue
        ignored.update(unread)
        if example.id in place_of and not is_named:
            example = replace(example, id=f"{example.id}-line-{number}")  # real data repeats texts
        if example.id in place_of:
            raise InputError(f"{where}: id {example.id!r:.80} was used at {place_of[example.id]}; ids are unique")
        place_of[example.id] = where
        yield example
    if ignored:
        counts = ", ".join(f"{key!r} ({count:,} records)" for key, count in sorted(ignored.items()))
        _LOG.warning("%s: nothing reads the keys %s", file, counts)


def files(split: str, *, path: str, prompt: str | None = None, completion: str | None = None) -> list[Path]:
    """Return the file of a split.

    Raises:
        InputError: a path that cannot be looked up.
    """
    if "\0" in path:
        raise InputError(f"source 'jsonl': path {path!r:.80} holds a null byte")
    try:
        return [Path(path.replace("{split}", split)).expanduser()]
    except RuntimeError as error:  # no such user in "~user"
        raise InputError(f"source 'jsonl': path {path!r:.80} cannot be looked up ({error})") from None


def _rename(record: dict[str, Any], names: dict[str, str], where: str) -> dict[str, Any]:
    """Return a record with some of its fields under the names of a layout.

    Args:
        record: as read.
        names: the record's names by those of the layout.
        where: file and line, for messages.

    Raises:
        InputError: no such field, with the nearest one.
    """
    for name in names.values():
        if name not in record:
            raise InputError(f"{where}: {unknown('field', name, map(str, record))}")
    others = {key: value for key, value in record.items() if key not in names.values()}
    return others | {field: record[name] for field, name in names.items()} if names else record


def _example(file: Path, where: str, record: dict[str, Any], split: str) -> tuple[Example, bool, set[str]]:
    """Return the example of a record, whether its id was given, and the keys that nothing reads."""
    messages, unread = to_messages(record, where)
    content = hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:16]
    given = {key: str(record[key]) for key in ("id", "source", "annotator", "split") if record.get(key) is not None}
    example = Example(
        id=given.get("id", content),
        messages=messages,
        source=given.get("source", file.stem),
        annotator=given.get("annotator", "human"),
        split=given.get("split", split),
        choices=to_choices(record),
    )
    return example, "id" in given, unread - ({"choices"} if example.choices else set())
