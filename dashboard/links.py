"""Ways from page to page that carry their selection in the address."""

from pathlib import Path
from typing import Any

import streamlit as st

from dashboard import readings


def to_page(name: str, label: str, **query: Any) -> None:
    """Link to the page whose file is `pages/<number>_<name>.py`, in the chosen study."""
    file = next((Path(__file__).parent / "pages").glob(f"[0-9]*_{name}.py"))
    st.page_link(
        file, label=label, icon=":material/arrow_forward:", query_params={"study": readings.study().name, **query}
    )
