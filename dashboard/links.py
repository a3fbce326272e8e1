"""Ways from page to page that carry their selection in the address."""

from pathlib import Path
from typing import Any

import streamlit as st


def to_page(name: str, label: str, **query: Any) -> None:
    """Link to the page whose file is `views/<number>_<name>.py`; the address keeps the chosen study."""
    file = next((Path(__file__).resolve().parent / "views").glob(f"[0-9]*_{name}.py"))
    st.page_link(file, label=label, icon=":material/arrow_forward:", query_params=query)
