"""Files are read a part at a time: the same records and messages wherever the parts are cut."""

import bz2
import gzip
import io
import json
import lzma
from pathlib import Path

import pytest

from studykit.errors import InputError
from studykit.sources import _files
from studykit.sources._files import read_records

RECORDS = [
    {"prompt": "ab\n😀" * n, "completion": '[] {}, "\\' + "é" * n, "n": [1.5e-7, -n, True, None, {"deep": [[n]]}]}
    for n in range(1, 9)
]
FILES = {
    "lines": "".join(json.dumps(record, ensure_ascii=False) + "\r\n\n" for record in RECORDS),
    "escaped": "".join(json.dumps(record) + "\n" for record in RECORDS),
    "without a last line break": "\n".join(map(json.dumps, RECORDS)),
    "list": json.dumps(RECORDS, ensure_ascii=False),
    "list of lines": json.dumps(RECORDS, indent=1),
    "under data": "\n\n" + json.dumps({"data": RECORDS, "version": 2}),
    "under data, in lines": json.dumps({"data": RECORDS}, indent=2),
}


@pytest.fixture(params=[16, 17, 100, 2**20])
def part(request, monkeypatch):
    """Set the bytes that are read together."""
    monkeypatch.setattr(_files, "_PART", request.param)
    return request.param


@pytest.mark.parametrize("name", FILES)
def test_records_are_the_same_wherever_a_part_ends(name, part, tmp_path):
    file = tmp_path / "data.json"
    file.write_bytes(b"\xef\xbb\xbf" + FILES[name].encode())
    assert [record for _, _, record in read_records(file)] == RECORDS


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["lines", "list"])
def test_compressed_files_too(name, compress, part, tmp_path):
    file = tmp_path / "data.json.packed"
    file.write_bytes(compress(FILES[name].encode()))
    assert [record for _, _, record in read_records(file)] == RECORDS


FAULTS = {
    '[{"a": 1},\n {"a": tru}]': r":2 \(item 2\): not JSON \(Expecting value at line 2, column 8\)",
    '[{"a": 1}, {"b" 2}]': r":1 \(item 2\): not JSON \(Expecting ':' delimiter at column 17\)",
    '[\n{"a": 1},\n\n{"b": "x}]': r":4 \(item 2\): not JSON \(Unterminated string .* at line 4, column 7\)",
    '[{"a": 1}, 7]': r":1 \(item 2\): a JSON object is expected, received int",
    '[{"a": 1}, {"b": "\\ud83d"}]': r":1 \(item 2\): half of a surrogate pair",
    '[{"a": 1}': r":1 \(item 2\): not JSON \(Expecting value at column 10\)",
    '{\n"a": 1\n}': r":1: one JSON object per line is expected, or a list of objects",
}


@pytest.mark.parametrize("text", FAULTS)
def test_faults_have_their_line_and_column_wherever_a_part_ends(text, part, tmp_path):
    file = tmp_path / "data.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=FAULTS[text]):
        list(read_records(file))


@pytest.mark.parametrize("name", ["lines", "list", "under data, in lines"])
def test_of_a_long_file_a_part_at_a_time_is_read(name, monkeypatch):
    monkeypatch.setattr(_files, "_PART", 64)
    stream = io.BytesIO(FILES[name].encode() * (1 if name != "lines" else 50))
    records = _files._records_of_text(Path("data.json"), ".json", stream)
    next(records)
    assert stream.tell() < len(stream.getvalue()) / 3
