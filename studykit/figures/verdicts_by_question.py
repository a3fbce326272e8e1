"""How many planned contrasts of each question have each verdict, from a report."""

import pandas as pd
import plotly.graph_objects as go

from studykit.figures import finish
from studykit.statistics.verdicts import WORDS

_COLOURS = {"helps": "#009E73", "hurts": "#D55E00", "tie": "#56B4E9", "cannot tell": "#B0B0B0"}


def verdicts_by_question(contrasts: pd.DataFrame) -> go.Figure:
    """Return the number of verdicts with each word by study and question.

    Args:
        contrasts: of a report, with columns study, question and verdict.
    """
    figure = go.Figure()
    names = contrasts["study"].astype(str) + ": " + contrasts["question"].astype(str)
    words = contrasts["verdict"].astype(str).str.split(" (", regex=False).str[0]
    rows = list(dict.fromkeys(names))
    for word in WORDS:
        counts = names[words == word].value_counts()
        figure.add_bar(
            y=rows,
            x=[int(counts.get(row, 0)) for row in rows],
            name=word,
            orientation="h",
            marker={"color": _COLOURS[word]},
            hovertemplate="%{y}: %{x} " + word + "<extra></extra>",
        )
    finish(figure, "planned contrasts", "")
    figure.update_layout(barmode="stack", height=140 + 28 * len(rows))
    figure.update_yaxes(automargin=True, autorange="reversed")
    return figure
