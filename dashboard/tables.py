"""The table of a finding, with the decimals that the finding gives, and thousands apart."""

from typing import Any

import pandas as pd
import streamlit as st

from studykit.findings import Finding


def show(finding: Finding, table: pd.DataFrame, alt: str) -> None:
    """Show rows of a finding's table.

    Args:
        finding: gives the decimals of its columns.
        table: its table, or some of its rows and columns.
        alt: the table in words.
    """
    counts = map(str, table.select_dtypes("integer"))
    columns: dict[Any, Any] = {name: st.column_config.NumberColumn(format="localized") for name in counts}
    columns |= {name: st.column_config.NumberColumn(format=f"%.{digits}f") for name, digits in finding.digits.items()}
    columns |= {name: st.column_config.TextColumn(width=230) for name in table if str(name).endswith("verdict")}
    st.dataframe(table, hide_index=True, column_config=columns, alt=alt)
