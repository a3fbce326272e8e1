"""What notebooks call: a run is its content, arms share what they must, and wrong input leaves no trace."""

import json
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
from transformers import AutoTokenizer

from studykit import results, study
from studykit.data import Inputs
from studykit.errors import InputError
from studykit.models import loading
from studykit.results import writer
from studykit.results.cells import finish_cell
from studykit.spec import RunSpec
from studykit.study.pin import pin
from studykit.training import loop

SCORE = import_module("studykit.study.score")  # `study.score` is the function


@pytest.fixture
def evaluation(data_file):
    return {"data": {"source": "jsonl", "options": {"path": str(data_file)}}, "items": 6, "max_new_tokens": 4}


@pytest.fixture
def training_steps(monkeypatch):
    """Record the optimizer steps that are taken."""
    counted = []
    step = loop.train_step

    def counting(training, batches):
        counted.append(training.step)
        return step(training, batches)

    monkeypatch.setattr(loop, "train_step", counting)
    return counted


def files_under(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_a_run_leaves_record_items_metrics_and_model(plain_spec, evaluation, tmp_path):
    row = study.run(plain_spec(evaluation=evaluation), study="s", ablation="why", root=tmp_path)
    folder = tmp_path / "s" / "runs" / row["run_id"]
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    measured = folder / "evaluations" / row["eval_id"]
    items = [json.loads(line) for line in (measured / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (record["status"], record["ablation"]) == ("done", "why")
    metrics = json.loads((measured / "record.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["nll"] == row["nll"]
    assert metrics["answers_cut"] == row["answers_cut"] == sum(item["cut"] for item in items)
    assert [item["id"] for item in items] == [f"word-{n}" for n in range(6)]
    assert items[0]["reference"] == "K"
    assert set(items[0]["scores"]) == {"exact_match", "token_error_rate", "nll"}
    tokens = sum(item["tokens"] for item in items)
    mean = sum(item["scores"]["nll"] * item["tokens"] for item in items) / tokens
    assert row["nll"] == pytest.approx(mean, abs=1e-4)
    assert len((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 6
    assert (folder / "model" / "model.safetensors").is_file()
    assert not (folder / "checkpoints").exists()
    assert record["data"][0]["examples"] == row["budget_examples"] == 24
    assert record["train_threads"] == [1]
    covered = json.loads((measured / "record.json").read_text(encoding="utf-8"))["held_out"]
    assert (covered["examples"], covered["pool_examples"]) == (6, 40)
    assert sum(covered["by_source"].values()) == 6
    assert row["padding_tokens"] == record["cost"]["padding_tokens"] > 0
    assert results.load(tmp_path)["padding_tokens"].tolist() == [row["padding_tokens"]]
    assert RunSpec.parse(json.loads((folder / "spec.json").read_text(encoding="utf-8"))).run_id == row["run_id"]


def test_the_same_run_started_twice_trains_once(plain_spec, tmp_path, training_steps):
    first = study.run(plain_spec(), study="s", ablation="a", root=tmp_path)
    before = len(training_steps)
    second = study.run(RunSpec.parse(plain_spec()), study="s", ablation="b", root=tmp_path)
    assert before == 6
    assert len(training_steps) == before
    assert first == second


def test_a_teacher_that_nothing_asks_does_not_make_another_run(plain_spec, tmp_path):
    ids = [pin(RunSpec.parse(plain_spec(teacher=teacher)), Inputs(tmp_path)).run_id for teacher in (True, False)]
    assert ids[0] == ids[1]


def test_pinning_twice_changes_nothing(plain_spec, stage, tmp_path):
    once = pin(RunSpec.parse(plain_spec(stage("kd"))), Inputs(tmp_path)).spec
    assert pin(once, Inputs(tmp_path)).spec == once


def test_other_data_under_the_same_name_is_another_run(plain_spec, stage, data_file, tmp_path):
    copy = tmp_path / "words.jsonl"
    lines = data_file.read_text(encoding="utf-8")
    ids = []
    for content in (lines, lines.replace("K AE", "K AO")):
        copy.write_text(content, encoding="utf-8")
        data = {"source": "jsonl", "options": {"path": str(copy)}}
        ids.append(pin(RunSpec.parse(plain_spec(stage(data=data))), Inputs(tmp_path)).run_id)
    assert ids[0] != ids[1]


def test_arms_come_side_by_side(plain_spec, stage, evaluation, tmp_path):
    arms = {name: plain_spec(stage(name, steps=2), evaluation=evaluation) for name in ("sft", "kd")}
    frame = study.compare(arms, study="s", ablation="a", root=tmp_path)
    assert frame["arm"].tolist() == frame["method"].tolist() == ["sft", "kd"]
    assert frame["teacher"].isna().tolist() == [True, False]
    assert set(results.load(tmp_path)["run_id"]) == set(frame["run_id"])


def test_a_run_can_be_the_student_of_another(plain_spec, stage, tmp_path):
    first = study.run(plain_spec(stage(steps=2)), study="s", root=tmp_path)
    second = plain_spec(stage("kd", steps=2))
    second["student"] = {"name": first["run_id"]}
    second["teacher"] = {"name": first["run_id"]}
    row = study.run(second, study="s", root=tmp_path)
    metrics = (tmp_path / "s" / "runs" / row["run_id"] / "metrics.jsonl").read_text(encoding="utf-8")
    assert json.loads(metrics.splitlines()[0])["kd_loss"] == pytest.approx(0, abs=1e-6)


DIFFERENT = {
    "seed": lambda spec, stage, config: {**spec(), "seed": 1},
    "student": lambda spec, stage, config: {
        **spec(),
        "student": {"name": "lexicon/tokenizer", "random_config": {**config, "num_hidden_layers": 1}},
    },
    "number of optimizer steps": lambda spec, stage, config: spec(stage(steps=7)),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_arms_that_may_not_be_compared_are_refused(what, plain_spec, stage, tiny_config, tmp_path):
    arms = {"a": plain_spec(), "b": DIFFERENT[what](plain_spec, stage, tiny_config)}
    with pytest.raises(InputError, match=f"a, b must share their {what}"):
        study.compare(arms, root=tmp_path)
    assert files_under(tmp_path) == []


def test_arms_may_spread_their_steps_over_stages(plain_spec, stage, tmp_path):
    arms = {"one": plain_spec(stage(steps=4)), "two": plain_spec(stage(steps=1), stage(steps=3))}
    assert study.compare(arms, root=tmp_path)["steps"].tolist() == [4, 4]


def test_a_failed_evaluation_leaves_its_record_and_is_tried_again(plain_spec, evaluation, tmp_path, monkeypatch):
    def fail(*arguments, **keywords):
        raise MemoryError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(SCORE, "answer_items", fail)
        with pytest.raises(MemoryError):
            study.run(plain_spec(evaluation=evaluation), study="s", root=tmp_path)
    failed = results.load(tmp_path / "s")
    assert failed["status"].tolist() == ["failed"]
    folder = results.run_folder(tmp_path / "s", failed["run_id"][0])
    assert results.is_done(folder)  # it is trained
    [stored] = results.read_evaluations(folder)
    assert stored.record is not None
    assert "out of memory" in (stored.error or "")
    assert stored.record.metrics == {}
    row = study.run(plain_spec(evaluation=evaluation), study="s", root=tmp_path)
    assert (row["status"], row["run_id"]) == ("done", failed["run_id"][0])


def test_a_retried_run_does_not_train_finished_stages_again(
    plain_spec, evaluation, tmp_path, monkeypatch, training_steps
):
    def fail(*arguments, **keywords):
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(SCORE, "answer_items", fail)
        with pytest.raises(OSError, match="no space"):
            study.run(plain_spec(evaluation=evaluation), root=tmp_path)
    study.run(plain_spec(evaluation=evaluation), root=tmp_path)
    assert len(training_steps) == 6


def test_a_run_is_counted_for_the_cell_whose_notebook_trains_or_reads_it(plain_spec, tmp_path, monkeypatch):
    for name in ("first", "second"):
        cell = tmp_path / name
        cell.mkdir()
        monkeypatch.setattr(writer, "cell_of_kernel", lambda folder=cell: folder)
        row = study.run(plain_spec(), root=tmp_path / "results")
        assert finish_cell(cell, "done", wall_s=1.0).runs == (row["run_id"],)


def test_every_tokenizer_is_loaded_once_for_pinning_training_and_scoring(
    plain_spec, stage, evaluation, teacher_folder, tmp_path, empty_cache, monkeypatch
):
    loaded = []
    load = AutoTokenizer.from_pretrained

    def counting(path, **keywords):
        loaded.append(Path(path).name)
        return load(path, **keywords)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", counting)
    arms = {arm: plain_spec(stage(arm, steps=2), evaluation=evaluation, top_k=4) for arm in ("sft", "kd")}
    study.compare(arms, root=tmp_path)
    assert sorted(loaded) == sorted(["tokenizer", teacher_folder.name])


def test_arms_that_are_pinned_together_share_their_data(plain_spec, stage, tmp_path):
    inputs = Inputs(tmp_path)
    sft, kd = (pin(RunSpec.parse(plain_spec(stage(method))), inputs).stages[0].data for method in ("sft", "kd"))
    assert sft is kd
    assert pin(RunSpec.parse(plain_spec()), Inputs(tmp_path)).stages[0].data is not sft


def test_signals_are_measured_once_for_runs_with_a_cached_teacher(plain_spec, stage, tmp_path, monkeypatch):
    arms = {"sft": plain_spec(), "dense": plain_spec(stage("kd")), "top_k": plain_spec(stage("kd"), top_k=4)}
    runs = study.compare(arms, study="s", root=tmp_path)
    measured = study.measure_signals(runs, study="s", root=tmp_path)
    assert measured["run_id"].tolist() == runs[runs["arm"] == "top_k"]["run_id"].tolist()
    shown = results.load(tmp_path).set_index("run_id")["bytes_per_position"]
    assert shown.notna().sum() == 1
    # 4 k + 2 bytes a position, and what tells the sequences apart
    assert 18 <= shown[measured["run_id"].iloc[0]] < 60
    assert 0 < measured["kept_mass"].iloc[0] < 1
    monkeypatch.setattr("studykit.study.capture.capture", None)  # nothing is measured again
    pd.testing.assert_frame_equal(study.measure_signals(runs, study="s", root=tmp_path), measured)
    assert study.measure_signals(runs[runs["arm"] == "sft"], study="s", root=tmp_path).empty


def test_a_signal_is_that_of_the_runs_own_sequences(plain_spec, stage, tmp_path, empty_cache):
    runs = study.compare({"top_k": plain_spec(stage("kd"), top_k=4)}, study="s", root=tmp_path)
    [measured] = study.measure_signals(runs, study="s", root=tmp_path).to_dict("records")
    assert measured["cache_tokens"] == runs["teacher_tokens"].iloc[0]  # the cache was empty


def test_a_teacher_is_loaded_once_for_capture_check_and_score(
    plain_spec, stage, evaluation, tmp_path, empty_cache, monkeypatch
):
    loaded, load = [], loading.load_teacher

    def counting(model, *how, **options):
        loaded.append(model.name)
        return load(model, *how, **options)

    monkeypatch.setattr(
        import_module("studykit.study.score"), "load_teacher", counting
    )  # `study.score` is the function
    monkeypatch.setattr("studykit.teacher.load_teacher", counting)
    row = study.run(plain_spec(stage("kd"), evaluation=evaluation, top_k=4), root=tmp_path)
    assert row["teacher_tokens"] > 0
    assert "teacher_exact_match" in row
    assert len(loaded) == 1
