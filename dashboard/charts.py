"""Put a figure on the page: readable without seeing it, and saved as vector graphics."""

import plotly.graph_objects as go
import streamlit as st


def show(figure: go.Figure, alt: str, name: str) -> None:
    """Show a figure.

    Args:
        figure: from `studykit.figures`.
        alt: the content in words, for those who do not see it.
        name: names the element and the saved file.
    """
    figure.update_layout(modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#8a8a8a", "activecolor": "#d55e00"})
    config = {"displaylogo": False, "toImageButtonOptions": {"format": "svg", "filename": name}}
    st.plotly_chart(figure, key=name, config=config, alt=alt)
