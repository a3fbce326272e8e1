"""The dashboard as people meet it: the real server, a real browser, from the first page to one run."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from make_study import spec_of, write_run
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from playwright.sync_api import sync_playwright

from studykit import results
from studykit.findings import FINDINGS

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
PATIENCE_MS = 300_000
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Start servers that always end with these tests; return a function from command and results folder to address."""
    started = []
    logs = tmp_path_factory.mktemp("servers")

    @cache
    def serve(command, root):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        env = {**os.environ, "STUDYKIT_RESULTS": str(root), "OMP_NUM_THREADS": "1"}
        file = logs / f"{port}.log"
        with file.open("w") as log:
            parts = [sys.executable, *(str(part).format(port=port) for part in command)]
            process = subprocess.Popen(parts, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
        started.append(process)
        _wait(f"http://127.0.0.1:{port}/_stcore/health", process, file)
        return f"http://127.0.0.1:{port}"

    yield serve
    for process in started:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


SERVER = ("dashboard/server.py", "--port", "{port}")
PLAIN = ("-m", "streamlit", "run", "dashboard/app.py", "--server.port", "{port}")


def _wait(address, process, log):
    for _ in range(240):
        try:
            urlopen(address, timeout=5).close()
            return
        except (URLError, ConnectionError, TimeoutError):
            assert process.poll() is None, log.read_text()
            time.sleep(0.25)
    raise TimeoutError(log.read_text())


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """Return a page of a new session that has met no error and asked no foreign server when the test is over."""
    faults = []
    with browser.new_context(viewport={"width": 1360, "height": 1000}) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: faults.append(message.text) if _is_fault(message) else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: faults.append(request.url) if _is_foreign(request.url) else None)
        yield page
        boxes = page.locator("[data-testid=stException]").count()
    assert not faults
    assert boxes == 0


def _is_fault(message):
    """Tell errors apart from Streamlit's own search for its address, a 404 below a page's path."""
    return message.type == "error" and "/_stcore/" not in message.location.get("url", "")


def _is_foreign(address):
    return not address.startswith(("http://127.0.0.1:", "data:", "blob:", "ws://127.0.0.1:"))


def test_from_the_finding_to_one_run(served, page, results_root):
    address = served(SERVER, results_root)
    page.goto(address, wait_until="domcontentloaded")
    page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for()
    sentence = FINDINGS.member("data_size")(results.load(results_root)).sentence
    page.get_by_text(sentence).wait_for()
    page.get_by_text("30 done").first.wait_for()
    assert "study=sample" in page.url

    page.get_by_role("link", name="Runs", exact=True).click()
    page.get_by_text("32 of 32 runs").wait_for()
    _select_first_row(page)
    link = page.locator("[data-testid=stPageLink] a")
    link.wait_for()
    run_id = link.inner_text().split()[-1]
    assert f"run={run_id}" in page.url

    link.click()
    page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for()
    assert f"run={run_id}" in page.url
    page.get_by_role("tab", name="Specification").click()
    page.get_by_text(f"runs/{run_id}/spec.json").wait_for()


def _select_first_row(page):
    """Click until the table says that a row is selected: on a busy machine it is drawn before it reacts to clicks."""
    table = page.locator("[data-testid=stDataFrame]").first
    for _ in range(12):
        table.locator(".dvn-scroller").click(position={"x": 17, "y": 52})
        with suppress(PlaywrightTimeout):
            table.locator("[aria-selected=true]").first.wait_for(state="attached", timeout=PATIENCE_MS / 12)
            return
    raise AssertionError("no row was selected")


def test_a_shared_link_opens_the_same_view_as_the_first_request(served, page, results_root):
    cell = next(cell for cell in results.cells(results_root / "sample") if cell.status == "done")
    address = served(PLAIN, results_root)
    page.goto(f"{address}/run?study=sample&run={cell.runs[0]}&show=Notebook", wait_until="domcontentloaded")
    page.get_by_role("heading", name="Question").wait_for()
    page.get_by_text("ValueError in this cell").wait_for()
    page.goto(f"{address}/runs?study=sample&method=kd&seed=1", wait_until="domcontentloaded")
    page.get_by_text("5 of 32 runs").wait_for()


def test_new_results_appear_without_moving_the_selection(served, page, results_root, tmp_path):
    shutil.copytree(results_root, tmp_path / "results")
    run_id = results.load(results_root)["run_id"][7]
    address = served(SERVER, tmp_path / "results")
    page.goto(f"{address}/runs?study=sample&run={run_id}&method=kd&method=sft", wait_until="domcontentloaded")
    page.get_by_text("32 of 32 runs").wait_for()
    write_run(tmp_path / "results" / "sample", spec_of("kd", 100, 9))
    page.get_by_text("33 of 33 runs").wait_for()
    assert page.get_by_text(f"Open run {run_id}").count() == 1
    assert f"run={run_id}" in page.url


def test_the_server_adds_security_headers_and_refuses_foreign_hosts(served, results_root):
    address = served(SERVER, results_root)
    with urlopen(address, timeout=60) as answer:
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    port = int(address.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        assert b" 400 " in connection.recv(200)
