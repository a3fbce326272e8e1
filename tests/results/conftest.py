"""A study of made-up runs, written by the package's own writer."""

import pytest

from studykit.results import EvaluationWriter, RunWriter, open_study
from studykit.spec import RunSpec


def spec_of(method="sft", budget=100, seed=0, **stage):
    """Return a specification that nothing is trained from."""
    data = {"source": "lexicon", "budget": {"examples": budget, "seed": seed}}
    plain = {"data": data, "method": method, "steps": 10, "learning_rate": 0.01} | stage
    teacher = {"name": "lexicon/teacher-a"} if method != "sft" else None
    evaluation = {"data": {"source": "lexicon", "split": "test"}}
    return RunSpec.parse(
        {
            "student": {"name": "lexicon/base-small"},
            "teacher": teacher,
            "stages": [plain],
            "evaluation": evaluation,
            "seed": seed,
        }
    )


def write_run(study, spec, score=0.25, arm=""):
    """Write one finished run with its evaluations and return its folder."""
    with RunWriter(study, spec, ablation="data_size", arm=arm) as run:
        (run.folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 2.0}\n')
        examples = spec.stages[0].data.budget.examples
        manifests = [{"examples": examples, "response_tokens": 7 * (examples or 0)}]
        if not run.is_done:
            run.finish({"train_s": 2.5, "student_tokens": 800}, manifests)
        for evaluation in spec.evaluation:
            write_evaluation(run.folder, evaluation, score)
    return run.folder


def write_evaluation(folder, evaluation, score=0.25):
    """Write one finished evaluation of a run."""
    with EvaluationWriter(folder, evaluation) as measured:
        measured.write_items([{"id": "a", "answer": "K AE T", "scores": {"exact_match": 1.0}}])
        measured.finish({"exact_match": score, "nll": 1.5}, cost={"evaluate_s": 0.5})


@pytest.fixture
def evaluate_run():
    """Write one finished evaluation of a run."""
    return write_evaluation


@pytest.fixture
def make_spec():
    """Make a specification that nothing is trained from."""
    return spec_of


@pytest.fixture
def make_run():
    """Write one finished run."""
    return write_run


@pytest.fixture
def study(tmp_path):
    """Write a study of three finished runs: two arms of one seed, and one of another."""
    folder = open_study(tmp_path / "results", "sample")
    write_run(folder, spec_of("sft", 100, 0), 0.25)
    write_run(folder, spec_of("kd", 100, 0), 0.375)
    write_run(folder, spec_of("sft", 100, 1), 0.5)
    return folder
