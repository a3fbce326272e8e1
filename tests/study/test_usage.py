"""How much of its budget a stage trains on: epochs become steps, and a teacher reads what is used alone."""

import json
from pathlib import Path

import pytest

from studykit import results, study
from studykit.batch import preflight
from studykit.data import Inputs
from studykit.spec import RunSpec
from studykit.study.capture import capture
from studykit.study.pin import pin
from studykit.study.score import device_hours


def without_steps(stage, **changes):
    return {name: value for name, value in stage(**changes).items() if name != "steps"}


def test_epochs_become_steps_and_leave_the_id_as_it_is(plain_spec, stage, tmp_path):
    by_epochs = pin(RunSpec.parse(plain_spec(without_steps(stage, epochs=1.5))), Inputs(tmp_path))
    assert (by_epochs.spec.stages[0].steps, by_epochs.spec.stages[0].epochs) == (9, None)  # 24 examples, 4 in a step
    assert by_epochs.run_id == pin(RunSpec.parse(plain_spec(stage(steps=9))), Inputs(tmp_path)).run_id


def test_epochs_are_of_the_selected_examples(plain_spec, stage, teacher_folder, tmp_path):
    options = {"select": "uniform", "share": 0.25, "reference": str(teacher_folder)}
    spec = plain_spec(without_steps(stage, method="miniplm", method_options=options, epochs=2))
    run = pin(RunSpec.parse(spec), Inputs(tmp_path))
    assert run.spec.stages[0].steps == 3
    assert run.data_lines == ["budget 24, selected 6, seen 6 (2.00 epochs)"]


def test_the_record_says_how_much_was_seen(plain_spec, stage, tmp_path):
    row = study.run(plain_spec(stage(steps=3)), study="s", root=tmp_path)
    record = json.loads((tmp_path / "s" / "runs" / row["run_id"] / "record.json").read_text(encoding="utf-8"))
    assert (record["data"][0]["seen_examples"], record["data"][0]["epochs"]) == (12, 0.5)
    assert results.load(tmp_path)[["seen_examples", "epochs"]].iloc[0].tolist() == [12, 0.5]
    curve, _ = results.read_metrics(results.find_run(tmp_path, row["run_id"]))
    assert curve["epochs"].tolist() == pytest.approx([0.5 * step / 3 for step in curve["step"]])


def test_the_hours_of_the_table_are_those_of_training_and_evaluation(plain_spec, data_file, tmp_path):
    evaluation = {"data": {"source": "jsonl", "options": {"path": str(data_file)}}, "items": 6, "max_new_tokens": 4}
    row = study.run(plain_spec(evaluation=evaluation), study="s", root=tmp_path)
    seconds = row["train_s"] + row["evaluate_s"]
    folder = results.find_run(tmp_path, row["run_id"])
    trained, stored = results.read_record(folder), results.find_evaluation(folder)
    assert trained is not None
    assert stored is not None
    measured = stored.record
    assert measured is not None
    hours = [record.cost["processor_hours"] for record in (trained, measured)]
    assert row["processor_hours"] == pytest.approx(sum(hours), abs=2e-6)
    assert hours[0] * 3600 == pytest.approx(row["train_s"] + row.get("teacher_s", 0), abs=0.01)
    assert hours[1] * 3600 >= measured.cost["evaluate_s"] - 0.01
    assert row["processor_hours"] * 3600 >= seconds - 0.02


def test_the_hours_are_those_of_the_gpu_where_there_is_one(monkeypatch):
    assert device_hours(5400.0) == {"processor_hours": 1.5}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert device_hours(5400.0) == {"gpu_hours": 1.5}


@pytest.mark.parametrize(
    ("steps", "line"), [((3,), ["budget 24, seen 12 (0.50 epochs)"]), ((12,), ["budget 24, seen 24 (2.00 epochs)"])]
)
def test_a_line_before_training_says_how_much_will_be_seen(steps, line, plain_spec, stage, tmp_path):
    run = pin(RunSpec.parse(plain_spec(*(stage(steps=count) for count in steps))), Inputs(tmp_path))
    assert run.data_lines == line


def test_the_check_before_a_batch_says_it_once_for_all_seeds(plain_spec, stage, tmp_path, monkeypatch):
    stages = [stage(steps=3), stage(steps=6)]
    monkeypatch.setattr(preflight, "arms_of", lambda notebook, p: {"a": plain_spec(*stages, seed=p["seed"])})
    cells = [{"notebook": "any", "parameters": {"seed": seed, "results": str(tmp_path)}} for seed in (0, 1)]
    assert preflight.check(cells)["lines"] == [
        "stage 1: budget 24, seen 12 (0.50 epochs)",
        "stage 2: budget 24, seen 24 (1.00 epochs)",
    ]


def test_a_batch_starts_without_an_estimate_where_there_is_none(plain_spec, tmp_path, monkeypatch):
    def fail(run):
        raise MemoryError("made up")

    monkeypatch.setattr("studykit.study.rates.measure", fail)
    monkeypatch.setattr(preflight, "arms_of", lambda notebook, parameters: {"a": plain_spec(teacher=False)})
    checked = preflight.check([{"notebook": "any", "parameters": {"results": str(tmp_path)}}])
    assert checked["lines"][-1] == "no estimate for sft: MemoryError: made up"
    assert checked["estimates"] == []


def test_a_capture_asks_for_what_the_plan_of_batches_uses(plain_spec, stage, empty_cache, tmp_path):
    few, all_of_it = (plain_spec(stage("kd", steps=steps), top_k=8) for steps in (2, 6))
    report = capture(pin(RunSpec.parse(few), Inputs(tmp_path)))
    assert report.sequences == 8
    # The teacher reads the rest of the budget once it is used, and no sequence twice.
    again = capture(pin(RunSpec.parse(all_of_it), Inputs(tmp_path)))
    assert again.sequences == 24
    assert again.teacher_tokens == again.cache_tokens - report.teacher_tokens


def test_what_no_step_uses_changes_no_weight(plain_spec, stage, data_file, tmp_path, monkeypatch):
    plain = plain_spec(stage("kd", steps=2), top_k=8)
    whole = {"source": "jsonl", "options": {"path": str(data_file)}}
    weights = []
    for cache, captured in (("used", None), ("whole", plain_spec(stage("kd", data=whole, steps=10), top_k=8))):
        monkeypatch.setenv("STUDYKIT_CACHE", str(tmp_path / f"cache-{cache}"))
        if captured is not None:
            capture(pin(RunSpec.parse(captured), Inputs(tmp_path)))
        row = study.run(plain, study=cache, root=tmp_path)
        assert (row["teacher_tokens"] == 0) == (captured is not None)
        folder = Path(tmp_path / cache / "runs" / row["run_id"] / "model")
        weights.append((folder / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
