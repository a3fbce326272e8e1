"""The held-out items of a run: right or wrong, prompt, reference, answer and scores."""

from typing import Any

import pandas as pd
import streamlit as st

TEXTS = ["id", "prompt", "reference", "answer"]


def show(items: list[dict[str, Any]], key: str, score: str) -> None:
    """Show the items with filter and search; a selected one is shown in full.

    Args:
        items: from `results.read_items`.
        key: of the table, different for each evaluation.
        score: the scorer by which an answer is right or wrong, where it gives 1 and 0 only.
    """
    if not items:
        st.info("This run has no scored items.", icon=":material/hourglass_empty:")
        return
    frame = _table(items, score)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        frame = _searched(_right_or_wrong(frame))
    st.markdown(f"**{len(frame):,}** of {len(items):,} items")
    scores = {str(c): st.column_config.NumberColumn(format="%.3f") for c in frame.select_dtypes("number")}
    event = st.dataframe(
        frame,
        hide_index=True,
        column_config=scores,
        key=f"items-{key}-{hash(tuple(frame.index))}",
        on_select="rerun",
        selection_mode="single-row",
        alt="Held-out items with reference, answer and scores",
    )
    for row in event["selection"]["rows"]:
        _whole(frame.iloc[row])


def _table(items: list[dict[str, Any]], score: str) -> pd.DataFrame:
    texts = pd.DataFrame(items).reindex(columns=[*TEXTS, "cut"])
    scores = pd.DataFrame([item.get("scores", {}) for item in items])
    if score in scores and set(scores[score].dropna()) <= {0.0, 1.0}:
        texts.insert(1, "right", scores[score].map({1.0: "✓ right", 0.0: "✗ wrong"}))
    texts["cut"] = texts["cut"].map({True: "✂ cut at the limit"})
    return pd.concat([texts, scores], axis=1).dropna(axis=1, how="all")


def _right_or_wrong(frame: pd.DataFrame) -> pd.DataFrame:
    if "right" not in frame:
        return frame
    wanted = st.segmented_control(
        "Answers", ["all", "right", "wrong"], default="all", required=True, key="answers", bind="query-params"
    )
    return frame if wanted in (None, "all") else frame[frame["right"].str.endswith(wanted, na=False)]


def _searched(frame: pd.DataFrame) -> pd.DataFrame:
    words = st.text_input("Search items", key="item", bind="query-params", placeholder="prompt, reference or answer")
    text = frame.reindex(columns=TEXTS).astype("string").fillna("").agg(" ".join, axis=1).str.lower()
    for word in (words or "").lower().split():
        frame = frame[text.reindex(frame.index).str.contains(word, regex=False)]
    return frame


def _whole(item: pd.Series) -> None:
    for part in TEXTS[1:]:
        if isinstance(item.get(part), str):
            st.caption(part)
            st.code(item[part], language=None, wrap_lines=True)
