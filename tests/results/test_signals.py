"""Measures of cached teachers are stored beside the runs and shown in their rows."""

import json
import os

import pandas as pd

from studykit.results import configurations, fingerprint, load, read_signals, rebuild_index, write_signal

REPORT = {
    "bytes_per_position": 18.5,
    "kept_mass": 0.99,
    "smallest_kept_mass": 0.5,
    "gradient_cosine": 0.999,
    "cache_tokens": 700,
    "folder": "somewhere/on/this/machine",
    "teacher_tokens": 0,
}


def measured(study):
    """Measure one run of the study; return its id and what is in its row."""
    run_id = load(study)["run_id"].iloc[0]
    write_signal(study, run_id, REPORT)
    return run_id


def row_of(study, run_id):
    """Return the row of one run."""
    return load(study).set_index("run_id").to_dict("index")[run_id]


def test_it_is_in_the_row_of_its_run_and_missing_in_others(study):
    run_id = measured(study)
    assert row_of(study, run_id)["bytes_per_position"] == 18.5
    assert row_of(study, run_id)["cache_tokens"] == 700
    assert load(study)["bytes_per_position"].notna().sum() == 1


def test_nothing_else_of_a_report_is_kept(study):
    run_id = measured(study)
    content = json.loads((study / "signals" / f"{run_id}.json").read_text())
    assert content == {name: REPORT[name] for name in list(REPORT)[:5]}
    assert "teacher_tokens" not in load(study)  # a report's are another time's than the run's


def test_the_index_does_not_hold_it_so_that_it_may_come_later(study):
    load(study)
    run_id = measured(study)
    assert row_of(study, run_id)["kept_mass"] == 0.99
    rebuild_index(study)
    assert "kept_mass" not in (study / "index.jsonl").read_text()
    assert row_of(study, run_id)["kept_mass"] == 0.99


def test_a_measurement_changes_the_fingerprint(study):
    run_id = measured(study)
    before = fingerprint(study)
    os.utime(study / "signals" / f"{run_id}.json", ns=(0, 0))
    after = fingerprint(study)
    (study / "signals" / f"{run_id}.json").unlink()
    assert len({before, after, fingerprint(study)}) == 3


def test_runs_with_other_signals_have_other_options(study, make_spec, make_run):
    spec = make_spec("kd", 200)
    kinds = ({}, {"top_k": 4}, {"samples": 4})
    for kept in kinds:
        make_run(study, spec.model_copy(update={"teacher": spec.teacher.model_copy(update=kept)}))
    frame = load(study)
    assert configurations(frame[frame["budget_examples"] == 200]).nunique() == len(kinds)


def test_what_a_method_and_its_teacher_call_alike_is_kept_apart(study, make_spec, make_run):
    spec = make_spec("skd", 200)
    cached = spec.teacher.model_copy(update={"top_k": 4})
    for k in (5, 50):
        stages = (spec.stages[0].model_copy(update={"method_options": {"top_k": k}}),)
        make_run(study, spec.model_copy(update={"stages": stages}))
        make_run(study, spec.model_copy(update={"stages": stages, "teacher": cached}))
    frame = load(study)
    assert (frame["method_options.top_k"] == 50).sum() == 2
    assert (frame["teacher_top_k"] == 4).sum() == 2
    assert configurations(frame[frame["method"] == "skd"]).nunique() == 4


def test_damaged_files_are_as_good_as_not_measured(study):
    run_id = measured(study)
    file = study / "signals" / f"{run_id}.json"
    for text in (file.read_text()[:20], "[]", "{}", ""):
        file.write_text(text)
        assert read_signals(study) == {}
        assert len(load(study)) == 3
    write_signal(study, run_id, REPORT)
    assert set(read_signals(study)) == {run_id}
    assert pd.notna(row_of(study, run_id)["gradient_cosine"])
