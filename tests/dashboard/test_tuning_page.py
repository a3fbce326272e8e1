"""A run whose settings were tuned shows how; trials are on the page of runs where they are wanted, and nowhere else."""

import shutil

import pytest
from make_study import spec_of, write_evaluation
from numpy.random import default_rng

from studykit import results
from studykit.findings._report import read_report
from studykit.results import Purpose, RunWriter, Trial, TuningRecord
from studykit.results.arms import Role, add_role

OVERVIEW, METHODS, RUNS, RUN = (f"views/{name}.py" for name in ("10_overview", "15_methods", "20_runs", "30_run"))


@pytest.fixture
def tuned(copied):
    """Add a tuned run with a trial to the copy of the made-up study; return folder, run and trial."""
    study = copied / "sample"
    trial = spec_of("kd", 100, 1000)
    with RunWriter(study, trial, Purpose(arm="kd", trial_of="0a1b2c3d4e5f")) as run:
        run.finish({"train_s": 2.0}, [{"examples": 100}])
        write_evaluation(run.folder, trial.evaluation[0], 0.9, default_rng(0))
    chosen = {"learning_rate": 0.004, "steps": 200}
    trials = [
        Trial(values=chosen, runs=(trial.run_id,), status="done", scores={"exact_match": 0.9}, cost={"seconds": 2.5}),
        Trial(values=chosen | {"steps": 400}, runs=("0123456789ab",), status="diverged", cost={"seconds": 1.5}),
    ]
    record = TuningRecord(
        tuning="0a1b2c3d4e5f",
        arm="kd",
        space={"steps": [200, 400]},
        seeds=(1000,),
        metric="exact_match",
        evaluation=trial.evaluation[0],
        chosen=chosen,
        at_edge=("steps",),
        widened=("steps",),
        trials=tuple(trials),
        finished="2026-01-01T00:00:00+00:00",
    )
    spec = spec_of("kd", 100, 0)
    with RunWriter(study, spec, Purpose("data_size", "kd", tuning=record)):
        pass
    return copied, spec.run_id, trial.run_id


def test_the_run_shows_its_trials_the_choice_the_edge_and_their_cost(opened, tuned):
    root, run_id, _ = tuned
    app = opened(root, RUN, run=run_id)
    text = " ".join(part.value for part in app.markdown)
    assert "learning\\_rate 0\\.004, steps 200" in text
    assert "the best of 2 trials by exact match" in text
    assert "Best at the edge of the grid: steps" in app.warning[0].value
    assert any("widened once, for all arms alike" in caption.value for caption in app.caption)
    table = next(frame.value for frame in app.dataframe if "widened" in frame.value)
    assert table["chosen"].tolist() == [True, False]
    assert table["status"].tolist() == ["done", "diverged"]
    assert {metric.label: metric.value for metric in app.metric}["seconds of all trials"] == "4"
    assert "learning_rate = 0.004" in " ".join(code.value for code in app.code)  # among the options of the run


def test_a_run_that_was_not_tuned_says_so(opened, results_root):
    line = results.load(results_root / "sample").iloc[0]
    app = opened(results_root, RUN, run=line["run_id"])
    assert any("were given, not tuned" in info.value for info in app.info)


def test_trials_are_listed_where_they_are_wanted_and_open_as_trials(opened, tuned):
    root, _, trial = tuned
    assert trial not in opened(root, RUNS).dataframe[0].value["run_id"].tolist()
    assert trial in opened(root, RUNS, trials="true").dataframe[0].value["run_id"].tolist()
    app = opened(root, RUN, run=trial)
    assert any("A trial of tuning" in info.value for info in app.info)


@pytest.mark.parametrize("page", [OVERVIEW, METHODS])
def test_trials_change_no_finding_and_no_figure(opened, tuned, page):
    root, _, trial = tuned
    with_it = opened(root, page)
    shutil.rmtree(root / "sample" / "runs" / trial)
    without = opened(root, page)
    assert [info.value for info in with_it.info] == [info.value for info in without.info]
    charts = [[chart.proto.spec for chart in app.get("plotly_chart")] for app in (with_it, without)]
    assert charts[0] == charts[1]
    assert charts[0]


def test_a_damaged_file_of_a_tuning_is_found(tuned):
    root, run_id, _ = tuned
    [file] = (root / "sample" / "runs" / run_id / "tuning").glob("*.json")
    assert not [damage for damage in results.verify(root / "sample") if damage.file == file]
    file.write_text(file.read_text().replace("0.9", "1.0"))
    assert [damage.file for damage in results.verify(root / "sample") if damage.file == file] == [file]
    assert results.read_tunings(root / "sample" / "runs" / run_id) == []


def test_a_trial_that_is_given_a_name_elsewhere_is_a_run_like_others(tuned):
    root, _, trial = tuned
    assert trial not in results.load(root / "sample")["run_id"].tolist()
    add_role(root / "sample", trial, Role("mine"))
    assert trial in results.load(root / "sample")["run_id"].tolist()


def test_the_report_counts_trials_apart(tuned):
    costs = read_report(tuned[0]).costs.set_index("study").loc["sample"]
    finished = results.primary(results.load(tuned[0] / "sample"))["status"].eq("done").sum()
    assert (costs["runs"], costs["tuning runs"]) == (finished, 1)
