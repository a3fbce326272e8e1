"""Write a small study of made-up numbers, valid in every file, for the dashboard's tests."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from studykit.results import CellSpec, EvaluationWriter, RunWriter, open_study, write_json
from studykit.results.cells import add_run, finish_cell, write_cell
from studykit.spec import Evaluation, RunSpec

BUDGETS = (100, 300, 1_000, 3_000, 10_000)
SEEDS = (0, 1, 2)
SCORES = {"sft": (0.05, 0.12, 0.25, 0.37, 0.45), "kd": (0.11, 0.17, 0.28, 0.385, 0.449)}
WORDS = ("amber", "brook", "cedar", "delta", "ember", "fable", "grove", "haven", "inlet", "jolly")


def spec_of(method: str, budget: int, seed: int, **student: Any) -> RunSpec:
    """Return the specification of one made-up run."""
    stage = {
        "data": {"source": "lexicon", "budget": {"examples": budget}},
        "method": method,
        "steps": 200,
        "learning_rate": 0.004,
    }
    teacher = None if method == "sft" else {"name": "lexicon/teacher-a"}
    return RunSpec.parse(
        {
            "student": {"name": "lexicon/base-small", **student},
            "teacher": teacher,
            "stages": [stage],
            "evaluation": {"data": {"source": "lexicon", "split": "test"}},
            "seed": seed,
        }
    )


COST = {"train_s": 12.5, "teacher_s": 3.25, "student_tokens": 81920, "peak_mem_gib": 0.71}


def write_run(study: Path, spec: RunSpec, *, score: float = 0.3, cost: dict[str, float] = COST) -> str:
    """Write one finished run and return its id."""
    rng = np.random.default_rng(int(spec.run_id, 16))
    stage = spec.stages[0]
    with RunWriter(study, spec, ablation="data_size") as run:
        lines = [json.dumps(_log(step, stage.method, rng)) for step in range(10, stage.planned_steps + 1, 10)]
        (run.folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        budget = stage.data.budget.examples
        run.finish(cost, [{"examples": budget, "response_tokens": 6 * (budget or 0), "seed": spec.seed}])
        for evaluation in spec.evaluation:
            write_evaluation(run.folder, evaluation, score, rng)
    return spec.run_id


def write_evaluation(run_folder: Path, evaluation: Evaluation, score: float, rng: np.random.Generator) -> None:
    """Write one finished evaluation of a run."""
    with EvaluationWriter(run_folder, evaluation) as measured:
        measured.write_items(_item(word, i < round(score * len(WORDS)), rng) for i, word in enumerate(WORDS))
        measured.finish({"exact_match": score, "token_error_rate": 0.6 - score, "nll": 1.6 - 2 * score})


def write_study(root: Path, name: str = "sample") -> Path:
    """Write a study with 30 finished runs, one failed, one stale, and two batch cells (one failed)."""
    study = open_study(root, name)
    rng = np.random.default_rng(0)
    for place, budget in enumerate(BUDGETS):
        for seed in SEEDS:
            shared = rng.normal(0, 0.01)
            ids = [
                write_run(
                    study, spec_of(method, budget, seed), score=round(mean[place] + shared + rng.normal(0, 0.004), 4)
                )
                for method, mean in SCORES.items()
            ]
            if (budget, seed) == (100, 0):
                _finished_cell(study, ids, budget, seed)
    _fail(study, spec_of("kd", 30_000, 0))
    with RunWriter(study, spec_of("sft", 30_000, 0), ablation="data_size"):
        pass
    cell = _cell(study, "0badcafe0000", {"budget": 30_000})
    finish_cell(cell, "failed", wall_s=3.0, error="MemoryError: made up")
    return study


def _finished_cell(study: Path, runs: list[str], budget: int, seed: int) -> None:
    """Write a finished batch cell with an executed notebook that has each kind of output."""
    cell = _cell(study, "1234abcd0000", {"budget": budget, "seed": seed})
    for run in runs:
        add_run(cell, run)
    write_json(cell / "notebook.ipynb", notebook())
    (cell / "log.txt").write_text("Executing 7 cells\nall done\n")
    finish_cell(cell, "done", wall_s=21.5)


def _cell(study: Path, cell_id: str, parameters: dict[str, Any]) -> Path:
    folder = study / "cells" / cell_id
    spec = CellSpec(cell_id=cell_id, notebook="01_data_size", notebooks="..", parameters=parameters, timeout_s=60)
    write_cell(folder, spec)
    return folder


def notebook() -> dict[str, Any]:
    """Return an executed notebook in the notebook format, with lines as lists."""
    figure = go.Figure(go.Scatter(x=[10, 20, 30], y=[3.0, 2.0, 1.5], name="loss"), {"height": 300})
    table = {
        "text/html": ["<table id='raw'><tr><td>raw</td></tr></table>"],
        "text/plain": ["   budget  kd\n", "0     100  11"],
    }
    plot = {"application/vnd.plotly.v1+json": figure.to_plotly_json(), "text/html": ["<div>plot</div>"]}
    plot["application/vnd.plotly.v1+json"] = json.loads(str(figure.to_json()))
    fault = {
        "output_type": "error",
        "ename": "ValueError",
        "evalue": "made up",
        "traceback": ["\x1b[31mValueError\x1b[0m: made up"],
    }
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {},
        "cells": [
            {"cell_type": "markdown", "source": ["## Question\n", "Does it help?"]},
            _code("budget = 100", []),
            _code("table", [{"output_type": "execute_result", "data": table}]),
            _code("figure", [{"output_type": "display_data", "data": plot}]),
            _code("print('ok')", [{"output_type": "stream", "name": "stdout", "text": ["printed\n", "twice\n"]}]),
            _code("raise ValueError", [fault]),
        ],
    }


def _code(source: str, outputs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"cell_type": "code", "source": [source], "outputs": outputs}


def _fail(study: Path, spec: RunSpec) -> None:
    try:
        with RunWriter(study, spec, ablation="data_size"):
            raise MemoryError("made up for the test")
    except MemoryError:
        return


def _log(step: int, method: str, rng: np.random.Generator) -> dict[str, float]:
    loss = 0.5 + 3.0 * float(np.exp(-step / 60)) + float(rng.normal(0, 0.02))
    line = {
        "stage": 0,
        "step": step,
        "time_s": 1.7e9 + step / 5,
        "loss": loss,
        "ce_loss": loss + 0.05,
        "entropy": loss + 0.1,
    }
    line |= {"mean_token_accuracy": 1 - loss / 4, "num_tokens": 400 * step, "grad_norm": 0.9, "learning_rate": 0.004}
    return line if method == "sft" else line | {"kd_loss": loss - 0.05}


def _item(word: str, right: bool, rng: np.random.Generator) -> dict[str, Any]:
    reference = " ".join(word)
    scores = {
        "exact_match": float(right),
        "token_error_rate": 0.0 if right else 0.4,
        "nll": round(float(rng.uniform(0.2, 2)), 5),
    }
    answer = reference if right else " ".join(reversed(word))
    return {
        "id": f"letters:{word}",
        "prompt": f"Spell {word}.",
        "reference": reference,
        "answer": answer,
        "tokens": 5,
        "scores": scores,
    }
