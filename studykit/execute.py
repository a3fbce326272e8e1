"""Execute one cell of a batch: `python -m studykit.execute results/<study>/cells/<cell_id>`.

The cell's folder says what to run (`cell.json`); the executed notebook and `record.json` are left beside it. The record
is written last and is the only proof that the cell is done: papermill's own metadata calls a killed notebook completed.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import LocalHandler, papermill_io

from studykit.caching import replacing
from studykit.results.writing import try_lock, write_json


def main(folder: Path) -> int:
    """Run the cell of a folder; return 0 when it is done, 1 when it failed, 3 when another process has it."""
    lock = try_lock(folder / "lock")
    if lock is None:
        return 3
    _die_with_parent()
    cell = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
    (folder / "record.json").unlink(missing_ok=True)
    (folder / "runs.txt").unlink(missing_ok=True)
    started = time.monotonic()
    error = _execute(folder, cell)
    _forget_paths(folder / "notebook.ipynb")
    runs = (folder / "runs.txt").read_text(encoding="utf-8").split() if (folder / "runs.txt").exists() else []
    (folder / "runs.txt").unlink(missing_ok=True)
    record = {
        "status": "failed" if error else "done",
        "runs": list(dict.fromkeys(runs)),
        "wall_s": round(time.monotonic() - started, 1),
        "error": error,
    }
    write_json(folder / "record.json", record)
    return 1 if error else 0


def _execute(folder: Path, cell: dict[str, Any]) -> str | None:
    """Run the notebook through papermill; return the error in one line, or None."""
    place = Path(cell["notebooks"])
    place = place if place.is_absolute() else (folder / place).resolve()
    os.environ["STUDYKIT_CELL"] = str(folder.resolve())
    papermill_io.register("local", LocalHandler())
    papermill_io.register(str(folder.resolve()), _WholeFiles())
    try:
        papermill.execute_notebook(
            str(place / f"{cell['notebook']}.ipynb"),
            str(folder.resolve() / "notebook.ipynb"),
            parameters=cell["parameters"],
            cwd=str(place),
            kernel_name="python3",
            progress_bar=False,
            log_output=True,
            execution_timeout=cell["timeout_s"],
        )
    except PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}".partition("\n")[0]
    except Exception as error:
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    return None


class _WholeFiles(LocalHandler):
    """Put every version of the output notebook in place whole; papermill would rewrite it in place."""

    def write(self, buf: str, path: str) -> None:
        with replacing(Path(path)) as temporary:
            temporary.write_text(buf, encoding="utf-8")


def _forget_paths(path: Path) -> None:
    """Drop papermill's metadata, which names this machine's folders and claims more than it knows."""
    if not path.exists():
        return
    notebook = nbformat.read(path, as_version=4)
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)
        part.metadata.pop("execution", None)
    with replacing(path) as temporary:
        nbformat.write(notebook, temporary)


def _die_with_parent() -> None:
    """End this process and its kernel once the batch that started it is gone, however it went."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.killpg(0, signal.SIGKILL)

    if os.environ.get("STUDYKIT_FOLLOW_PARENT") == "1":
        threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
