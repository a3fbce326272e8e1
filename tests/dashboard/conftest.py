"""A made-up study for all tests of the dashboard."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]


@pytest.fixture(scope="session")
def results_root(tmp_path_factory):
    from make_study import write_study

    root = tmp_path_factory.mktemp("results")
    write_study(root)
    return root
