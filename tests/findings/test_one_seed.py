"""With one seed there is no interval; the stored items of the two runs are what is known."""

import json

import pytest
from contrast_rows import frame_of, runs

from studykit import results
from studykit.findings import _items
from studykit.findings.methods import methods
from studykit.findings.student_size import student_size
from studykit.results import item_scores

RIGHT = {"sft": [1, 0, 0, 0, 0, 0], "kd": [1, 1, 1, 1, 1, 0]}


@pytest.fixture
def frame(tmp_path, monkeypatch):
    """Return one run of each method, with six items stored, of which kd alone is right on four."""
    rows = frame_of(*(runs(method, [100 * sum(right) / 6]) for method, right in RIGHT.items()))
    for method, right in RIGHT.items():
        scores = [{"id": str(number), "scores": {"exact_match": value}} for number, value in enumerate(right)]
        (tmp_path / method).mkdir()
        (tmp_path / method / "items.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in scores))
    folders = dict(zip(rows["run_id"], rows["method"], strict=True))
    monkeypatch.setattr(results, "find_run", lambda folder, run: tmp_path / folders[run])
    monkeypatch.setattr(results, "read_item_scores", lambda folder, _: item_scores._read_whole(folder / "items.jsonl"))
    monkeypatch.setattr(results, "read_record", lambda folder: None)
    _items._read_scores.cache_clear()
    yield rows
    _items._read_scores.cache_clear()


@pytest.mark.parametrize("finding", [methods, student_size])
def test_the_finding_has_the_exact_test_on_items(frame, tmp_path, finding):
    said = " Of 6 items kd alone is right on 4 and sft alone on 0 (exact McNemar p = 0.12), with this one seed."
    assert said in finding(frame, folder=tmp_path).sentence
    assert "McNemar" not in finding(frame).sentence
