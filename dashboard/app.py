"""Browse the studies of a results folder: streamlit run dashboard/app.py.

The folder is `results`, or what STUDYKIT_RESULTS names. Every file in `views/` is a page: its number gives the place
in the menu, the first line of its docstring the title. Adding a page is adding a file. (A folder named `pages` would
make Streamlit run its files without this one whenever a link leads straight to them.)
"""

import ast
import sys
from pathlib import Path

import streamlit as st

HERE = Path(__file__).resolve().parent
sys.path[:0] = [] if str(HERE.parent) in sys.path else [str(HERE.parent)]  # streamlit adds only this file's own folder

from dashboard import readings, states  # noqa: E402
from studykit.errors import InputError  # noqa: E402


def main() -> None:
    """Choose the study, then run the page that the address asks for."""
    st.set_page_config(layout="wide")
    page = st.navigation([_page(file) for file in sorted((HERE / "views").glob("[0-9]*.py"))])
    try:
        names = readings.study_names()
    except InputError as error:
        states.no_study(str(error))
        return
    if not names:
        states.empty(readings.root())
        return
    with st.sidebar:
        readings.choose_study(names)
        _follow()
    page.run()


def _page(file: Path) -> st.Page:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or file.stem
    return st.Page(file, title=docstring.partition("\n")[0])


def _follow() -> None:
    """Offer to look for new results every few seconds; filters and selections are outside this fragment and remain."""
    live = st.toggle("Follow new results", value=True, key="live", bind="query-params")
    st.fragment(_rerun_when_changed, run_every=5 if live else None)(readings.fingerprint())


def _rerun_when_changed(seen: str) -> None:
    if readings.fingerprint() != seen:
        st.rerun()


main()
