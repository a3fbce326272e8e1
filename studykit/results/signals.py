"""What cached teachers kept for the runs of a study: measured beside the runs, shown in their rows.

    write_signal(study_folder, run_id, report)       # results/<study>/signals/<run_id>.json
    read_signals(study_folder)[run_id]["bytes_per_position"]
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studykit.results.layout import write_json

COLUMNS = ("bytes_per_position", "kept_mass", "smallest_kept_mass", "gradient_cosine", "cache_tokens")
"""What is kept of a report, in the words of `studykit.study.capture.CacheReport`."""


def write_signal(study_folder: str | Path, run_id: str, report: Mapping[str, Any]) -> None:
    """Put what a run's cached teacher kept beside the run."""
    folder = Path(study_folder) / "signals"
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{run_id}.json", {name: report[name] for name in COLUMNS})


def read_signals(study_folder: str | Path) -> dict[str, dict[str, Any]]:
    """Return what was measured by run id; a damaged file is as good as not measured, and is measured again."""
    found = {}
    for file in sorted((Path(study_folder) / "signals").glob("[!.]*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            found[file.stem] = {name: content[name] for name in COLUMNS}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found
