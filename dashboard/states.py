"""What the pages show where there are no results, none yet, or damaged ones."""

import re
from pathlib import Path
from typing import Any

import streamlit as st

ICONS = {
    "done": ":material/check:",
    "running": ":material/play_arrow:",
    "failed": ":material/close:",
    "stale": ":material/hourglass_empty:",
}
COLOURS: dict[str, Any] = {"done": "green", "running": "blue", "failed": "red", "stale": "orange"}
MEANINGS = {
    "done": "finished, with its record",
    "running": "a process works on it",
    "failed": "ended with an error",
    "stale": "was killed during its work; the same command resumes it",
}


def empty(folder: Path) -> None:
    """Say that there are no results, and which command makes some."""
    st.title("No results yet")
    st.text(f"The results folder {folder} holds no study.")
    st.markdown("This command runs a small study on real data and fills it within minutes:")
    st.code("make quickstart", language="bash")
    st.markdown("Results elsewhere? Name their folder in the environment variable `STUDYKIT_RESULTS`.")


def no_study(reason: str) -> None:
    """Say that the folder was not made by studykit."""
    st.title("This folder holds no study")
    st.error(plain(reason))
    st.markdown("Name a folder that `studykit` has filled in the environment variable `STUDYKIT_RESULTS`.")


def damaged(found: dict[str, str]) -> None:
    """Count and name the records that cannot be read; they appear as failed runs."""
    if not found:
        return
    count = f"{len(found)} damaged record{'s' if len(found) > 1 else ''}"
    with st.expander(f"{count}, shown as failed", icon=":material/warning:", expanded=True):
        for reason in found.values():
            st.text(reason)


def badge(status: str, count: int | None = None) -> None:
    """Show a status by word, icon and colour."""
    text = status if count is None else f"{count} {status}"
    colour = "gray" if count == 0 else COLOURS[status]
    st.badge(text, icon=ICONS[status], color=colour, help=f"{status}: {MEANINGS[status]}")


def plain(text: str) -> str:
    """Return text from a record so that Markdown shows it as it is.

    >>> plain("a*b")
    'a\\\\*b'
    """
    return re.sub(r"([\\`*_{}\[\]<>()#+.!|~$:^=-])", r"\\\1", text)
