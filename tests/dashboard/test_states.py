"""What the dashboard shows where there is nothing, nothing yet, or something broken."""

import itertools
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from make_study import COST, spec_of, write_run

from dashboard.states import plain
from studykit import results
from studykit.results.status import Activity, StatusFile

ROOT = Path(__file__).parents[2]
OVERVIEW, RUNS, RUN = (f"views/{name}.py" for name in ("10_overview", "20_runs", "30_run"))


@pytest.mark.parametrize("asked", ["ffffffffffff", "../../etc", "**bold**"])
def test_an_unknown_run_is_named_with_a_way_back(opened, results_root, asked):
    app = opened(results_root, RUN, run=asked)
    assert app.title[0].value == "No such run"
    assert plain(asked) in app.error[0].value
    assert app.get("page_link")


@pytest.mark.parametrize("page", [OVERVIEW, RUNS, RUN])
@pytest.mark.parametrize("made", [False, True])
def test_without_results_the_command_that_makes_some_is_shown(opened, tmp_path, monkeypatch, page, made):
    root = tmp_path / "results"
    if made:
        root.mkdir()
    app = opened(root, page)
    assert app.title[0].value == "No results yet"
    assert "make quickstart" in [code.value for code in app.code]


def test_a_folder_that_is_no_study_is_refused_in_words(opened, tmp_path):
    (tmp_path / "photos").mkdir()
    app = opened(tmp_path)
    assert app.title[0].value == "This folder holds no study"
    assert "no studykit study" in app.error[0].value


@pytest.mark.parametrize("page", [OVERVIEW, RUNS, RUN])
def test_a_study_without_runs_says_so(opened, tmp_path, page):
    results.open_study(tmp_path, "fresh")
    app = opened(tmp_path, page)
    assert any("No run" in info.value or "no runs yet" in info.value for info in app.info)


def test_a_study_without_finished_runs_says_so(opened, tmp_path):
    with results.RunWriter(results.open_study(tmp_path, "fresh"), spec_of("kd", 100, 0)):
        app = opened(tmp_path)
        assert "No run of this study has finished yet" in app.info[0].value
        assert any("1 running" in markdown.value for markdown in app.markdown)


@pytest.mark.parametrize("page", sorted(f"views/{file.name}" for file in (ROOT / "dashboard" / "views").glob("*.py")))
def test_every_page_opens_where_nothing_cost_anything(opened, tmp_path, page):
    study, free = results.open_study(tmp_path, "free"), dict.fromkeys(COST, 0.0)
    every = itertools.product(("sft", "kd"), range(3))
    run, *_ = [write_run(study, spec_of(method, 100, seed), score=0.1 * seed, cost=free) for method, seed in every]
    assert not opened(tmp_path, page, run=run).exception


@pytest.mark.parametrize("page", [RUNS, RUN])
def test_a_running_run_shows_what_it_is_doing(opened, tmp_path, page):
    spec = spec_of("kd", 100, 0)
    with results.RunWriter(results.open_study(tmp_path, "fresh"), spec) as run:
        StatusFile(run.folder)(Activity("training", "steps", "kd"), 50, 200)
        bar = opened(tmp_path, page, run=spec.run_id).get("progress")[0].proto
        assert (bar.value, bar.text) == (25, plain("kd, 100 examples, seed 0: training (kd): 50 of 200 steps"))
    assert not opened(tmp_path, page, run=spec.run_id).get("progress")  # killed, not running


@pytest.mark.parametrize("page", [OVERVIEW, RUNS])
def test_a_damaged_record_is_counted_and_named(opened, copied, page):
    study = copied / "sample"
    run_id = results.load(study)["run_id"][0]
    (study / "index.jsonl").unlink()
    (study / "runs" / run_id / "record.json").write_text('{"schema": 1, "st')
    app = opened(copied, page)
    assert any("1 damaged record" in expander.label for expander in app.expander)
    assert any(run_id in text.value for text in app.text)
    app = opened(copied, RUN, run=run_id)
    assert "damaged" in app.error[0].value


def test_damaged_lines_are_counted_and_changed_files_named(opened, copied):
    run_id = results.load(copied)["run_id"][0]
    folder = copied / "sample" / "runs" / run_id
    files = [folder / "metrics.jsonl", *folder.glob("evaluations/*/items.jsonl")]
    for file in files:
        file.write_text("{torn\n" + file.read_text())
    app = opened(copied, RUN, run=run_id)
    assert [warning.value.split(" of")[0] for warning in app.warning] == ["A file"] * 2 + ["1 damaged line"] * 2
    for file in files:
        assert any(text.value.startswith(f"{file}: is not what was written") for text in app.text)


def test_no_page_imports_torch_or_reads_json_itself(results_root):
    code = """
        import sys
        from pathlib import Path
        from streamlit.testing.v1 import AppTest
        app = AppTest.from_file("dashboard/app.py", default_timeout=60).run()
        for page in sorted(Path("dashboard/views").glob("[0-9]*.py")):
            app.switch_page(f"views/{page.name}").run()
            assert not app.exception
        assert not {"torch", "transformers"} & set(sys.modules), "the dashboard imported torch"
    """
    env = {**os.environ, "STUDYKIT_RESULTS": str(results_root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = [file.read_text() for file in (ROOT / "dashboard").rglob("*.py")]
    assert not any("import json" in text or "read_json" in text or "unsafe_allow_html" in text for text in files)
