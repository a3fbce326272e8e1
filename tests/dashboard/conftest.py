"""A made-up study, and the dashboard opened on it, for all tests here."""

import shutil
import sys
from functools import cache
from pathlib import Path

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).parents[2]
OVERVIEW = "views/10_overview.py"
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]


@pytest.fixture(scope="session", autouse=True)
def installed_packages_are_scanned_once():
    """Spare every opened page the second that Streamlit reads the metadata of all packages for, to find components."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", cache(manifest_scanner.scan_component_manifests))
        yield


@pytest.fixture(scope="session")
def results_root(tmp_path_factory):
    """Return a results folder with the made-up study, not to be changed."""
    from make_study import write_study

    root = tmp_path_factory.mktemp("results")
    write_study(root)
    return root


@pytest.fixture
def opened(monkeypatch):
    """Open a page on a results folder, with what its address asks for."""

    def open_page(root, page=OVERVIEW, **query):
        monkeypatch.setenv("STUDYKIT_RESULTS", str(root))
        app = AppTest.from_file(str(ROOT / "dashboard" / "app.py"), default_timeout=60)
        app.query_params |= {name: str(value) for name, value in query.items()}
        if page != OVERVIEW:
            app.switch_page(page)
        app.run()
        assert not app.exception, app.exception
        return app

    return open_page


@pytest.fixture
def copied(results_root, tmp_path):
    """Return a copy of the made-up study that a test may damage."""
    shutil.copytree(results_root, tmp_path / "results")
    return tmp_path / "results"
