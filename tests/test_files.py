"""What a killed writer leaves is removed, by whom and when; plain data is checked before anything walks through it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from studykit.errors import InputError
from studykit.files import check_plain, remove_leftovers, replacing, write_json

DIE = """
import os, signal, sys
from pathlib import Path
from studykit.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def leftover(tmp_path):
    """Kill a process before it renames what it wrote, and return the file that it leaves."""
    done = subprocess.run([sys.executable, "-c", DIE, str(tmp_path / "record.json")])
    assert done.returncode == -signal.SIGKILL
    (file,) = tmp_path.iterdir()
    return file


def test_a_leftover_is_removed_with_the_next_file_of_its_folder_once_no_writer_can_hold_it(leftover):
    write_json(leftover.parent / "other.json", {})
    assert leftover.exists()  # its writer might be alive
    os.utime(leftover, (0, time.time() - 2 * 24 * 3600))
    write_json(leftover.parent / "other.json", {})
    assert [file.name for file in leftover.parent.iterdir()] == ["other.json"]


def test_the_only_writer_of_a_folder_removes_all_leftovers_and_nothing_else(leftover):
    kept = {".hidden", "record.json", ".keep.this.json", "lock", "a.b.12345678.json"}
    for name in kept:
        (leftover.parent / name).write_text("")
    with replacing(leftover.parent / "noname") as temporary:
        assert temporary.exists()
        remove_leftovers(leftover.parent, older_than_s=0)
        assert {file.name for file in leftover.parent.iterdir()} == kept
        temporary.write_text("written again")
    assert (leftover.parent / "noname").read_text() == "written again"


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


LAUGHS = [0]
for _ in range(20):
    LAUGHS = [LAUGHS, LAUGHS]
CIRCLE = {}
CIRCLE["self"] = CIRCLE

WRONG = {
    "a.0.b: inf is no finite number": {"a": [{"b": float("inf")}]},
    "a: a whole number of 64 bits": {"a": 2**63},
    "a: half of a surrogate pair": {"a": "x\ud83d"},
    "top level: half of a surrogate pair": {"\udc00": 1},
    "top level: keys are texts, received 1": {1: 2},
    "holds more than 40 levels": deep(10_000),
    "self.self.self": CIRCLE,
    "more than 100,000 values": LAUGHS,
}


@pytest.mark.parametrize("message", WRONG)
def test_what_json_cannot_keep_is_refused_by_its_key(message):
    with pytest.raises(InputError) as refused:
        check_plain(WRONG[message], "specification")
    assert str(refused.value).startswith("specification: ")
    assert message in str(refused.value)


def test_plain_data_is_let_pass():
    check_plain({"a": [1, 2.5, None, True, "é😀", (2**63 - 1, -(2**63) + 1)], "": {}}, "specification")
