"""No single damaged file makes a study unreadable: the other rows are there, and the damaged run is named."""

import json
import random
import shutil

import pandas as pd
import pytest
from typer.testing import CliRunner

from dashboard import readings
from studykit import results
from studykit.cli import app
from studykit.files import parse_json
from studykit.results.cells import finish_cell, write_cell
from studykit.results.record import CellSpec

MUTATIONS = 200
VALUES = (
    "-1", "true", "1.0", "1e999", "NaN", "-Infinity", '"text"', '"NaN"', '"\\ud800"', "null", "[]", "{}", '[["a"]]',
    "4294967296", "12345678901234567890", "9" * 5000, "[" * 200 + "]" * 200, "[" * 100_000,
    '{"a":' * 99 + "1" + "}" * 99,
)  # fmt: skip
"""JSON texts, some of which are none."""


@pytest.fixture
def whole(study, make_spec):
    """Complete a study of three finished runs by a killed one, a cell, a signal and an index; return its table."""
    killed = make_spec("kd", 200, 5)
    folder = study / "runs" / killed.run_id
    folder.mkdir()
    (folder / "spec.json").write_text(killed.training.canonical(), encoding="utf-8")
    cell = study / "cells" / ("0" * 12)
    cell.mkdir(parents=True)
    parameters = {"seed": 3, "methods": ["kd"]}
    write_cell(cell, CellSpec(cell_id=cell.name, notebook="n", notebooks="..", parameters=parameters, timeout_s=1.0))
    finish_cell(cell, "done", wall_s=1.0)
    numbers = dict.fromkeys(("bytes_per_position", "kept_mass", "smallest_kept_mass", "gradient_cosine"), 0.5)
    results.write_signal(study, next(iter(sorted((study / "runs").iterdir()))).name, numbers | {"cache_tokens": 9})
    return results.load(study)


def paths(value, path=()):
    """Yield the path of every part of a JSON value."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from paths(part, (*path, key))


def mutate(text, choice):
    """Return JSON with one part replaced; of a file of lines, a part of one line."""
    head, line = (text.splitlines()[:-1], text.splitlines()[-1]) if "}\n{" in text else ([], text)
    content = json.loads(line)
    path = choice.choice(list(paths(content)))
    if not path:
        return "\n".join([*head, choice.choice(VALUES), ""])
    part = content
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = "REPLACED"
    return "\n".join([*head, json.dumps(content).replace('"REPLACED"', choice.choice(VALUES)), ""])


def test_one_damaged_file_leaves_the_rows_of_all_other_runs(study, whole, monkeypatch):
    monkeypatch.setattr(readings, "study", lambda: study)
    choice = random.Random(0)
    files = sorted(file for file in study.rglob("*.json*") if file.name not in ("study.json",))
    assert {file.name for file in files} >= {"record.json", "spec.json", "cell.json", "index.jsonl", "items.jsonl"}
    index, named = (study / "index.jsonl").read_text(encoding="utf-8"), 0
    for number in range(MUTATIONS):
        file = files[number % len(files)]
        text = file.read_text(encoding="utf-8")
        if file.name == "record.json":
            (study / "index.jsonl").unlink(missing_ok=True)
        file.write_text(damaged := mutate(text, choice), encoding="utf-8")
        inside = file.relative_to(study).parts
        run = inside[1] if inside[0] == "runs" else None
        in_index = json.loads(text.splitlines()[-1])["run_id"] if file.name == "index.jsonl" else None

        frame = readings.runs()
        assert set(frame["run_id"]) == set(whole["run_id"]), damaged[:300]
        same = [*results.IDENTITY_COLUMNS] + (["exact_match", "nll"] if file.parent.name != "signals" else [])
        before, after = (
            table[~table["run_id"].isin([run, in_index])].sort_values("run_id", ignore_index=True)[same]
            for table in (whole, frame)
        )
        pd.testing.assert_frame_equal(before, after, check_dtype=False)
        if run is not None:
            items = [item for one in results.read_evaluations(study / "runs" / run) for item in readings.items(one)[0]]
            curve, _ = readings.metrics(study / "runs" / run)
            assert all(isinstance(item["id"], str) for item in items)
            assert all(kind.kind in "if" for kind in curve.dtypes)
        assert len(readings.cells()) == 1
        reasons = readings.damaged()
        assert {reason.partition("/")[0] for reason in reasons} <= {run}
        if reasons:
            named += 1
            assert not {"done", "running"} & set(frame[frame["run_id"] == run]["status"])
            if named % 10 == 1:
                shown = CliRunner().invoke(app, ["results", study.name, "--results", str(study.parent)])
                assert (shown.exit_code, shown.stderr.count("\n")) == (0, 1)
                assert f"{'/'.join(inside)} is damaged" in shown.stderr
        file.write_text(text, encoding="utf-8")
        (study / "index.jsonl").write_text(index, encoding="utf-8")  # which may have learned of another record
    assert named > MUTATIONS / 20
    shutil.rmtree(study / "signals")
    assert len(results.load(study)) == 4


@pytest.mark.parametrize("text", ["[1e999]", "[NaN]", "[12345678901234567890]", '["\\ud800"]', "[" * 101 + "]" * 101])
def test_json_that_not_every_program_reads_is_refused(text):
    with pytest.raises(ValueError, match=r"finite|larger|surrogates|deeply"):
        parse_json(text)
    assert parse_json('[9007199254740992, "\\u00e9\\ud83d\\ude00", 1e308]') == [2**53, "é😀", 1e308]
