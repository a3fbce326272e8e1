"""Whole runs whose teacher is a server: the same training as with the teacher here, and nothing is sent twice."""

import json
import sys

import pandas as pd
import pytest
import torch
from completions_server import MODEL, Answers, serving
from safetensors.torch import load_file

from studykit import study
from studykit.cli import main
from studykit.data import Inputs
from studykit.errors import InputError
from studykit.models import loading
from studykit.models.names import Models
from studykit.results import option_columns
from studykit.spec import RunSpec
from studykit.study.estimate import Needs, Shared
from studykit.study.pin import pin
from studykit.study.rates import measure
from studykit.teacher import completions

K = 8


@pytest.fixture
def answers(teacher_folder, monkeypatch, empty_cache):
    monkeypatch.setattr(completions, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    model = Models().find(str(teacher_folder))
    return Answers(loading.load_teacher(model), model.tokenizer)


@pytest.fixture
def plain_with(plain_spec, stage, data_file):
    evaluation = {"data": {"source": "jsonl", "options": {"path": str(data_file)}}, "items": 4, "max_new_tokens": 4}

    def make(url, *stages, **fields):
        endpoint = {"url": url, "model": MODEL, "logprobs": K, "requests": 4, "retries": 2} | fields
        teacher = {"name": "lexicon/tokenizer", "endpoint": endpoint}
        return plain_spec(*(stages or [stage("kd")]), evaluation=evaluation) | {"teacher": teacher}

    return make


@pytest.fixture
def no_teacher(monkeypatch):
    """Fail where a teacher's weights would be loaded."""
    for module in ("study.rates", "study.score", "teacher"):
        monkeypatch.setattr(sys.modules[f"studykit.{module}"], "load_teacher", None)


def weights_of(row, root):
    return load_file(root / row["study"] / "runs" / row["run_id"] / "model" / "model.safetensors")


def test_it_trains_as_with_the_teacher_on_this_machine(answers, plain_with, plain_spec, stage, tmp_path, monkeypatch):
    local = study.run(plain_spec(stage("kd"), top_k=K), root=tmp_path, study="here")
    with monkeypatch.context() as patched, serving(answers) as url:
        patched.setattr(sys.modules["studykit.teacher"], "load_teacher", None)
        row = study.run(plain_with(url), root=tmp_path, study="there")
    assert len(set(answers.asked)) == len(answers.asked) > 0
    assert row["teacher_tokens"] == local["teacher_tokens"]
    for name, tensor in weights_of(row, tmp_path).items():
        torch.testing.assert_close(tensor, weights_of(local, tmp_path)[name], rtol=1e-3, atol=1e-4)
    assert not [name for name in row if name.startswith("teacher_") and "exact_match" in name]
    record = (tmp_path / "there" / "runs" / row["run_id"] / "record.json").read_text()
    assert json.loads(record)["spec"]["teacher"]["endpoint"]["url"] == url
    # Elsewhere, and with the server gone, it is the same run.
    again = study.run(
        plain_with("http://127.0.0.1:9/v1", requests=1, api_key_env="NO_KEY"), root=tmp_path, study="there"
    )
    assert again["run_id"] == row["run_id"]


def test_tables_tell_it_from_other_runs(answers, plain_with, tmp_path):
    with serving(answers) as url:
        row = study.run(plain_with(url), root=tmp_path)
    assert row["teacher_endpoint_model"] == MODEL
    assert row["teacher_top_k"] == K
    columns = option_columns(pd.DataFrame([row]))
    assert not [name for name in columns if "url" in name or "requests" in name or "key" in name]


def test_what_it_takes_is_known_beforehand_and_no_memory_is_the_teachers(
    answers, plain_with, no_teacher, tmp_path, monkeypatch
):
    with serving(answers) as url:
        run = pin(RunSpec.parse(plain_with(url)), Inputs(tmp_path))
        measured = measure(run)
        [captured] = measured.captures
        assert captured is not None
        assert captured.token_s > 0
        monkeypatch.setenv("STUDYKIT_CACHE", str(tmp_path / "untouched"))
        guess = Needs.of(run, measured).estimate(Shared())
        row = study.run(plain_with(url), root=tmp_path)
    assert guess.teacher_tokens == row["teacher_tokens"] > 0
    assert guess.cache_bytes > 0
    assert measured.evaluations[0].teacher_item_s == 0
    assert captured.position_bytes == 4 * K + 2
    monkeypatch.setenv("STUDYKIT_CACHE", str(tmp_path / "other"))
    with pytest.raises(InputError, match="no server answers"):
        measure(run)


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("gkd", {}, "trains on sequences that are made during training"),
        ("seqkd", {}, "has the teacher generate"),
        ("skd", {}, "has the teacher generate"),
        ("uld", {}, "needs the full distribution"),
        ("miniplm", {"reference": "lexicon/reference"}, "selects examples by the teacher's likelihood"),
        ("r2kd", {}, "trains on sequences that are made during training"),
    ],
)
def test_methods_that_need_more_of_the_teacher_are_refused(method, options, said, plain_with, stage, tmp_path):
    plain = plain_with("http://127.0.0.1:9/v1", stage(method, method_options=options))
    with pytest.raises(InputError, match=f"method '{method}' {said}.*leave teacher.endpoint out"):
        pin(RunSpec.parse(plain), Inputs(tmp_path))


def test_the_command_line_captures_and_imports(answers, data_file, encoded, tmp_path, monkeypatch, capsys):
    file = tmp_path / "answers.jsonl"
    sequences = [encoded.ids_of(i).tolist() for i in range(len(encoded))]
    lines = [{"prompt_token_ids": ids, "prompt_logprobs": answers.prompt_logprobs(ids, K)} for ids in sequences]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def command(*more):
        words = ["studykit", "cache", "lexicon/tokenizer", "--student", "lexicon/base-small", "--source", "jsonl"]
        words += ["--options", json.dumps({"path": str(data_file)}), "--max-length", "64", "--json", *more]
        monkeypatch.setattr("sys.argv", words)
        main()

    with pytest.raises(SystemExit):
        command("--endpoint", json.dumps({"model": MODEL, "logprobs": K}), "--import", str(file))
    report = json.loads(capsys.readouterr().out)
    assert (report["imported"], report["teacher_tokens"], report["sequences"]) == (len(encoded), 0, len(encoded))
    assert 0 < report["kept_mass"] <= 1
    assert "gradient_cosine" not in report
    for wrong, said in {"{": "--endpoint '{' is not JSON", '{"url": 3}': "teacher.endpoint"}.items():
        with pytest.raises(SystemExit) as ended:
            command("--endpoint", wrong)
        error = capsys.readouterr().err
        assert ended.value.code == 2
        assert said in error
        assert error.count("\n") == 1
    with pytest.raises(SystemExit) as ended:
        command("--top-k", "4", "--import", "nowhere.jsonl")
    assert ended.value.code == 2
    assert "no such file" in capsys.readouterr().err
