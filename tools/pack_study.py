"""Bring a finished study into results/, small enough to be committed: `python -m tools.pack_study FOLDER`.

The cells and the runs that they name are copied, without weights, teacher caches, checkpoints and logs. Curves and
answers of trials are left out, and executed notebooks lose their indentation.
With `--partial` cells that are not done are left out, and the trials that they finished are kept: they are in no
finding, and the batch goes on from them. Then name the study in .gitignore and in the README's tree, and run
`python -m tools.pages README.md docs/findings.md`. The folders of the runs become one archive, which is unpacked where
the study is read.
"""

import argparse
import json
import shutil
from pathlib import Path

from studykit import results
from studykit.errors import InputError
from studykit.results.archive import archive_runs

RESULTS = Path(__file__).parents[1] / "results"
_HEAVY = ("model", "adapter", "checkpoints", "teacher-cache", "trackers")
_TRANSIENT = ("lock", "lease-*", "log.txt", "status.json", "index.jsonl")
_OF_REPORTED_RUNS = ("items.jsonl", "metrics.jsonl")


def main() -> None:
    """Pack the study that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of a study; without --partial all of its cells are done")
    parser.add_argument("--to", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--partial", action="store_true", help="of cells that are not done, keep the trials alone")
    chosen = parser.parse_args()
    print(f"{pack_study(chosen.study, chosen.to, partial=chosen.partial) / 1e6:.1f} MB")


def pack_study(study: Path, target_root: Path, *, partial: bool = False) -> int:
    """Copy a study, and return the bytes of what was copied.

    Args:
        study: folder of the study.
        target_root: where a folder of the same name is made.
        partial: whether cells may be unfinished; they are left out, but for the trials that they finished.

    Raises:
        InputError: no cell is done, or one is not and `partial` is false.
    """
    cells = results.cells(study)
    left = {cell.cell_id: cell for cell in cells if cell.status != "done"}
    if (left and not partial) or len(left) == len(cells):
        raise InputError(f"{study}: not done: {', '.join(left) or 'it has no cells'}")
    runs = results.load(study, trials=True)
    trials = set(runs["run_id"]) - set(results.load(study)["run_id"])
    finished = trials & set(runs.loc[runs["status"] == "done", "run_id"])
    named = {run for cell in cells for run in cell.runs if cell.cell_id not in left or run in finished}
    others = [run.name for run in (study / "runs").iterdir() if run.name not in named]
    target = target_root / study.name
    shutil.copytree(study, target, ignore=shutil.ignore_patterns(*_HEAVY, *_TRANSIENT, *others, *left))
    for file in sorted(target.glob("runs/*/**/*.jsonl")):
        if file.relative_to(target).parts[1] in trials and file.name in _OF_REPORTED_RUNS:
            file.unlink()
    for notebook in target.glob("cells/*/notebook.ipynb"):
        without_indentation(notebook)
    archive_runs(target)
    return sum(file.stat().st_size for file in target.rglob("*") if file.is_file())


def without_indentation(notebook: Path) -> None:
    """Write a notebook again in the same words on one line, in three fifths of the bytes."""
    content = json.loads(notebook.read_text("utf-8"))
    notebook.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main()
