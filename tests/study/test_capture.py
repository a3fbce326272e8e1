"""A teacher captured ahead of time: what it costs on disk, how good it is, and that it is never run again."""

import io
import json
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
from rich.console import Console
from safetensors.numpy import load_file

from studykit import study
from studykit.batch import terminal as reports
from studykit.cli import main
from studykit.data import Inputs
from studykit.errors import InputError
from studykit.spec import RunSpec
from studykit.study.capture import capture
from studykit.study.pin import pin


@pytest.fixture
def spec_of(plain_spec, stage, data_file, teacher_folder):
    whole_pool = stage("kd", steps=10, data={"source": "jsonl", "options": {"path": str(data_file)}})

    def make(**kept):
        return RunSpec.parse(plain_spec(whole_pool) | {"teacher": {"name": str(teacher_folder)} | kept})

    return make


@pytest.mark.parametrize("kept", [{"top_k": 8}, {"samples": 40}])
def test_it_counts_the_bytes_on_disk(kept, spec_of, encoded, empty_cache, tmp_path):
    report = capture(pin(spec_of(**kept), Inputs(tmp_path)))
    files = list(Path(report.folder).glob("*.safetensors"))
    assert report.sequences == sum(len(load_file(file)["ends"]) for file in files) == len(encoded)
    assert report.positions == sum(encoded.response_tokens)
    whole = sum(file.stat().st_size for file in files)
    assert report.bytes_per_position == pytest.approx(whole / report.positions, abs=0.01)
    assert report.teacher_tokens > report.positions


def test_asked_again_it_asks_nothing_and_says_the_same(spec_of, empty_cache, tmp_path):
    first, again = (capture(pin(spec_of(top_k=8), Inputs(tmp_path))).as_dict() for _ in range(2))
    assert again.pop("teacher_tokens") == 0
    assert first.pop("teacher_tokens") > 0
    assert first | {"capture_s": 0} == again | {"capture_s": 0}


def test_runs_of_any_budget_find_it_all_there(spec_of, stage, plain_spec, teacher_folder, empty_cache, tmp_path):
    capture(pin(spec_of(top_k=8), Inputs(tmp_path)))
    plain = plain_spec(stage(method="kd")) | {"teacher": {"name": str(teacher_folder), "top_k": 8}}
    assert study.run(plain, root=tmp_path)["teacher_tokens"] == 0


def cosine(report):
    """Return the gradient's cosine, which a teacher that runs here has."""
    assert report.gradient_cosine is not None
    return report.gradient_cosine


def test_more_tokens_keep_more_mass_and_turn_the_gradient_less(spec_of, empty_cache, tmp_path):
    reports = [capture(pin(spec_of(top_k=k), Inputs(tmp_path))) for k in (1, 4, 16, 85)]
    for better, worse in zip(reports[1:], reports[:-1], strict=True):
        assert better.kept_mass > worse.kept_mass
        assert cosine(better) > cosine(worse)
        assert better.bytes_per_position > worse.bytes_per_position
    assert reports[-1].kept_mass == pytest.approx(1, abs=1e-4)
    assert reports[-1].gradient_cosine == pytest.approx(1, abs=1e-5)


def test_more_samples_turn_the_gradient_less(spec_of, empty_cache, tmp_path):
    few, many = (cosine(capture(pin(spec_of(samples=n), Inputs(tmp_path)))) for n in (2, 250))
    assert few < many
    assert many > 0.95


def test_rows_that_belong_to_no_token_take_no_part(
    plain_spec, stage, teacher_folder, tiny_model, empty_cache, tmp_path
):
    wider = tiny_model(seed=5)
    wider.resize_token_embeddings(128, mean_resizing=False)
    wider.save_pretrained(tmp_path / "wider")
    copytree(teacher_folder, tmp_path / "wider", dirs_exist_ok=True, ignore=ignore_patterns("config*", "*.safetensors"))
    plain = plain_spec(stage("kd"), top_k=85)
    plain["student"] = {"name": str(tmp_path / "wider")}
    assert capture(pin(RunSpec.parse(plain), Inputs(tmp_path))).gradient_cosine == pytest.approx(1, abs=1e-5)


def test_a_teacher_that_is_not_to_be_cached_is_refused(spec_of, tmp_path):
    with pytest.raises(InputError, match="top_k or samples"):
        capture(pin(spec_of(), Inputs(tmp_path)))


def test_the_command_says_it_as_json(data_file, teacher_folder, empty_cache, monkeypatch, capsys, tmp_path):
    options = json.dumps({"path": str(data_file)})
    arguments = ["--student", "lexicon/base-small", "--source", "jsonl", "--options", options, "--top-k", "4", "--json"]
    monkeypatch.setattr("sys.argv", ["studykit", "cache", str(teacher_folder), *arguments, "--results", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["sequences"] == 40


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_with_and_without_a_terminal(terminal, spec_of, empty_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "_EVERY_S", 0.0)
    text = io.StringIO()
    with reports.CaptureProgress(Console(file=text, force_terminal=terminal, width=100)) as progress:
        done = capture(pin(spec_of(top_k=8), Inputs(tmp_path)), progress.update)
    assert f"{done.positions}/{done.positions}" in text.getvalue() or not terminal
    assert f"{done.positions} of {done.positions} positions captured; about 0 s left" in text.getvalue() or terminal
