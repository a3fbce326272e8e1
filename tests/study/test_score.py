"""A trained run is scored again and never trained again; answers that are stored are not generated again."""

import json
import os
import shutil
import signal
from importlib import import_module
from pathlib import Path

import pytest
import torch

from studykit import results, study
from studykit.errors import InputError
from studykit.files import seal, unseal, write_json
from studykit.spec import Evaluation, RunSpec
from studykit.training import loop

RUN, SCORE = (import_module(f"studykit.study.{name}") for name in ("run", "score"))  # not the functions
ALL = ["exact_match", "token_error_rate", "nll"]


@pytest.fixture(scope="module")
def specification(data_file, plain_spec, stage):
    """Make a run of two steps; with adapters, if they are given; with these evaluations."""

    def make(*evaluations, method="kd", **changes):
        data = {"source": "jsonl", "options": {"path": str(data_file)}}
        plain = [{"data": data, "items": 5, "max_new_tokens": 3} | evaluation for evaluation in evaluations]
        return plain_spec(stage(method, steps=2), evaluation=plain, **changes)

    return make


@pytest.fixture(scope="module")
def trained_once(specification, tmp_path_factory):
    """Train one run with an evaluation of five items, for all tests of this file; return the results folder."""
    root = tmp_path_factory.mktemp("trained")
    study.run(specification({}), study="s", root=root)
    return root


@pytest.fixture
def root(trained_once, tmp_path):
    """Copy the results folder with the trained run."""
    return Path(shutil.copytree(trained_once, tmp_path / "results"))


@pytest.fixture
def computed(monkeypatch):
    """Record what is computed: "train" for each step, "answer" for each model that answers items."""
    calls = []
    step, answer = loop.train_step, SCORE.answer_items
    monkeypatch.setattr(loop, "train_step", lambda *given: calls.append("train") or step(*given))
    monkeypatch.setattr(SCORE, "answer_items", lambda *given: calls.append("answer") or answer(*given))
    return calls


def run_of(root):
    return next((root / "s" / "runs").iterdir())


@pytest.mark.parametrize("change", [{"items": 6}, {"max_new_tokens": 2}])
def test_another_evaluation_is_scored_with_the_saved_weights(change, root, specification, computed):
    row = study.run(specification(change), study="s", root=root)
    assert "train" not in computed
    assert computed == ["answer", "answer"]  # student and teacher
    frame = results.load(root)
    assert frame["run_id"].nunique() == 1
    assert frame["eval_id"].nunique() == len(frame) == 2
    assert frame.set_index("eval_id").loc[row["eval_id"]]["nll"] == row["nll"]


def test_the_saved_weights_score_what_the_trained_model_did(root, specification, computed, empty_cache):
    first = results.load(root).iloc[0]
    shutil.rmtree(run_of(root) / "evaluations")
    row = study.run(specification({}), study="s", root=root)
    assert computed == ["answer", "answer"]
    assert {name: row[name] for name in ALL} == {name: first[name] for name in ALL}
    assert {name: row[f"teacher_{name}"] for name in ALL} == {name: first[f"teacher_{name}"] for name in ALL}


def test_adapters_are_scored_unmerged_now_and_later(specification, tmp_path, monkeypatch):
    ends, train = [], RUN.train

    def remembering(*given, **more):
        trained = train(*given, **more)
        ends.append({name: value.clone() for name, value in trained.model.state_dict().items() if "lora_" in name})
        return trained

    scored, load = [], SCORE.load_trained
    monkeypatch.setattr(RUN, "train", remembering)
    monkeypatch.setattr(SCORE, "load_trained", lambda *given: scored.append(load(*given)) or scored[-1])
    spec = specification({}, method="sft", lora={"lora_r": 2})
    first = study.run(spec, study="s", root=tmp_path)
    shutil.rmtree(run_of(tmp_path) / "evaluations")
    again = study.run(spec, study="s", root=tmp_path)
    assert {name: again[name] for name in ALL} == {name: first[name] for name in ALL}
    [adapters] = ends
    for student in scored:
        state = student.state_dict()
        assert adapters
        assert all(torch.equal(state[name], value) for name, value in adapters.items())


def test_one_more_scorer_scores_the_answers_that_are_stored(root, specification, computed):
    shutil.rmtree(run_of(root) / "model")  # not even weights are needed
    row = study.run(specification({"scorers": ["nll", "exact_match"]}), study="s", root=root)
    assert computed == []
    first, second = results.load(root).to_dict("records")
    assert row["eval_id"] == second["eval_id"]
    assert {name: second[name] for name in ("nll", "exact_match", "teacher_nll")} == {
        name: first[name] for name in ("nll", "exact_match", "teacher_nll")
    }
    stored = results.find_evaluation(run_of(root), row["eval_id"])
    assert stored is not None
    assert stored.record is not None
    assert stored.record.answers_from == first["eval_id"]


def test_answers_that_were_not_generated_are(specification, tmp_path, computed):
    spec = specification({"scorers": ["nll"]}, {}, method="sft")
    study.run(spec, study="s", root=tmp_path)
    assert computed.count("answer") == 2
    first, second = results.read_evaluations(run_of(tmp_path))
    assert [first.eval_id, second.eval_id] == [evaluation.eval_id for evaluation in _pinned(spec, tmp_path)]
    assert second.record is not None
    assert second.record.answers_from is None


def _pinned(plain, root):
    return study.pin(RunSpec.parse(plain), root).spec.evaluation


def test_damaged_answers_are_not_scored_again(root, specification, computed):
    [file] = run_of(root).glob("evaluations/*/items.jsonl")
    file.write_text(file.read_text(encoding="utf-8").replace('"answer": "', '"answer": "x'), encoding="utf-8")
    study.run(specification({"scorers": ["nll", "exact_match"]}), study="s", root=root)
    assert computed == ["answer"]  # the student; the teacher's answers are in the cache


@pytest.mark.parametrize("given", [{"scorers": ["nll"]}, {"evaluation": {"items": 7}}])
def test_a_finished_run_is_scored_by_its_id(given, root, data_file, computed):
    run_id = run_of(root).name
    if "evaluation" in given:
        given["evaluation"] |= {"data": {"source": "jsonl", "options": {"path": str(data_file)}}, "scorers": ["nll"]}
    row = study.score(run_id, root=root, **given)
    assert (row["run_id"], row["evaluation_scorers"]) == (run_id, '["nll"]')
    assert "train" not in computed
    before = len(computed)
    assert study.score(run_id, root=root, **given) == row  # read from disk
    assert len(computed) == before


def test_a_run_is_scored_whatever_became_of_the_code_that_trained_it(root, computed):
    folder = run_of(root)
    for name in ("spec.json", "record.json"):
        written = json.loads((folder / name).read_text(encoding="utf-8"))
        content = unseal(written)
        content.get("spec", content)["stages"][0]["code"] = {"loss.forward_kl": "0123456789ab"}
        write_json(folder / name, content if content == written else seal(content))
    assert study.score(folder.name, scorers=["nll"], root=root)["nll"] > 0
    assert "train" not in computed


def test_what_cannot_be_scored_is_refused_in_a_line(root, specification, data_file):
    run_id = run_of(root).name
    shutil.rmtree(run_of(root) / "model")
    other = {"data": {"source": "jsonl", "options": {"path": str(data_file)}}, "items": 7}
    for attempt, message in (
        (lambda: study.score(run_id, root=root), "give an evaluation, or other scorers"),
        (lambda: study.score("0" * 12, other, root=root), "no run '000000000000'"),
        (lambda: study.score(run_id, other, root=root), "its weights were not kept"),
        (lambda: study.score(run_id, {"data": other["data"], "itms": 3}, root=root), "itms: unknown key 'itms'"),
        (lambda: study.score(run_id, scorers=["nl"], root=root), "unknown scorer 'nl'; did you mean 'nll'"),
        (lambda: study.run(specification({"items": 7}), study="s", root=root), "its weights were not kept"),
    ):
        with pytest.raises(InputError, match=message) as refused:
            attempt()
        assert "\n" not in str(refused.value)
    assert len(results.load(root)) == 1


def test_runs_without_weights_are_refused_before_another_arm_trains(root, specification, stage, computed):
    shutil.rmtree(run_of(root) / "model")
    arms = {name: specification({"items": 7}, method=name) for name in ("sft", "kd")}
    with pytest.raises(InputError, match="its weights were not kept"):
        study.compare(arms, study="s", root=root)
    assert computed == []


def test_a_run_that_is_not_finished_cannot_be_scored(root):
    (run_of(root) / "record.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        study.score(run_of(root).name, scorers=["nll"], root=root)


def _die_while_scoring(plain, root):
    answer = SCORE.answer_items
    vars(SCORE)["answer_items"] = lambda *given: answer(*given) and os.kill(os.getpid(), signal.SIGKILL)
    study.run(plain, study="s", root=root)


def test_a_run_killed_while_it_is_scored_is_not_trained_again(specification, tmp_path, computed, start, join):
    spec = specification({}, method="sft")
    assert join(start(_die_while_scoring, spec, tmp_path)) == -signal.SIGKILL
    [row] = results.load(tmp_path).to_dict("records")
    assert (row["status"], row["evaluation_items"]) == ("stale", 5)
    assert results.is_done(run_of(tmp_path))
    again = study.run(spec, study="s", root=tmp_path)
    assert again["status"] == "done"
    assert computed == ["answer"]
    assert again["failed_evaluate_s"] > 0
    assert again["processor_hours"] * 3600 >= again["failed_evaluate_s"] - 0.01  # of six digits
    assert {file.name for file in tmp_path.glob("s/runs/*/evaluations/*/*")} == {
        "evaluation.json",
        "items.jsonl",
        "record.json",
    }


def test_a_run_without_an_evaluation_has_one_row_and_can_have_one_later(specification, data_file, tmp_path):
    study.run(specification(method="sft"), study="s", root=tmp_path)
    [row] = results.load(tmp_path).to_dict("records")
    assert row["eval_id"] is None
    evaluation = Evaluation.parse({"data": {"source": "jsonl", "options": {"path": str(data_file)}}, "items": 3})
    study.score(row["run_id"], evaluation, scorers=["nll"], root=tmp_path)
    [row] = results.load(tmp_path).to_dict("records")
    assert row["nll"] > 0


def test_the_card_beside_the_weights_has_the_scores(trained_once):
    card = (run_of(trained_once) / "model" / "README.md").read_text(encoding="utf-8")
    assert f"| nll | {results.load(trained_once)['nll'][0]:.4f} |" in card


def test_the_names_of_arms_are_in_the_table_and_the_first_in_the_record(specification, stage, tmp_path):
    study.compare({"human": specification({}, method="sft")}, study="s", root=tmp_path)
    other = specification({}, method="sft") | {"seed": 0}
    frame = study.compare({"baseline": other}, study="s", root=tmp_path)
    assert frame["arm"].tolist() == ["baseline"]
    for _ in range(2):  # from the record, then from the index
        assert results.load(tmp_path)["arm"].tolist() == ["human, baseline"]
    record = results.read_record(run_of(tmp_path))
    assert record is not None
    assert record.arm == "human"
