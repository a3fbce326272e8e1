"""A run has one holder: others go on to other work, and one that has lost its lease writes nothing."""

from types import SimpleNamespace

import pytest
from traitlets.config import Config

from studykit import results
from studykit.files.leases import Held, Lease, LeaseLost, take
from studykit.results import EvaluationWriter, RunWriter, holding
from studykit.results.status import Activity, StatusFile


@pytest.fixture
def spec(make_spec):
    """Return a specification that nothing has been trained of."""
    return make_spec("kd", 300)


def hold(folder) -> Lease:
    """Take a folder that is free."""
    lease = take(folder)
    assert lease is not None
    return lease


def lose(run):
    """Let another process take the run over, as after a long stop."""
    [file] = run.folder.glob("lease-*")
    file.rename(file.with_name("lease-9"))


def test_a_process_that_need_not_wait_goes_on(study, spec):
    with (
        hold(study / "runs" / spec.run_id),
        pytest.raises(Held, match=f"waiting for run {spec.run_id}, held by process "),
        holding(study / "runs" / spec.run_id, wait=False),
    ):
        raise AssertionError("it is held")


def test_the_notebook_of_a_cell_does_not_wait_and_leaves_the_runs_name(study, spec, tmp_path, monkeypatch):
    (tmp_path / "cell").mkdir()
    shell = SimpleNamespace(config=Config({"StudyCell": {"folder": str(tmp_path / "cell")}}))
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: shell)
    with hold(study / "runs" / spec.run_id), pytest.raises(Held), RunWriter(study, spec):
        raise AssertionError("it is held")
    assert (tmp_path / "cell" / "runs.jsonl").read_text().count(spec.run_id) == 1


def test_a_run_that_is_lost_gets_no_record_of_this_process(study, spec):
    def finish_late():
        with RunWriter(study, spec) as run:
            lose(run)
            run.finish({}, [])

    with pytest.raises(LeaseLost, match="was taken over"):
        finish_late()
    assert results.read_record(study / "runs" / spec.run_id) is None


def test_each_step_of_the_work_checks_the_lease(study, spec):
    evaluation = EvaluationWriter(study / "runs" / spec.run_id, spec.evaluation[0])

    def score_late():
        with RunWriter(study, spec) as run, evaluation:
            watch = StatusFile(run.folder, check=run.lease.check)
            watch(Activity("scoring", "items"), 1, 10)
            lose(run)
            run.lease._renewed -= 40.0  # seconds ago
            watch(Activity("scoring", "items"), 2, 10)

    with pytest.raises(LeaseLost):
        score_late()
    assert results.read_record(study / "runs" / spec.run_id) is None
    assert not (evaluation.folder / "record.json").exists()
