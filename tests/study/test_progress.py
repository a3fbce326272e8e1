"""A run says what it is doing from its start to its end, where it was started and in its folder."""

from types import SimpleNamespace

import pytest

from studykit import study
from studykit.results import status
from studykit.results.status import running
from studykit.study.progress import LinePerMinute, NotebookLine, showing


@pytest.fixture
def plain(plain_spec, stage, data_file):
    evaluation = {"data": {"source": "jsonl", "options": {"path": str(data_file)}}, "items": 6, "max_new_tokens": 4}
    return plain_spec(stage("kd"), stage("sft", steps=2), top_k=4, evaluation=evaluation | {"batch_size": 4})


def test_every_part_of_a_run_is_shown_and_is_in_its_folder_meanwhile(plain, empty_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(status, "_EVERY_S", 0.0)
    monkeypatch.setattr(status, "_SHARE", float("inf"))
    lines, on_disk = [], []

    def show(line):
        lines.append(line)
        on_disk.extend(
            found.line() for found in (running(tmp_path / "s") if (tmp_path / "s").exists() else {}).values()
        )

    study.run(plain, study="s", root=tmp_path, show=show)
    assert [line for line in lines if line != "checking models and data"] == on_disk
    told = [line.partition(", ")[0] if "stage" not in line else line.partition("/step")[0] for line in lines]
    parts = list(dict.fromkeys(line.partition(":")[0] for line in told))
    assert parts == [
        "checking models and data",
        "loading the models",
        "scoring the teacher",
        "asking the teacher (stage 1 of 2, kd)",
        "training (stage 1 of 2, kd)",
        "training (stage 2 of 2, sft)",
        "saving the weights",
        "scoring",
    ]
    steps = [line.partition(" steps")[0] for line in lines if line.startswith("training (stage 1")]
    assert steps == [f"training (stage 1 of 2, kd): {step} of 6" for step in range(7)]
    assert [line.partition(",")[0] for line in lines if line.startswith("scoring:")] == [
        f"scoring: {done} of 6 items" for done in (0, 4, 6)
    ]


def test_a_comparison_names_the_arm(plain_spec, tmp_path):
    lines = []
    arms = {"first": plain_spec(teacher=False), "second": plain_spec(teacher=False)}
    study.compare(arms, study="s", root=tmp_path, show=lines.append)
    assert "first, 1 of 2: loading the models" in lines
    assert not any(line.startswith("second") for line in lines)  # the same run: read from disk


def test_a_log_gets_a_line_a_minute(capsys):
    now = SimpleNamespace(s=0.0)
    show = LinePerMinute(lambda: now.s)
    for second in range(0, 181, 10):
        now.s = float(second)
        show(f"at {second} s")
    printed = capsys.readouterr()
    assert (printed.out, printed.err.splitlines()) == ("", ["at 60 s", "at 120 s", "at 180 s"])


def test_outside_a_notebook_a_log_is_meant():
    with showing(None) as show:
        assert isinstance(show, LinePerMinute)
    with showing(print) as show:
        assert show is print


def test_a_notebook_has_one_output_that_changes(monkeypatch):
    shown = []

    def display(content, *, raw, display_id):
        assert (raw, display_id) == (True, True)
        shown.append(content["text/plain"])
        return SimpleNamespace(update=lambda content, raw: shown.__setitem__(-1, content["text/plain"]))

    monkeypatch.setattr("IPython.display.display", display)
    line = NotebookLine()
    line("training: 1 of 2 steps")
    line("training: 2 of 2 steps")
    assert shown == ["training: 2 of 2 steps"]
    line.end()
    assert shown[0].startswith("done in ")
    assert len(shown) == 1
