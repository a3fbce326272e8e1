"""Every page shows what the study holds, and obeys its address."""

import ast
import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_study import BUDGETS, SEEDS, spec_of, write_evaluation, write_run

from dashboard.states import plain
from studykit import results
from studykit.findings import FINDINGS
from studykit.results import CellSpec
from studykit.results.cells import write_cell
from studykit.results.record import HeldOut

VIEWS = Path(__file__).parents[2] / "dashboard" / "views"
OVERVIEW, RUNS, RUN = (f"views/{name}.py" for name in ("10_overview", "20_runs", "30_run"))


def figure(app, place=0):
    return json.loads(app.get("plotly_chart")[place].proto.spec)


def trace(app, name, place=0):
    return next(t for t in figure(app, place)["data"] if t.get("name") == name)


def values(array):
    """Return a trace's numbers, kept as a list or as plotly's packed bytes."""
    if isinstance(array, list):
        return array
    return np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"]).tolist()


@pytest.mark.parametrize("file", sorted(VIEWS.glob("[0-9]*.py")), ids=lambda file: file.stem)
def test_a_page_holds_no_bare_text_which_streamlit_would_write_on_it(file):
    _, *body = ast.parse(file.read_text(encoding="utf-8")).body
    assert body
    assert not [node.value for node in body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]


def test_the_overview_plots_the_means_of_the_frame(opened, results_root):
    app = opened(results_root)
    frame = results.load(results_root)
    for method in ("sft", "kd"):
        means = frame[frame["method"] == method].groupby("budget_examples")["exact_match"].mean().dropna() * 100
        drawn = trace(app, method)
        assert values(drawn["x"]) == list(BUDGETS)
        assert values(drawn["y"]) == pytest.approx(means.tolist())
        assert values(drawn["customdata"]) == [len(SEEDS)] * len(BUDGETS)
    assert any("n = 3" in caption.value for caption in app.caption)


def test_the_overview_says_the_finding(opened, results_root):
    app = opened(results_root)
    finding = FINDINGS.member("data_size")(results.load(results_root))
    assert app.info[0].value == plain(finding.sentence)
    pd.testing.assert_frame_equal(app.dataframe[0].value, finding.table, check_dtype=False)
    means = [line["score"]["difference"]["mean"] for line in finding.numbers["budgets"]]
    assert values(trace(app, "kd - sft, mean", 1)["y"]) == pytest.approx(means)


def test_the_overview_counts_what_is_not_done(opened, results_root):
    app = opened(results_root)
    badges = [m.value for m in app.markdown if "-badge[" in m.value]
    for text in ("30 done", "1 failed", "1 stale", "0 running", "1 done"):
        assert any(text in badge for badge in badges), text
    coverage, broken = app.dataframe[1].value, app.dataframe[2].value
    assert coverage.loc[100, "kd"] == "3 done"
    assert coverage.loc[30_000, "kd"] == "1 failed, 2 missing"
    assert broken["error"].tolist() == ["MemoryError: made up"]


def test_a_metric_in_the_address_is_the_one_drawn(opened, results_root):
    app = opened(results_root, metric="nll")
    assert figure(app)["layout"]["yaxis"]["title"]["text"] == "NLL (nats per token)"
    finding = FINDINGS.member("data_size")(results.load(results_root), score="nll")
    assert app.info[0].value == plain(finding.sentence)
    pd.testing.assert_frame_equal(app.dataframe[0].value, finding.table, check_dtype=False)


def test_figures_have_alternative_text_with_numbers(opened, results_root):
    app = opened(results_root)
    assert "kd 0.1" in app.get("plotly_chart")[0].proto.alt


def test_several_students_and_teachers_get_pickers(opened, copied):
    study = copied / "sample"
    for method in ("sft", "kd"):
        write_run(study, spec_of(method, 100, 0, name="lexicon/base-medium"), score=0.9)
    app = opened(copied)
    assert app.selectbox(key="student").options == ["lexicon/base-medium", "lexicon/base-small"]
    assert values(trace(app, "kd")["y"]) == pytest.approx([90.0])
    app.selectbox(key="student").set_value("lexicon/base-small").run()
    assert not app.exception
    assert values(trace(app, "kd")["x"]) == list(BUDGETS)


def test_the_address_selects_one_of_several_studies(opened, copied):
    shutil.copytree(copied / "sample", copied / "other")
    app = opened(copied, study="other")
    assert app.title[0].value == "other"
    assert app.selectbox(key="study").options == ["other", "sample"]
    app = opened(copied, study="nowhere")
    assert "not here" in app.warning[0].value


def test_a_run_finds_its_study(opened, copied):
    study = results.open_study(copied, "another")
    ids = [write_run(study, spec_of("kd", 50, 0)), results.load(copied / "sample")["run_id"][0]]
    assert [opened(copied, run=run_id).title[0].value for run_id in ids] == ["another", "sample"]


def test_all_runs_are_in_the_table(opened, results_root):
    app = opened(results_root, RUNS)
    table = app.dataframe[0].value
    assert len(table) == 32
    assert table["status"].value_counts().to_dict() == {"done": 30, "failed": 1, "stale": 1}


def test_models_stand_before_the_scores_where_they_tell_runs_apart(opened, copied):
    def place(column):
        return [*opened(copied, RUNS, differs="false").dataframe[0].proto.column_order].index(column)

    assert place("student") > place("exact_match") > place("method")
    for seed in SEEDS:
        write_run(copied / "sample", spec_of("sft", 100, seed, name="lexicon/base-large"))
    assert place("student") < place("exact_match") < place("ablation")


def test_filters_and_search_of_the_address_narrow_the_table(opened, results_root):
    app = opened(results_root, RUNS, method="kd", budget_examples=300)
    table = app.dataframe[0].value
    assert set(table["method"]) == {"kd"}
    assert set(table["budget_examples"]) == {300}
    assert len(table) == len(SEEDS)
    app = opened(results_root, RUNS, search="FAILED kd")
    assert app.dataframe[0].value["status"].tolist() == ["failed"]


def test_a_search_without_a_match_leaves_an_empty_table(opened, results_root):
    assert opened(results_root, RUNS, search="no such thing").dataframe[0].value.empty


def test_the_run_selected_in_the_address_is_linked(opened, results_root):
    run_id = results.load(results_root)["run_id"][5]
    app = opened(results_root, RUNS, run=run_id)
    link = app.get("page_link")[0].proto
    assert run_id in link.label
    assert f"run={run_id}" in link.query_string


def test_a_run_shows_answers_that_were_cut_and_what_its_items_cover(opened, copied):
    spec = spec_of("sft", 50, 7)
    shared = {"prompt": "ask", "reference": "yes", "answer": "yes", "tokens": 2}
    covered = {"examples": 4, "pool_examples": 9, "by_source": {"quiz": 4}, "references": 2, "pool_references": 3}
    with results.RunWriter(copied / "sample", spec) as run:
        run.finish({}, [])
        with results.EvaluationWriter(run.folder, spec.evaluation[0]) as measured:
            scored = [shared | {"id": str(cut), "cut": cut, "scores": {"label": float(cut)}} for cut in (True, False)]
            measured.write_items(scored)
            metrics = {"label": 0.5, "answers_cut": 2}
            measured.finish(metrics, held_out=HeldOut.model_validate(covered | {"examples_sha256": "a"}))
    app = opened(copied, RUN, run=spec.run_id)
    shown = {metric.label: metric.value for metric in app.metric}
    assert (shown["answers cut"], shown["right labels \\(points\\)"]) == ("2", "50")
    assert "Scored on 4 of 9 held-out items, with 2 of 3 different answers." in [c.value for c in app.caption]
    assert "✂ cut at the limit" in {cell for table in app.dataframe for cell in table.value.get("cut", [])}


def test_the_primary_metric_of_the_notebooks_is_shown_first(opened, copied):
    cell = CellSpec(
        cell_id="2222abcd0000",
        notebook="01_data_size",
        notebooks="..",
        parameters={"primary_metric": "token_error_rate"},
        timeout_s=60,
    )
    for folder in (copied / "sample" / "cells").glob("*"):
        shutil.rmtree(folder)
    write_cell(copied / "sample" / "cells" / cell.cell_id, cell)
    app = opened(copied)
    assert app.selectbox(key="metric").value == "token_error_rate"
    assert "% at 100 examples" in app.info[0].value.replace("\\", "")
    assert opened(copied, "views/15_methods.py").selectbox(key="measure").value == "token_error_rate"


def test_a_run_shows_scores_cost_command_and_environment(opened, results_root):
    line = results.load(results_root).iloc[0]
    app = opened(results_root, RUN, run=line["run_id"])
    shown = {metric.label.replace("\\", ""): metric.value for metric in app.metric}
    assert shown["exact match (points)"] == f"{100 * line['exact_match']:.4g}"
    assert shown["train_s"] == "12.5"
    command = f"studykit run {results_root}/sample/runs/{line['run_id']}/spec.json --study sample"
    command += f" --results {results_root}"
    assert command in [code.value for code in app.code]
    spec, environment = (json.loads(part.value) for part in app.json)
    assert spec["stages"][0]["method"] == "kd"
    assert "python" in environment["environment"]


def test_a_run_draws_its_log(opened, results_root):
    line = results.load(results_root).iloc[0]
    curve, _ = results.read_metrics(results_root / "sample" / "runs" / line["run_id"])
    app = opened(results_root, RUN, run=line["run_id"], curve="kd_loss", x="tokens", log="true")
    drawn = figure(app)
    assert values(drawn["data"][0]["x"]) == curve["num_tokens"].tolist()
    assert values(drawn["data"][0]["y"]) == pytest.approx(curve["kd_loss"].tolist())
    assert drawn["layout"]["yaxis"]["type"] == "log"


def test_a_run_lists_its_evaluations_and_shows_the_chosen_one(opened, copied):
    line = results.load(copied / "sample").iloc[0]
    folder = copied / "sample" / "runs" / line["run_id"]
    other = spec_of("kd", 100, 0).evaluation[0].model_copy(update={"items": 7})
    write_evaluation(folder, other, 0.8125, np.random.default_rng(0))
    app = opened(copied, RUN, run=line["run_id"])
    listed = next(table.value for table in app.dataframe if "eval_id" in table.value)
    assert listed["exact_match"].tolist() == [line["exact_match"], 0.8125]
    assert f"studykit score {line['run_id']} --scorers" in " ".join(code.value for code in app.code)
    shown = {metric.value for metric in app.metric}
    app.selectbox(key=f"evaluation-{line['run_id']}").set_value(other.eval_id).run()
    assert {metric.value for metric in app.metric} - shown >= {"81.25"}
    assert len(opened(copied, RUNS).dataframe[0].value) == results.load(copied / "sample")["run_id"].nunique()


def test_the_overview_shows_the_evaluation_that_is_chosen(opened, copied):
    frame = results.load(copied / "sample")
    assert not opened(copied).get("selectbox") or "evaluation" not in [box.key for box in opened(copied).selectbox]
    runs = frame[(frame["status"] == "done") & (frame["budget_examples"] == 100) & (frame["method"] == "kd")]
    other = spec_of("kd", 100, 0).evaluation[0].model_copy(update={"items": 7})
    for run_id in runs["run_id"]:
        write_evaluation(copied / "sample" / "runs" / run_id, other, 0.75, np.random.default_rng(0))
    app = opened(copied)
    assert values(trace(app, "kd")["y"])[0] != pytest.approx(75.0)
    assert len(app.selectbox(key="evaluation").options) == 2
    app.selectbox(key="evaluation").set_value(other.eval_id).run()
    assert values(trace(app, "kd")["y"]) == pytest.approx([75.0])
    assert not app.exception


def test_items_are_filtered_by_right_and_wrong(opened, results_root):
    line = results.load(results_root).query("budget_examples == 10_000").iloc[0]
    items, _ = results.read_items(results_root / "sample" / "runs" / line["run_id"])
    right = [item["id"] for item in items if item["scores"]["exact_match"] == 1]
    app = opened(results_root, RUN, run=line["run_id"])
    assert len(app.dataframe[0].value) == len(items)
    app = opened(results_root, RUN, run=line["run_id"], answers="right")
    assert app.dataframe[0].value["id"].tolist() == right


def test_the_executed_notebook_is_shown_natively(opened, results_root):
    cell = next(cell for cell in results.cells(results_root / "sample") if cell.status == "done")
    app = opened(results_root, RUN, run=cell.runs[0])
    assert any("## Question" in markdown.value for markdown in app.markdown)
    code = [code.value for code in app.code]
    assert {"budget = 100", "   budget  kd\n0     100  11", "printed\ntwice", "ValueError: made up"} <= set(code)
    assert values(figure(app, 1)["data"][0]["y"]) == [3.0, 2.0, 1.5]
    assert app.error[0].value == "ValueError in this cell"
    assert not any("<table" in markdown.value or markdown.allow_html for markdown in app.markdown)


def test_a_failed_run_says_why_and_a_stale_one_what_it_was(opened, results_root):
    frame = results.load(results_root)
    failed, stale = (frame[frame["status"] == status].iloc[0]["run_id"] for status in ("failed", "stale"))
    assert "MemoryError: made up for the test" in [code.value for code in opened(results_root, RUN, run=failed).code]
    app = opened(results_root, RUN, run=stale)
    assert app.title[0].value == "sft, 30,000 examples, seed 0"
    assert any("no training log" in info.value for info in app.info)


def test_new_results_appear_and_filters_stay(opened, copied):
    app = opened(copied, RUNS, method="kd")
    write_run(copied / "sample", spec_of("kd", 100, 7))
    app.run()
    assert len(app.dataframe[0].value) == 17
    assert app.multiselect(key="method").value == ["kd"]
