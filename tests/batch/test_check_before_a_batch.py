"""The check before a batch: a separate process, which ends with the batch that started it."""

import os
import subprocess
import sys

import pytest
from fake_notebooks import MARKER, marked, wait_for, write_batch, write_notebook

from studykit.batch import preflight
from studykit.errors import InputError

CHECK_FOREVER = """
import pathlib, time
(pathlib.Path(place) / "checks").write_text("")
time.sleep(600)
arms = {}
"""
PREFLIGHT = """
import sys
from pathlib import Path
from studykit.batch import grid as batch
root = Path(sys.argv[1])
batch.preflight(batch.plan("check", folder=root / "notebooks", results_root=root / "results"))
"""


def test_the_check_before_a_batch_ends_with_a_batch_that_is_killed(tmp_path):
    write_notebook(tmp_path / "notebooks", "01_check", arms=CHECK_FOREVER)
    write_batch(tmp_path / "notebooks", "check", [{"notebook": "01_check", "grid": {"place": str(tmp_path)}}])
    environment = os.environ | {MARKER: str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", PREFLIGHT, str(tmp_path)], env=environment) as batch:
        wait_for((tmp_path / "checks").exists)
        assert len(marked(str(tmp_path))) == 2
        batch.kill()
    try:
        wait_for(lambda: marked(str(tmp_path)) == [], 30.0)
    finally:
        for process in marked(str(tmp_path)):
            process.kill()


def test_a_method_that_does_not_exist_is_refused_by_name(plain_spec, stage, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "arms_of", lambda notebook, parameters: {"kd": plain_spec(stage("kdd"))})
    with pytest.raises(InputError, match="unknown method 'kdd'; did you mean 'kd'"):
        preflight.check([{"notebook": "any", "parameters": {"results": str(tmp_path)}}])
