"""Size and quality of the cached teachers of a study: measured after the runs, shown in their rows.

write_signal(study_folder, run_id, report)       # results/<study>/signals/<run_id>.json
read_signals(study_folder)[run_id]["bytes_per_position"]
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studykit.files import json_object, parse_json, write_json

COLUMNS = ("bytes_per_position", "kept_mass", "smallest_kept_mass", "gradient_cosine", "cache_tokens")
"""The fields of `studykit.study.capture.CacheReport` that are stored."""


def write_signal(study_folder: str | Path, run_id: str, report: Mapping[str, Any]) -> None:
    """Store the measurements of a run's cached teacher in the study."""
    folder = Path(study_folder) / "signals"
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{run_id}.json", {name: report[name] for name in _columns(report)})


def read_signals(study_folder: str | Path) -> dict[str, dict[str, Any]]:
    """Return the measurements by run id; a damaged file is left out, and its run is measured again."""
    found = {}
    for file in sorted((Path(study_folder) / "signals").glob("[!.]*.json")):
        try:
            content = json_object(parse_json(file.read_text(encoding="utf-8")))
            found[file.stem] = {name: _number(content[name]) for name in _columns(content)}
        except (OSError, ValueError, KeyError):
            continue
    return found


def _columns(report: Mapping[str, Any]) -> list[str]:
    """Return the columns of a report; there is no gradient to compare with where a server computed."""
    return [name for name in COLUMNS if name != "gradient_cosine" or name in report]


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"a number is expected, received {value!r:.20}")
    return value
