"""Write the README's figure and table from the committed results: `python -m studykit.readme` (or `make figures`).

What stands between the markers of the README is generated; a test compares it with the results, so that no number in
it can be typed by hand. Drawing the figure needs Chromium or Chrome (kaleido drives it); checking the text does not.
"""

import json
from pathlib import Path

import pandas as pd

from studykit import figures, results
from studykit.findings import format_cell
from studykit.findings.data_size import data_size

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "results" / "lexicon"
START, END = "<!-- generated: results/lexicon -->", "<!-- end generated -->"


def generated() -> str:
    """Return the text between the markers: the finding's sentence, the figure and the table."""
    frame = results.load(STUDY)
    finding = data_size(frame[frame["ablation"] == "data_size"])
    done = frame[frame["status"] == "done"]
    record = results.read_record(results.run_folder(STUDY, done["run_id"].iloc[0])) if len(done) else None
    items = record["spec"]["evaluation"]["items"] if record else 0
    return "\n\n".join(
        (
            f"> {finding.sentence}",
            "![Exact match on held-out words against the number of training examples, for fine-tuning and "
            "distillation, with 95% intervals over seeds](results/lexicon/data_size.svg)",
            _markdown(finding.table),
            f"From the {len(done)} runs in [`results/lexicon`](results/lexicon): exact match in points and NLL in nats "
            f"per token, on {items:,} held-out words; means over seeds, paired differences with 95% t intervals.",
        )
    )


def replace(text: str, block: str) -> str:
    """Return a README with a new block between the markers.

    >>> replace(f"a {START} old {END} b", "new").splitlines()[2]
    'new'
    """
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{block}\n\n{END}{after}"


def main() -> None:
    """Draw the figure, keep the finding as JSON, and rewrite the README's block."""
    frame = results.load(STUDY)
    frame = frame[frame["ablation"] == "data_size"]
    figures.score_against_budget(frame).write_image(STUDY / "data_size.svg", width=860, height=400)
    finding = data_size(frame)
    content = {"sentence": finding.sentence, **finding.numbers}
    (STUDY / "finding.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(replace(readme.read_text(encoding="utf-8"), generated()), encoding="utf-8")


def _markdown(table: pd.DataFrame) -> str:
    columns = [str(column) for column in table.columns]
    rows = [map(format_cell, columns, row) for row in table.itertuples(index=False, name=None)]
    lines = [" | ".join(cells) for cells in (columns, ["---:"] * len(columns), *rows)]
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    main()
