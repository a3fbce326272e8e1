"""The page of findings: one card for each, with what it rests on, found without an edit."""

import json
import sys

import pandas as pd
import pytest

from dashboard.states import plain
from studykit import results
from studykit.figures import FIGURES
from studykit.findings import FINDINGS, figure_of

PAGE = "views/12_findings.py"


def test_the_card_shows_verdicts_sentence_figure_table_and_evidence(opened, results_root):
    app = opened(results_root, PAGE)
    (study,) = results.studies(results_root)
    finding = FINDINGS.member("data_size")(results.primary(results.load(results_root)), folder=study)
    assert any(plain(FINDINGS.describe("data_size")) in m.value for m in app.markdown)
    assert app.info[0].value == plain(finding.sentence)
    badges = " ".join(m.value for m in app.markdown if "-badge[" in m.value)
    for word in {one.word for one in finding.verdicts.values()}:
        assert word in badges
    pd.testing.assert_frame_equal(app.dataframe[0].value, finding.table, check_dtype=False)
    assert len(app.get("plotly_chart")) == 2
    assert app.expander[0].label == "Score against cost"
    assert "Evidence: 30 runs, 3 seeds" in app.expander[1].label
    assert len(app.dataframe[1].value) == len(results.load(results_root).query("ablation == 'data_size'"))


def test_a_cost_and_a_budget_of_choice_are_drawn_against_the_score(opened, results_root):
    app = opened(results_root, PAGE)
    cost, budget = (next(box for box in app.selectbox if box.label.startswith(label)) for label in ("Cost", "Budget"))
    assert cost.options[0] == "seconds of training"
    cost.set_value("student_tokens")
    largest = max(map(int, budget.options))
    budget.set_value(largest).run()
    figure = json.loads(app.get("plotly_chart")[1].proto.spec)
    assert figure["layout"]["xaxis"]["title"]["text"] == "tokens read by the student"
    done = results.primary(results.load(results_root)).query("status == 'done'")
    means = done[done["budget_examples"] == largest].groupby("method")["student_tokens"].mean()
    drawn = {trace["name"]: trace["x"] for trace in figure["data"] if trace["name"] != "front"}
    assert drawn == {method: [pytest.approx(mean)] for method, mean in means.items() if method in ("sft", "kd")}


def test_a_new_finding_is_a_new_card_without_an_edit(opened, copied, tmp_path, monkeypatch):
    package = tmp_path / "more_findings"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "data_size.py").write_text(
        '"""Is there anything new?"""\nimport pandas as pd\nfrom studykit.findings import Finding\n'
        'def data_size(frame):\n    return Finding(pd.DataFrame({"a": [len(frame)]}), "Something new.")\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(
        FINDINGS.__class__, "folder", property(lambda self: package if "findings" in self.package else 0)
    )
    monkeypatch.setitem(sys.modules, "studykit.findings.data_size", __import__("more_findings.data_size").data_size)
    app = opened(copied, PAGE)
    assert app.info[0].value == "Something new\\."
    assert any("Is there anything new?" in m.value for m in app.markdown)
    assert not app.get("plotly_chart")


def test_runs_that_cannot_be_compared_say_why(opened, copied):
    from make_study import spec_of, write_run

    for method in ("sft", "kd"):
        write_run(copied / "sample", spec_of(method, 100, 0, name="lexicon/base-medium"), score=0.9)
    app = opened(copied, PAGE)
    assert "compares one student" in app.info[0].value.replace("\\", "")


@pytest.mark.parametrize("name", FINDINGS.names())
def test_the_figure_that_a_finding_names_exists(name):
    figure, _ = figure_of(name)
    assert figure is None or figure in FIGURES.names()
