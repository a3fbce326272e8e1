"""Show an executed notebook with Streamlit's own elements; nothing in it reaches the page as HTML."""

import re
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from dashboard import charts

_PLOTLY = "application/vnd.plotly.v1+json"
_TERMINAL_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def show(cells: list[dict[str, Any]]) -> None:
    """Show the cells that `results.read_notebook` returns."""
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "markdown":
            st.markdown(cell["source"])
        elif cell["cell_type"] == "code":
            if cell["source"].strip():
                st.code(cell["source"], language="python")
            for place, output in enumerate(cell["outputs"]):
                _output(output, f"notebook-{number}-{place}")


def _output(output: dict[str, Any], name: str) -> None:
    kind, data = output.get("output_type"), output["data"]
    if kind == "error":
        st.error(f"{output.get('ename', 'Error')} in this cell", icon=":material/error:")
        st.code(_TERMINAL_COLOURS.sub("", "\n".join(output.get("traceback", []))), language=None)
    elif kind == "stream":
        _text(output["text"], wrap=True)
    elif _PLOTLY in data and (figure := _figure(data[_PLOTLY])) is not None:
        charts.show(figure, "Figure of the notebook", name)
    elif "text/markdown" in data:
        st.markdown(data["text/markdown"])
    elif "text/plain" in data:
        _text(data["text/plain"])


def _figure(data: dict[str, Any]) -> go.Figure | None:
    try:
        return go.Figure({"data": data["data"], "layout": data.get("layout", {})})
    except (ValueError, KeyError, TypeError):
        return None


def _text(text: str, wrap: bool = False) -> None:
    if text.strip():
        st.code(_TERMINAL_COLOURS.sub("", text.rstrip()), language=None, wrap_lines=wrap)
