"""Files are parsed once, whatever reads them afterwards; examples that stay on disk give what those in memory give."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from studykit.data import Inputs, pool_index, sequences, tables
from studykit.data.filters import Excluded
from studykit.data.pool_index import open_pool
from studykit.data.stored import StoredExamples
from studykit.errors import InputError
from studykit.models.names import Models
from studykit.sources import COLUMNS, SOURCES, column, content_hash, files_of, load_examples
from studykit.spec import Data, RunSpec, Stage
from studykit.study.pin import pin

WORDS = ("c a t", "d o g", "s t o n e", "r i v e r", "y e l l o w")
SOUNDS = ("K AE T", "D AO G", "S T OW N", "R IH V ER", "Y EH L OW")


def lines_of(count):
    """Return records of conversations of one to three turns; every seventh repeats an earlier one."""
    lines = []
    for number in range(count):
        number = number - 6 if number % 7 == 6 else number
        turns = [
            {"role": role, "content": f"{prefix}{texts[(number + turn) % 5]}" + f" {texts[number % 3]}" * (number // 5)}
            for turn in range(1 + number % 3)
            for role, prefix, texts in (("user", "Pronounce ", WORDS), ("assistant", "", SOUNDS))
        ]
        system = [{"role": "system", "content": "Spell c a t"}] if number % 4 == 0 else []
        annotator = {"annotator": "gpt-x"} if number % 3 else {}
        lines.append({"messages": system + turns, "source": f"s{number % 4}"} | annotator)
    return lines


def as_bytes(lines, end="\n"):
    return "".join(json.dumps(line, ensure_ascii=False) + end for line in lines).encode()


def write_parquet(file, lines):
    parquet.write_table(pa.Table.from_pylist(lines), file, row_group_size=11)


LAYOUTS = {
    "lines": lambda file, lines: file.write_bytes(as_bytes(lines)),
    "CRLF, blank lines, byte order mark": lambda f, lines: f.write_bytes(
        b"\xef\xbb\xbf" + as_bytes(lines, "\r\n \r\n")
    ),
    "gzip": lambda file, lines: file.write_bytes(gzip.compress(as_bytes(lines))),
    "list": lambda file, lines: file.write_text(json.dumps(lines, indent=1)),
    "parquet": write_parquet,
    "unread nested keys": lambda f, lines: f.write_bytes(as_bytes([e | {"meta": [[[[{"a": [[1]]}]]]]} for e in lines])),
}


@pytest.fixture
def file(tmp_path, empty_cache):
    """Write forty conversations, in a test with an empty cache."""
    file = tmp_path / "talks.jsonl"
    file.write_bytes(as_bytes(lines_of(40)))
    return file


@pytest.fixture
def parsed(monkeypatch):
    """Collect the files that are parsed."""
    module, names = SOURCES.module("jsonl"), []
    read = module.read_records

    def counting(file):
        names.append(file.name)
        return read(file)

    monkeypatch.setattr(module, "read_records", counting)
    return names


@pytest.fixture
def on_disk(monkeypatch):
    """Leave the examples of the smallest index on disk."""
    monkeypatch.setattr(pool_index, "_IN_MEMORY_BYTES", 0)


@pytest.fixture
def student(tokenizer):
    return Models().find("lexicon/tokenizer")


def data_of(file, **changes):
    return {"source": "jsonl", "options": {"path": str(file)}} | changes


def opened(file, split="train"):
    options = {"path": str(file)}
    return open_pool("jsonl", split, options, files_of("jsonl", split, options) or [])


def test_fifteen_cells_parse_a_file_once_and_a_warm_index_never(plain_spec, stage, file, parsed, tmp_path):
    data = [data_of(file, budget={"examples": 4 + n}, filters={"max_tokens": 64}) for n in range(15)]
    cells = [plain_spec(stage(data=one)) for one in data]
    ids = [pin(RunSpec.parse(cell), Inputs(tmp_path)).run_id for cell in cells]  # each as another process would
    assert parsed == [file.name]
    parsed.clear()
    assert [pin(RunSpec.parse(cell), Inputs(tmp_path)).run_id for cell in cells] == ids
    assert parsed == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_index_holds_what_the_file_holds(layout, tmp_path, empty_cache, on_disk):
    file = tmp_path / "talks.jsonl"
    LAYOUTS[layout](file, lines_of(40))
    plain = load_examples("jsonl", "train", {"path": str(file)})
    stored, sha256 = opened(file)
    assert isinstance(stored, StoredExamples)
    assert list(stored) == plain
    assert sha256 == content_hash(plain) == content_hash(stored)
    assert len(plain) == len({example.id for example in plain}) == 40  # repeated texts have the ids of their lines
    for name in COLUMNS:
        assert column(stored, name).tolist() == column(plain, name).tolist()
        assert column(stored, name).dtype == column(plain, name).dtype


def test_a_stored_sequence_is_a_sequence(file, on_disk):
    stored, plain = opened(file)[0], load_examples("jsonl", "train", {"path": str(file)})
    assert isinstance(stored, StoredExamples)
    assert (stored[-1], stored[3], stored[4:9:2]) == (plain[-1], plain[3], plain[4:9:2])
    taken = stored.take(np.array([7, 0, 7])).take(np.array([2, 1]))
    assert list(taken) == [plain[7], plain[0]]
    assert taken.column("id").tolist() == [plain[7].id, plain[0].id]
    with pytest.raises(IndexError):
        stored[40]


STAGES = {
    "uniform": {},
    "most of it": {"budget": {"examples": 33}},
    "all": {"budget": {}},
    "stratified": {"budget": {"examples": 9, "sampler": "stratified", "seed": 3}},
    "tokens": {"budget": {"tokens": 120}},
    "each answer": {"turns": "each"},
    "each answer, tokens": {"turns": "each", "budget": {"tokens": 120}},
    "tokens at most": {"filters": {"max_tokens": 40}},
    "tokens at least": {"filters": {"min_response_tokens": 9, "max_turns": 4}, "turns": "each"},
    "no duplicates": {"filters": {"drop_duplicates": True}, "budget": {"tokens": 90}},
    "decontaminated": {"decontaminate": True},
    "excluded": {"exclude": True},
}


@pytest.mark.parametrize("name", STAGES)
def test_what_is_drawn_from_disk_is_what_is_drawn_from_memory(name, file, student, tmp_path, monkeypatch):
    changes = {"budget": {"examples": 12}} | STAGES[name]
    turns, excludes = changes.pop("turns", None), changes.pop("exclude", False)
    plain = {"data": data_of(file, **changes), "method": "sft", "steps": 1, "learning_rate": 0.1, "turns": turns}
    pool = load_examples("jsonl", "train", {"path": str(file)})
    excluded = Excluded(held_out=pool[4:6], held_out_sha256="x")
    if excludes:
        excluded = Excluded(frozenset(e.text_key for e in pool[:9]), frozenset([pool[20].id]))
    drawn = []
    for limit in (2**30, 0):
        monkeypatch.setattr(pool_index, "_IN_MEMORY_BYTES", limit)
        inputs = Inputs(tmp_path)
        assert isinstance(inputs.pool(Data.model_validate(plain["data"])).examples, StoredExamples) == (limit == 0)
        drawn.append(inputs.stage_data(Stage.model_validate(plain), student, None, excluded))
    in_memory, from_disk = drawn
    assert from_disk.manifest == in_memory.manifest
    assert from_disk.examples == in_memory.examples
    assert from_disk.drawn == in_memory.drawn
    for number in range(len(in_memory.encoded)):
        assert from_disk.encoded.key_of(number) == in_memory.encoded.key_of(number)
    assert from_disk.manifest.get("dropped", {}).keys() == ({"exclude"} if excludes else drops_of(changes))


def drops_of(changes):
    return set(changes.get("filters", {})) | ({"decontaminate"} if changes.get("decontaminate") else set())


def test_budgets_from_disk_are_nested(file, student, on_disk, tmp_path):
    filters = {"max_tokens": 60, "drop_duplicates": True}
    inputs, drawn = Inputs(tmp_path), []
    for budget in ({"examples": 3}, {"examples": 8}, {"examples": 15}, {"tokens": 100}, {"tokens": 250}):
        plain = {"data": data_of(file, filters=filters, budget=budget), "method": "sft", "steps": 1}
        stage = Stage.model_validate(plain | {"learning_rate": 0.1})
        drawn.append([example.id for example in inputs.stage_data(stage, student).examples])
    for smaller, larger in [(0, 1), (1, 2), (3, 4)]:
        assert drawn[larger][: len(drawn[smaller])] == drawn[smaller]
    assert drawn[4][: len(drawn[2])] == drawn[2][: len(drawn[4])]


def test_empty_answers_are_refused_or_dropped_from_disk_too(tmp_path, empty_cache, student, on_disk):
    file = tmp_path / "some.jsonl"
    file.write_bytes(as_bytes([*lines_of(5), {"prompt": "Spell K", "completion": " "}]))
    with pytest.raises(InputError, match=r"1 of 6 examples .* without an answer"):
        Inputs(tmp_path).kept(Data.model_validate(data_of(file)), student)
    kept = Inputs(tmp_path).kept(Data.model_validate(data_of(file, filters={"on_empty": "drop"})), student)
    assert (len(kept.examples), kept.dropped) == (5, {"on_empty": 1})


def test_tokens_are_counted_once(file, student, on_disk, tmp_path, monkeypatch):
    counted, count = [], sequences.tokenize
    monkeypatch.setattr(
        sequences, "tokenize", lambda examples, *rest: counted.extend(examples) or count(examples, *rest)
    )
    for limit in (60, 50):
        data = Data.model_validate(data_of(file, filters={"max_tokens": limit, "on_empty": "drop"}))
        kept = Inputs(tmp_path).kept(data, student)
        assert 0 < kept.dropped["max_tokens"] < 40
    assert len(counted) == 40


def damaged(file, change):
    content = bytearray(file.read_bytes())
    change(content)
    file.write_bytes(bytes(content))
    tables._checksum_of.cache_clear()  # as in another process


def flip(content):
    content[len(content) // 2] ^= 1


DAMAGE = {
    "a flipped bit of the table": (".arrow", flip),
    "half of the table": (".arrow", lambda content: content.__delitem__(slice(len(content) // 2, None))),
    "an empty table": (".arrow", bytearray.clear),
    "a flipped bit of the facts": (".json", flip),
    "empty facts": (".json", bytearray.clear),
    "other facts": (".json", lambda content: content.__setitem__(slice(None), b"[]")),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_index_is_made_anew(kind, file, parsed, empty_cache, caplog):
    before = opened(file)
    suffix, change = DAMAGE[kind]
    (index,) = (empty_cache / "pools").glob(f"*{suffix}")
    damaged(index, change)
    assert opened(file) == before
    assert parsed == [file.name] * 2
    assert "is damaged: it is made anew" in caplog.text
    parsed.clear()
    assert opened(file) == before
    assert parsed == []


@pytest.mark.parametrize("suffix", [".arrow", ".json"])
def test_a_missing_half_of_an_index_is_made_anew(suffix, file, parsed, empty_cache):
    before = opened(file)
    for index in (empty_cache / "pools").glob(f"*{suffix}"):
        index.unlink()
    assert opened(file) == before
    assert len(parsed) == 2


def test_a_changed_file_and_changed_code_have_another_index(file, parsed, monkeypatch):
    first, _ = opened(file)
    file.write_bytes(as_bytes(lines_of(39)))
    assert (len(first), len(opened(file)[0])) == (40, 39)
    monkeypatch.setattr(pool_index, "_code", lambda: "another")
    opened(file)
    assert len(parsed) == 3


def test_a_file_that_changes_while_it_is_read_is_refused(file, monkeypatch):
    hashes = iter([["one"], ["other"]])
    monkeypatch.setattr(pool_index, "_hash_files", lambda files: next(hashes))
    with pytest.raises(InputError, match=r"talks\.jsonl: changed while it was read"):
        opened(file)


def test_a_fault_leaves_no_index(file, empty_cache):
    file.write_bytes(as_bytes(lines_of(40)) + b"{")
    for _ in range(2):
        with pytest.raises(InputError, match=r"talks\.jsonl:41: not JSON"):
            opened(file)
    assert not list((empty_cache / "pools").glob("*.arrow"))


def test_what_a_source_logs_is_logged_from_the_index_too(tmp_path, empty_cache, caplog):
    file = tmp_path / "noted.jsonl"
    file.write_text('{"text": "a", "topic": "x"}\n', encoding="utf-8")
    opened(file)
    first = caplog.messages
    caplog.clear()
    opened(file)
    assert caplog.messages == first
    assert "nothing reads the keys 'topic'" in caplog.text


def index_it(path):
    assert len(opened(Path(path))[0]) == 40


def test_two_processes_that_need_an_index_at_once(file, empty_cache, start, join):
    processes = [start(index_it, str(file)) for _ in range(2)]
    assert [join(process) for process in processes] == [0, 0]
    assert len(list((empty_cache / "pools").glob("*.arrow"))) == 1
