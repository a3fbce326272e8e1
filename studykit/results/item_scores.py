"""The scores of a run's held-out items as a table: what a difference over items needs, without prompts and answers."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import json as arrow_json

from studykit.results.evaluations import find_evaluation, read_item_file

_BLOCK_BYTES = 2**24


def read_item_scores(run_folder: Path, eval_id: str | None = None) -> pd.DataFrame:
    """Return the scores of a run's held-out items.

    Args:
        run_folder: of the run.
        eval_id: the evaluation; None for the first one.

    Returns:
        A row for each item, by id, and a column of float64 for each score, NaN where an item lacks it. Damaged lines
        are left out; no rows where no items are stored.
    """
    found = find_evaluation(run_folder, eval_id)
    if found is None:
        return pd.DataFrame()
    scores = _read_whole(found.folder / "items.jsonl")
    return _read_each_line(found.folder / "items.jsonl") if scores is None else scores


def _read_whole(file: Path) -> pd.DataFrame | None:
    """Return the scores of a file in which each line is an item with numbers as scores; None for any other."""
    try:
        options = arrow_json.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES)
        table = arrow_json.read_json(file, options)
    except (OSError, pa.ArrowInvalid):
        return None
    kinds = {field.name: field.type for field in table.schema}
    if not pa.types.is_string(kinds.get("id")) or not pa.types.is_struct(kinds.get("scores")):
        return None
    known = [pa.types.is_floating(field.type) or pa.types.is_integer(field.type) for field in kinds["scores"].fields]
    if not all(known) or table["id"].null_count:
        return None
    columns = pa.Table.from_struct_array(table["scores"]).to_pandas().astype(float)
    scores = columns.set_axis(table["id"].to_pylist())
    return scores[~scores.index.duplicated(keep="last")]


def _read_each_line(file: Path) -> pd.DataFrame:
    items, _ = read_item_file(file)
    return pd.DataFrame.from_dict({item["id"]: item.get("scores", {}) for item in items}, orient="index", dtype=float)
