"""Byte strings on disk: read by key, mapped and not loaded, whole after anything that may happen to a writer."""

import hashlib
import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from studykit import files
from studykit.teacher.store import Store, as_keys


def keys(*numbers: int) -> np.ndarray:
    return as_keys([hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in numbers])


def opened(folder, *numbers) -> Store:
    store = Store(folder)
    store.want(keys(*numbers))
    store.refresh()
    return store


def read(store, *numbers) -> list[bytes]:
    return [part.tobytes() for part in store.read(keys(*numbers))]


def test_what_is_written_is_read_in_any_order(tmp_path):
    parts = {n: os.urandom(n * 7) for n in range(50)}
    writer = opened(tmp_path)
    for low, high in pairwise([0, 1, 20, 50]):
        writer.write(keys(*range(low, high)), [parts[n] for n in range(low, high)])
    order = np.random.default_rng(0).permutation(50).tolist()
    for store in (opened(tmp_path, *order), writer):
        store.want(keys(*order))
        assert read(store, *order) == [parts[n] for n in order]
    assert len(list(tmp_path.iterdir())) == 3


def test_zero_bytes_and_no_keys_are_fine(tmp_path):
    store = opened(tmp_path, 1)
    assert store.has(keys()).shape == (0,)
    assert read(store) == []
    store.write(keys(1), [b""])
    assert read(opened(tmp_path, 1), 1) == [b""]


def test_keys_with_zero_bytes_at_the_end_stay_different(tmp_path):
    names = as_keys(["ab" + "00" * 15, "ab01" + "00" * 14, "00" * 16])
    store = Store(tmp_path)
    store.want(names)
    store.write(names[:2], [b"one", b"two"])
    assert store.has(names).tolist() == [True, True, False]
    assert [part.tobytes() for part in store.read(names[:2])] == [b"one", b"two"]


def test_only_what_is_wanted_is_known_and_wants_add_up(tmp_path):
    opened(tmp_path).write(keys(1, 2, 3), [b"a", b"b", b"c"])
    store = opened(tmp_path, 1, 4)
    assert store.has(keys(1, 4)).tolist() == [True, False]
    with pytest.raises(KeyError, match="never wanted"):
        store.has(keys(2))
    with pytest.raises(KeyError, match="no such entry"):
        store.read(keys(4))
    store.want(keys(2))
    assert read(store, 2, 1) == [b"b", b"a"]


def test_what_others_write_is_found_by_a_refresh(tmp_path):
    store, other = opened(tmp_path, 1, 2), opened(tmp_path, 1, 2)
    other.write(keys(1), [b"a"])
    assert not store.has(keys(1)).any()
    store.refresh()
    assert read(store, 1) == [b"a"]


def test_an_entry_that_two_wrote_is_read_once(tmp_path):
    for parts in ([b"a", b"b"], [b"a", b"c"]):
        opened(tmp_path).write(keys(1, 2), parts)
    store = opened(tmp_path, 1, 2)
    assert read(store, 1) == [b"a"]
    assert read(store, 2)[0] in (b"b", b"c")


def test_the_size_of_all_entries_is_that_of_the_files(tmp_path):
    store = opened(tmp_path, *range(30))
    store.write(keys(*range(10)), [bytes(n) for n in range(10)])
    store.write(keys(*range(10, 30)), [bytes(100)] * 20)
    whole = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert store.size(keys(*range(30))) == pytest.approx(whole)
    assert store.size(keys(11)) == pytest.approx(100 + (max(f.stat().st_size for f in tmp_path.iterdir()) - 2000) / 20)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_shard_that_is_cut_off_is_refused_when_it_is_opened(length, tmp_path):
    opened(tmp_path).write(keys(1, 2), [bytes(300), bytes(300)])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(RuntimeError, match=rf"{file.name} is damaged .*: delete that file"):
        opened(tmp_path)


def test_every_flipped_bit_is_noticed_or_changes_nothing(tmp_path):
    opened(tmp_path).write(keys(1, 2), [b"first", b"second"])
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    answers = []
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        answers.append(answer(tmp_path))
    assert set(answers) <= {"right", "refused"}
    assert answers.count("refused") > 0.9 * len(whole)


def answer(folder) -> str:
    try:
        return "right" if read(opened(folder, 1, 2), 1, 2) == [b"first", b"second"] else "wrong"
    except RuntimeError as error:
        return "refused" if "delete that file" in str(error) else str(error)


def test_only_the_damaged_entry_is_refused_and_only_when_it_is_touched(tmp_path):
    opened(tmp_path).write(keys(1, 2), [b"A" * 40, b"B" * 40])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes().replace(b"BBBB", b"BBBb", 1))
    store = opened(tmp_path, 1, 2)
    assert read(store, 1) == [b"A" * 40]
    with pytest.raises(RuntimeError, match="entry 1"):
        store.read(keys(2))


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_a_large_store_is_mapped_and_not_loaded(tmp_path):
    big = os.urandom(2**20) * 64
    for n in range(4):
        opened(tmp_path).write(keys(n, n + 10), [big, bytes([n])])
    del big
    before = resident_mib()
    store = opened(tmp_path, *range(20))
    assert read(store, 10, 11, 12, 13) == [bytes([n]) for n in range(4)]
    assert resident_mib() - before < 20  # of 256


def write_until_killed(folder: str) -> None:
    store = opened(Path(folder))
    flush, flushed = files._flush, []

    def kill(path):
        flushed.append(path)
        if len(flushed) == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(path)

    files._flush = kill
    for n in range(10):
        store.write(keys(n), [bytes(1000 + n)])


def test_a_killed_writer_leaves_whole_shards_and_its_old_leftovers_are_removed(tmp_path, empty_cache, start, join):
    empty_cache.mkdir()
    assert join(start(write_until_killed, str(tmp_path / "store"))) == -signal.SIGKILL
    store = opened(tmp_path / "store", *range(10))
    assert store.has(keys(*range(10))).tolist() == [True] * 3 + [False] * 7
    (leftover,) = (tmp_path / "store").glob(".*")
    os.utime(leftover, (0, time.time() - 2 * 24 * 3600))
    opened(tmp_path / "store")
    assert not leftover.exists()
    assert len(list((tmp_path / "store").iterdir())) == 3
