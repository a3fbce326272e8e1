"""Arms tuned equally: the same number of trials, validation items alone, other seeds, and trials that are shared."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from studykit import results, study
from studykit.errors import Failure, InputError
from studykit.files import read_lines
from studykit.files.leases import take
from studykit.results import Purpose
from studykit.results.arms import BY_HAND, Role, read_roles
from studykit.study import trials as trials_module
from studykit.training import loop

SPACE = {"learning_rate": [0.003, 0.01, 0.03]}


@pytest.fixture(scope="module")
def splits(tmp_path_factory, examples):
    """Write the shared conversations as three files that have nothing in common."""
    folder = tmp_path_factory.mktemp("splits")
    for split, part in {"train": examples[:20], "validation": examples[20:27], "test": examples[27:34]}.items():
        lines = [{"id": e.id, "source": e.source, "messages": list(e.messages)} for e in part]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return str(folder / "{split}.jsonl")


@pytest.fixture(scope="module")
def make_arms(splits, tiny_config, teacher_folder):
    """Make two arms of a few steps with a tiny random student."""

    def make(names=("sft", "kd"), **changes):
        values = {
            "student": "lexicon/tokenizer",
            "student_options": {"random_config": tiny_config},
            "teacher": str(teacher_folder),
            "teacher_top_k": 4,
            "source": "jsonl",
            "source_options": {"path": splits},
            "budget_examples": 12,
            "learning_rate": 0.01,
            "steps": 3,
            "batch_size": 4,
            "max_length": 64,
            "max_new_tokens": 4,
            "scorers": ["nll"],
        }
        return study.arms(names, **values | changes)

    return make


def counted(monkeypatch):
    """Return a list that gets method, learning rate and seed of every training that starts."""
    found = []
    train = trials_module.run_resolved

    def counting(run, *arguments, **options):
        if not results.is_done(arguments[1] / arguments[0] / "runs" / run.run_id):
            found.append((run.spec.stages[0].method, run.spec.stages[0].learning_rate, run.spec.seed))
        return train(run, *arguments, **options)

    monkeypatch.setattr(trials_module, "run_resolved", counting)
    return found


trained = pytest.fixture(counted)


def tuned(arms, root, space=SPACE, **options):
    return study.tune(arms, space, study="s", root=root, validation={"items": None}, **options)


@pytest.fixture(scope="module")
def first_tuning(make_arms, tmp_path_factory):
    """Tune once for all tests that need tuned arms; return the results, the arms, and the trainings that it took."""
    root = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as monkeypatch:
        trainings = counted(monkeypatch)
        return root, tuned(make_arms(), root), trainings


@pytest.fixture
def tuned_root(first_tuning, tmp_path):
    """Copy the results of the first tuning."""
    return Path(shutil.copytree(first_tuning[0], tmp_path / "results"))


def test_an_empty_space_leaves_the_arms_as_they_are(make_arms, tmp_path):
    arms = make_arms()
    untouched = study.tune(arms, {}, study="s", root=tmp_path)
    assert dict(untouched) == arms
    assert (untouched.records, untouched.table.empty, list(tmp_path.iterdir())) == ({}, True, [])


def test_arms_get_as_many_trials_and_run_with_the_values_of_the_best(first_tuning, tuned_root):
    _, chosen, trainings = first_tuning
    rows = study.compare(chosen, study="s", root=tuned_root)
    table = chosen.table
    assert table.groupby("arm").size().nunique() == 1
    assert len(set(trainings)) == len(trainings) == len(table)
    for arm, part in table.groupby("arm"):
        best = part.loc[part["nll"].idxmin()]
        assert best["chosen"]
        assert part["chosen"].sum() == 1
        row = rows.set_index("arm").loc[arm]
        assert row["learning_rate"] == row["tuned.learning_rate"] == best["learning_rate"]
        assert (row["trials"], row["tuning_s"] > 0) == (len(part), True)
        assert row["tuning_s"] == pytest.approx(chosen.records[arm].cost["seconds"])
    assert "tuning" not in rows or rows["tuning"].nunique() == 1


def test_trials_see_other_seeds_and_no_test_item(make_arms, tmp_path, splits):
    arms = make_arms(seed=3)
    chosen = tuned(arms, tmp_path, {"learning_rate": [0.01]}, seeds=[1000, 1001])
    test_ids, validation_ids = (
        {line["id"] for line in read_lines(Path(splits.format(split=split)))[0]} for split in ("test", "validation")
    )
    seen = set()
    for record in chosen.records.values():
        for trial in record.trials:
            assert len(trial.runs) == 2
            for run_id in trial.runs:
                folder = tmp_path / "s" / "runs" / run_id
                record = results.read_record(folder)
                assert record is not None
                seen.add((record.spec.seed, record.spec.stages[0].data.budget.seed))
                [evaluation] = results.read_evaluations(folder)
                assert {item["id"] for item in results.read_items(folder)[0]} == validation_ids
                assert evaluation.evaluation is not None
                assert evaluation.evaluation.data.split == "validation"
                assert not (folder / "model").exists()
    assert seen == {(1000, 1000), (1001, 1001)}
    assert not test_ids & validation_ids


def test_notebooks_of_other_seeds_share_the_trials(make_arms, first_tuning, tuned_root, trained):
    first = first_tuning[1]
    second = tuned(make_arms(seed=1), tuned_root)
    assert not trained
    assert [r.trials for r in first.records.values()] == [r.trials for r in second.records.values()]
    assert first.records["kd"].tuning == second.records["kd"].tuning
    assert [arm["seed"] for arm in second.values()] == [1, 1]


def test_the_best_at_the_edge_widens_the_grid_once_for_all_and_is_said(make_arms, tmp_path, caplog):
    arms = make_arms({"one": "sft", "two": "sft"}, method_options={})
    chosen = tuned(arms, tmp_path, {"learning_rate": [1e-4, 2e-4]})  # more is better after three steps
    for record in chosen.records.values():
        assert sorted(trial.values["learning_rate"] for trial in record.trials) == [1e-4, 2e-4, 4e-4]
        assert [trial.widened for trial in record.trials] == [False, False, True]
        assert (record.widened, record.at_edge) == (("learning_rate",), ("learning_rate",))
        assert record.space == {"learning_rate": [1e-4, 2e-4]}
    assert "best at the largest learning_rate" in caplog.text
    assert "widened once, for all arms alike (2 trials, now 3)" in caplog.text
    rows = study.compare(chosen, study="s", root=tmp_path, keep="none")
    assert rows["tuned_at_edge"].tolist() == ["learning_rate"] * 2


def test_steps_may_differ_between_arms_where_they_were_tuned(make_arms, tmp_path):
    chosen = tuned(make_arms(), tmp_path, {"steps": [3]})
    chosen["kd"]["stages"][0]["steps"] = 2
    chosen["sft"]["stages"][0]["steps"] = 4
    assert study.compare(chosen, study="s", root=tmp_path, keep="none")["steps"].tolist() == [4, 2]
    with pytest.raises(InputError, match="must share their number of optimizer steps"):
        study.compare(dict(chosen), study="s", root=tmp_path, keep="none")


def test_a_trial_that_diverged_is_the_worst_is_kept_and_not_trained_again(make_arms, tmp_path, monkeypatch, trained):
    check = loop.check_finite

    def diverging(values, step):
        if values["learning_rate"] > 0.015:
            raise FloatingPointError("loss is not finite")
        check(values, step)

    monkeypatch.setattr(loop, "check_finite", diverging)
    chosen = tuned(make_arms(["sft"]), tmp_path, {"learning_rate": [0.03, 0.01, 0.001]})
    [record] = chosen.records.values()
    assert {trial.values["learning_rate"]: trial.status for trial in record.trials} == {
        0.03: "diverged",
        0.01: "done",
        0.001: "done",
    }
    assert record.chosen["learning_rate"] < 0.03
    count = len(trained)
    tuned(make_arms(["sft"]), tmp_path, {"learning_rate": [0.03, 0.01, 0.001]})
    assert len(trained) == count
    with pytest.raises(Failure, match="all 1 trials of arm sft diverged"):
        tuned(make_arms(["sft"]), tmp_path, {"learning_rate": [0.03]})


def test_trials_are_in_no_table_but_their_own_and_the_choice_stands_beside_its_run(first_tuning, tuned_root):
    chosen = first_tuning[1]
    rows = study.compare(chosen, study="s", ablation="why", root=tuned_root, keep="none")
    frame, every = results.load(tuned_root / "s"), results.load(tuned_root / "s", trials=True)
    assert set(frame["run_id"]) == set(rows["run_id"])
    assert every["trial"].eq(True).sum() == len(chosen.table) == len(every) - len(frame)
    assert set(every[every["trial"].eq(True)]["ablation"]) == {"tuning"}
    for arm, run_id in rows[["arm", "run_id"]].itertuples(index=False):
        assert results.read_tunings(tuned_root / "s" / "runs" / run_id) == [chosen.records[arm]]
    same = ["run_id", "tuning", "trials", "tuned_at_edge", "tuning_s", "tuned.learning_rate"]
    assert frame.set_index("arm").loc[rows["arm"], same].values.tolist() == rows[same].values.tolist()
    assert not list(results.verify(tuned_root / "s"))


def test_a_run_may_be_chosen_in_one_comparison_and_given_by_hand_in_another(first_tuning, tuned_root):
    chosen = first_tuning[1]
    rows = study.compare(chosen, study="s", root=tuned_root, keep="none")
    study.compare(dict(chosen), study="s", root=tuned_root, keep="none")
    frame = results.load(tuned_root / "s")
    assert frame["tuning"].tolist() == [f"{chosen.records['kd'].tuning}, {BY_HAND}"] * 2
    assert results.in_tuning(frame, rows)["tuning"].tolist() == [chosen.records["kd"].tuning] * 2
    by_hand = results.in_tuning(frame, rows.drop(columns="tuning"))
    assert len(by_hand) == 2
    assert not results.tuning_columns(by_hand)


def test_a_trial_that_is_reported_by_another_comparison_is_in_the_table(first_tuning, tuned_root):
    chosen = first_tuning[1]
    run_id = chosen.records["sft"].trials[0].runs[0]
    study_folder = tuned_root / "s"
    assert read_roles(study_folder)[run_id] == (Role("sft", chosen.records["sft"].tuning, trial=True),)
    record = results.read_record(study_folder / "runs" / run_id)
    assert record is not None
    with results.RunWriter(study_folder, record.spec, Purpose(arm="mine")):
        pass
    assert results.load(study_folder)["arm"].tolist() == ["sft, mine"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"seeds": [0]}, "seed 0 is the seed of arm sft"),
        ({"seeds": []}, "at least one seed"),
        ({"seeds": [1, 1]}, "seed 1 is listed twice"),
        ({"seeds": [-1]}, "a whole number from 0"),
        ({"metric": "exact_mach"}, "unknown scorer of the evaluation 'exact_mach'"),
        ({"validation": {"splt": "a"}}, "unknown name 'splt'; did you mean 'split'"),
        ({"validation": {"items": 0}}, "a split and a number of items"),
        ({"validation": {"split": "test", "items": None}}, "7 of 7 held-out items are among the validation items"),
        ({"validation": {"split": "tst"}}, "tst"),
        ({"space": {"learning_rate": [-1.0]}}, "learning_rate"),
        ({"space": {"kd": {"kd_ratio": [2.0]}, "sft": {"learning_rate": [0.1]}}}, "kd_ratio must be"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_trains(make_arms, tmp_path, trained, options, complaint):
    space = options.pop("space", SPACE) if "space" in options else SPACE
    options = {"validation": {"items": None}} | options
    with pytest.raises(InputError, match=complaint) as refused:
        study.tune(make_arms(), space, study="s", root=tmp_path, **options)
    assert "\n" not in str(refused.value)
    assert not trained
    assert not (tmp_path / "s" / "runs").exists()


def tune_and_log(arms, root, log, others):
    """Tune, and note every run that this process opens; first wait for the other process."""
    run_resolved = trials_module.run_resolved

    def noting(run, *arguments, **options):
        row = run_resolved(run, *arguments, **options)
        with log.open("a") as stream:
            stream.write(f"{run.run_id}\n")
        return row

    trials_module.run_resolved = noting
    log.touch()
    while not all(other.exists() for other in others):
        time.sleep(0.01)
    tuned(arms, root, {"learning_rate": [0.003, 0.01]})


def test_two_processes_train_each_trial_once_and_both_find_all(make_arms, tmp_path, start, join):
    root, logs = tmp_path / "results", [tmp_path / "0", tmp_path / "1"]
    workers = [start(tune_and_log, make_arms(["sft"], seed=seed), root, logs[seed], logs) for seed in (0, 1)]
    assert [join(worker) for worker in workers] == [0, 0]
    runs = root / "s" / "runs"
    run_ids = {folder.name for folder in runs.iterdir()}
    assert all(set(log.read_text().split()) == run_ids for log in logs)
    for run_id in run_ids:  # trained twice, a run has more than one line for a step, or a later attempt
        steps = results.read_metrics(runs / run_id)[0]["step"]
        assert steps.is_unique
        record = results.read_record(runs / run_id)
        assert record is not None
        assert record.cost["attempts"] == 1


def tune_until_killed(arms, root):
    """Tune, and die in the middle of the second trial."""
    compute_loss = loop.compute_loss

    def deadly(training, batch, denominator):
        if training.spec.learning_rate == SPACE["learning_rate"][1] and training.step == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return compute_loss(training, batch, denominator)

    loop.compute_loss = deadly
    tuned(arms, root)


def test_a_tuning_that_was_killed_goes_on_and_chooses_the_same(make_arms, tmp_path, start, join, trained):
    arms = make_arms(["sft"])
    assert join(start(tune_until_killed, arms, tmp_path / "killed")) == -signal.SIGKILL
    resumed = tuned(arms, tmp_path / "killed")
    assert SPACE["learning_rate"][0] not in {rate for _, rate, _ in trained}  # that trial was done
    whole = tuned(arms, tmp_path / "whole")
    assert resumed.table.equals(whole.table)
    assert dict(resumed) == dict(whole)


def test_a_trial_that_another_process_works_on_is_left_for_the_end(make_arms, first_tuning, tmp_path, monkeypatch):
    arms = make_arms(["sft"])
    order, waited = [], []
    run_resolved = trials_module.run_resolved

    def noting(run, *arguments, **options):
        row = run_resolved(run, *arguments, **options)
        order.append(run.spec.stages[0].learning_rate)
        return row

    monkeypatch.setattr(trials_module, "run_resolved", noting)
    [first] = [t.runs[0] for t in first_tuning[1].records["sft"].trials if t.values["learning_rate"] == 0.003]
    held = take(tmp_path / "s" / "runs" / first)
    assert held is not None

    def released(seconds):
        waited.append(len(order))
        held.release()

    monkeypatch.setattr(trials_module.time, "sleep", released)
    tuned(arms, tmp_path)
    assert order[:3] == [0.01, 0.03, 0.003]
    assert waited == [2]


def test_a_trial_that_was_killed_before_it_was_scored_is_trained_again(make_arms, first_tuning, tuned_root, trained):
    chosen = first_tuning[1]
    first = tuned_root / "s" / "runs" / chosen.records["sft"].trials[0].runs[0]
    shutil.rmtree(first / "evaluations")
    again = tuned(make_arms(), tuned_root)
    assert len(trained) == 1
    assert [trial.scores for trial in again.records["sft"].trials] == [t.scores for t in chosen.records["sft"].trials]
