"""The command line: exit codes, one line for every bad input, JSON for programs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import ANY

import pytest
from fake_notebooks import everything_under, write_batch, write_notebook

from studykit import cli
from studykit.cli import ROOMS, main
from studykit.errors import Failure
from studykit.results import EvaluationWriter, RunWriter, open_study
from studykit.results.status import Activity, StatusFile
from studykit.spec import Evaluation, RunSpec

STUDYKIT = str(Path(sys.executable).with_name("studykit"))
SHAPE = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
}

SFT = {
    "student": {"name": "lexicon/base-small"},
    "stages": [{"data": {"source": "lexicon"}, "method": "sft", "steps": 10, "learning_rate": 0.01}],
}


@pytest.fixture
def studykit(tmp_path, monkeypatch, capfd):
    """Run a command in an empty folder and return exit code, output and error output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STUDYKIT_RESULTS", raising=False)

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["studykit", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return command


def refused(answer, message):
    """Whether a command ended as for bad input: code 2 and one line on stderr that says so."""
    code, out, err = answer
    assert (code, out) == (2, ""), (code, out, err)
    assert err.startswith("studykit: ")
    assert err.count("\n") == 1, err
    assert message in err
    return True


def test_a_failure_that_no_input_mends_is_one_line_and_code_1(studykit, monkeypatch):
    def damaged(*names):
        raise Failure("the file is damaged: delete it")

    monkeypatch.setattr(cli, "app", damaged)
    assert studykit("list") == (1, "", "studykit: the file is damaged: delete it\n")


@pytest.fixture
def data(tmp_path):
    """Write eight conversations."""
    lines = [{"prompt": f"Pronounce {c} a t", "completion": "K AE T"} for c in "bcfhmprs"]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"source": "jsonl", "options": {"path": str(tmp_path / "mine.jsonl")}}


@pytest.fixture
def spec_file(tmp_path, data):
    """Write a specification of two steps, changed in one stage or at the top, and return its file."""

    def write(stage=None, **changes):
        plain = {"data": data, "method": "sft", "steps": 2, "batch_size": 2, "learning_rate": 0.01, "max_length": 64}
        student = {"name": "lexicon/tokenizer", "random_config": SHAPE}
        content = {"student": student, "stages": [plain | (stage or {})]} | changes
        (tmp_path / "spec.json").write_text(json.dumps(content))
        return tmp_path / "spec.json"

    return write


BAD_BATCHES = {
    "unknown batch 'quickstrat'; did you mean 'quickstart'": ["quickstrat"],
    "unknown parameter 'sede'; did you mean 'seed'": ["quickstart", "-p", "sede=1"],
    "parameter 'number' is 0 by default, received 'many'": ["quickstart", "-p", "number=many"],
    "parameter 'rate' is 0.5 by default, received inf": ["quickstart", "-p", "rate=Infinity"],
    "-p 'number': write name=value": ["quickstart", "-p", "number"],
    "parameter 'number' has no values": ["quickstart", "-p", "number=[]"],
    "unknown notebook '01_nothing'; did you mean '01_something'": ["lost"],
    "unknown executor 'locl'; did you mean 'local'": ["quickstart", "--executor", "locl"],
    "is not a studykit study": ["quickstart", "-p", "study=thesis"],
    "study name '../thesis' must be a plain folder name": ["quickstart", "-p", "study=../thesis"],
    "cannot read batch": ["none.yaml"],
}


@pytest.mark.parametrize("message", BAD_BATCHES)
def test_a_bad_batch_is_refused_in_one_line_and_nothing_is_written(studykit, tmp_path, message):
    write_notebook(
        tmp_path / "notebooks", "01_something", parameters="seed = 0\nnumber = 0\nrate = 0.5\nstudy = 'x'\nresults = ''"
    )
    write_batch(tmp_path / "notebooks", "quickstart", [{"notebook": "01_something"}])
    write_batch(tmp_path / "notebooks", "lost", [{"notebook": "01_nothing"}])
    (tmp_path / "results" / "thesis").mkdir(parents=True)
    (tmp_path / "results" / "thesis" / "chapter.txt").write_text("years of work")
    before = everything_under(tmp_path)
    assert refused(studykit("batch", *BAD_BATCHES[message]), message)
    assert everything_under(tmp_path) == before


def test_a_batch_whose_arms_are_no_specifications_is_refused_before_it_starts(studykit, tmp_path, data):
    stage = {"data": data, "method": "kd", "steps": 1, "bacth_size": 2, "learning_rate": 0.1}
    arms = f"arms = {{'kd': {{'student': {{'name': 'lexicon/tokenizer'}}, 'stages': [{stage!r}]}}}}"
    write_notebook(tmp_path / "notebooks", "01_something", arms=arms)
    write_batch(tmp_path / "notebooks", "quickstart", [{"notebook": "01_something"}])
    code, _, err = studykit("batch", "quickstart")
    assert (code, err.count("\n"), "unknown key 'bacth_size'; did you mean 'batch_size'" in err) == (2, 1, True), err
    assert not (tmp_path / "results").exists()


def test_a_batch_with_a_failing_cell_exits_with_1_names_it_and_goes_on(studykit, tmp_path):
    write_notebook(tmp_path / "notebooks", "01_something", "assert number != 2, 'two is too much'")
    write_batch(tmp_path / "notebooks", "quickstart", [{"notebook": "01_something", "grid": {"number": [1, 2]}}])
    code, out, err = studykit("batch", "quickstart", "--jobs", 2)
    assert code == 1
    assert "1 done, 1 failed" in out
    assert err.count("\n") == 1
    assert "AssertionError: two is too much" in err
    assert "log.txt" in err
    code, out, err = studykit("batch", "quickstart", "-p", "number=1")
    assert (code, err) == (0, "")
    assert "studykit dashboard" in out


BAD_SPECS = {
    "unknown key 'methd'; did you mean 'method'": {"stage": {"methd": "kd"}},
    "unknown key 'stagse'; did you mean 'stages'": {"stagse": []},
    "stages.0.steps: Input should be greater than or equal to 1": {"stage": {"steps": 0}},
    "stages: ": {"stages": []},
    "unknown method 'sfft'; did you mean 'sft'": {"stage": {"method": "sfft"}},
    "unknown option 'temprature'; did you mean 'temperature'": {
        "stage": {"method": "kd", "method_options": {"temprature": 2}}
    },
    "needs a teacher": {"stage": {"method": "kd"}},
    "student.name: ": {"student": {"name": 3}},
}


@pytest.mark.parametrize("message", BAD_SPECS)
def test_a_bad_specification_is_refused_in_one_line_and_nothing_is_written(studykit, spec_file, tmp_path, message):
    file = spec_file(**BAD_SPECS[message])
    before = everything_under(tmp_path)
    assert refused(studykit("run", file), message)
    assert everything_under(tmp_path) == before


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"examples": 9}, "budget of 9 examples is larger than the pool of 8"),
        ({"examples": 0}, "stages.0.data.budget.examples: Input should be greater than or equal to 1"),
        ({"examples": 1, "tokens": 1}, "not both"),
        ({"sampler": "unifrom"}, "unknown sampler 'unifrom'; did you mean 'uniform'"),
    ],
)
def test_a_bad_budget_is_refused_in_one_line_and_nothing_is_written(
    studykit, spec_file, data, tmp_path, budget, message
):
    file = spec_file({"data": data | {"budget": budget}})
    before = everything_under(tmp_path)
    assert refused(studykit("run", file), message)
    assert everything_under(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the specification"),
        ('{"student": ', "cannot read the specification"),
        ("[1, 2]", "must be a JSON object, received list"),
        ("\xff\xfe", "cannot read the specification"),
    ],
)
def test_a_specification_that_is_none_is_refused(studykit, tmp_path, content, message):
    if content is not None:
        (tmp_path / "spec.json").write_bytes(content.encode("latin-1"))
    assert refused(studykit("run", tmp_path / "spec.json"), message)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "line", ["{not json}", '{"prompt": "without an answer"}', "[]", '{"prompt": 1, "completion": "x"}']
)
def test_a_bad_line_of_data_is_named_by_its_number(studykit, spec_file, tmp_path, line):
    file = spec_file()
    lines = (tmp_path / "mine.jsonl").read_text().replace("b a t", "b a\u2028t").split("\n")
    (tmp_path / "mine.jsonl").write_text("\n".join([*lines[:4], line, *lines[4:]]))
    before = everything_under(tmp_path)
    assert refused(studykit("run", file), "mine.jsonl:5: ")
    assert everything_under(tmp_path) == before


def test_missing_data_is_refused_in_one_line(studykit, spec_file, tmp_path):
    file = spec_file()
    (tmp_path / "mine.jsonl").unlink()
    assert refused(studykit("run", file), "cannot read")


def test_a_run_into_a_foreign_folder_is_refused(studykit, spec_file, tmp_path):
    (tmp_path / "results" / "scratch").mkdir(parents=True)
    (tmp_path / "results" / "scratch" / "thesis.txt").write_text("years of work")
    file = spec_file()
    before = everything_under(tmp_path)
    assert refused(studykit("run", file), "is not a studykit study")
    assert refused(studykit("run", file, "--study", "../up"), "must be a plain folder name")
    assert everything_under(tmp_path) == before


def test_a_run_is_trained_once_listed_and_scored_later(studykit, spec_file, data):
    code, out, _ = studykit("run", spec_file(), "--json")
    assert code == 0
    row = json.loads(out)
    assert row["status"] == "done"
    assert row["budget_examples"] == 8
    assert json.loads(studykit("run", spec_file(), "--json")[1]) == row  # read, cost and all
    assert row["run_id"] in studykit("run", spec_file())[1]
    [listed] = json.loads(studykit("results", "--json")[1])
    assert {name: listed[name] for name in row if name != "ablation"} == pytest.approx(
        {name: row[name] for name in row if name != "ablation"}
    )
    code, out, err = studykit("results", "scratch", "--rebuild")
    assert (code, err) == (0, "scratch: 1 run\n")
    assert row["run_id"] in out
    evaluation = spec_file().with_name("evaluation.json")
    evaluation.write_text(json.dumps({"data": data, "items": 2}))
    code, out, err = studykit("score", row["run_id"], "--evaluation", evaluation, "--scorers", "nll, bits", "--json")
    assert refused((code, out, err), "unknown scorer 'bits'")
    code, out, _ = studykit("score", row["run_id"], "--evaluation", evaluation, "--scorers", "nll", "--json")
    scored = json.loads(out)
    assert (code, scored["run_id"], scored["evaluation_items"]) == (0, row["run_id"], 2)
    [listed] = json.loads(studykit("results", "--json")[1])
    assert (listed["nll"], listed["eval_id"]) == (pytest.approx(scored["nll"]), scored["eval_id"])
    evaluation.write_text("[]")
    assert refused(studykit("score", row["run_id"], "--evaluation", evaluation), "must be a JSON object, received list")
    assert refused(studykit("score", "0" * 12, "--scorers", "nll"), "no run '000000000000' under results")


def test_results_of_nothing(studykit, tmp_path):
    code, out, err = studykit("results")
    assert (code, err) == (0, "")
    assert "make quickstart" in out
    assert json.loads(studykit("results", "--json")[1]) == []
    assert refused(studykit("results", "lexikon"), "unknown study 'lexikon'; known: none")
    (tmp_path / "results" / "lexicon").mkdir(parents=True)
    (tmp_path / "results" / "lexicon" / "study.json").write_text('{"schema": 1, "study": "lexicon"}')
    assert refused(studykit("results", "lexikon"), "unknown study 'lexikon'; did you mean 'lexicon'")


@pytest.mark.parametrize("cut", [0, 3])
def test_results_show_answers_that_were_cut_where_there_are_any(studykit, tmp_path, cut):
    with RunWriter(open_study(tmp_path / "results", "mine"), RunSpec.parse(SFT)) as run:
        run.finish({}, [])
        with EvaluationWriter(run.folder, Evaluation.parse({"data": {"source": "lexicon"}})) as measured:
            measured.finish({"exact_match": 0.5, "answers_cut": cut})
    assert ("answers_cut" in studykit("results", "mine")[1]) == bool(cut)
    assert json.loads(studykit("results", "mine", "--json")[1])[0]["answers_cut"] == cut


def test_results_say_what_a_running_run_is_doing(studykit, tmp_path):
    spec = RunSpec.parse(SFT)
    with RunWriter(open_study(tmp_path / "results", "s"), spec) as run:
        StatusFile(run.folder)(Activity("training", "steps", "sft"), 5, 10)
        code, out, _ = studykit("results")
    assert code == 0
    assert f"run {spec.run_id} of s: training (sft): 5 of 10 steps\n" in out


@pytest.mark.parametrize(
    "arguments", [["results"], ["results", "--json"], ["results", "--rebuild"], ["results", "thesis"]]
)
def test_results_that_are_not_ours_are_refused(studykit, tmp_path, arguments):
    (tmp_path / "results" / "thesis").mkdir(parents=True)
    (tmp_path / "results" / "thesis" / "chapter.txt").write_text("years of work")
    assert refused(studykit(*arguments), "results holds no studykit study")


def test_results_that_are_a_file_are_refused(studykit, tmp_path):
    (tmp_path / "notes").write_text("mine")
    assert refused(studykit("results", "--results", "notes"), "notes is not a folder of results")


@pytest.mark.parametrize("what", ROOMS)
def test_list_names_what_is_there(studykit, what):
    code, out, _ = studykit("list", what, "--json")
    assert code == 0
    described = json.loads(out)
    assert described
    assert all(about["description"] for about in described.values()), f"a module of {what} has no docstring"
    assert studykit("list", what)[1].split("\n")[0].split()[0] == min(described)


def test_an_unknown_list_or_name_is_refused(studykit):
    assert refused(studykit("list", "losess"), "did you mean 'losses'")
    assert refused(studykit("list", "methods", "gdk"), "did you mean 'gkd'")


@pytest.mark.parametrize("arguments", [["batch"], ["bacth", "x"], ["batch", "x", "--jobs", "0"], ["list"], ["run"]])
def test_wrong_usage_exits_with_2_and_no_traceback(studykit, arguments):
    code, _, err = studykit(*arguments)
    assert code == 2
    assert "Traceback" not in err


def test_the_installed_command_prints_one_line_and_no_traceback(tmp_path):
    done = subprocess.run([STUDYKIT, "batch", "nothing"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "studykit: unknown batch 'nothing'; known: none\n"


@pytest.mark.parametrize(("what", "name", "option"), [("methods", "gkd", "lmbda"), ("losses", "jsd", "beta")])
def test_list_shows_the_options_of_one(studykit, what, name, option):
    code, out, _ = studykit("list", what, name, "--json")
    assert code == 0
    assert json.loads(out)[option] == {"default": 0.5, "type": ANY, "description": ANY}
    assert f"  {option} = 0.5" in studykit("list", what, name)[1]


def test_verify_names_damage_and_ends_with_1(studykit, tmp_path):
    shutil.copytree(Path(__file__).parents[1] / "results" / "teacher_cache", tmp_path / "results" / "teacher_cache")
    assert studykit("verify")[:2] == (0, "")
    file = next(tmp_path.glob("results/*/runs/*/spec.json"))
    file.write_text(file.read_text() + "\n")
    code, out, err = studykit("verify", "teacher_cache")
    assert (code, out.count("\n"), err) == (1, 1, "1 studies, 1 damaged files\n")
    assert out.startswith(f"{file.relative_to(tmp_path)}: is not what was written: ")
    assert refused(studykit("verify", "teacher-cache"), "did you mean 'teacher_cache'")
