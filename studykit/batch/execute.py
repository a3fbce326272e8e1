"""Execute one cell of a batch: `python -m studykit.batch.execute results/<study>/cells/<cell_id>`.

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

from studykit import processes
from studykit.files import replacing
from studykit.imports import skip_address_grammar
from studykit.results.layout import try_lock, write_json


def main(folder: Path) -> int:
    """Run the cell of a folder, or wait for the process that has it; return 0 when it is done, 1 when it failed."""
    _die_with_parent()
    while (lock := try_lock(folder / "lock")) is None:
        time.sleep(0.2)
    with lock:
        return 0 if _is_done(folder / "record.json") else _run(folder)


def _run(folder: Path) -> int:
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
        "error": error and _without_places(error),
    }
    write_json(folder / "record.json", record)
    return 1 if error else 0


def _is_done(record: Path) -> bool:
    try:
        return json.loads(record.read_text(encoding="utf-8"))["status"] == "done"
    except (OSError, ValueError, KeyError):
        return False


def _execute(folder: Path, cell: dict[str, Any]) -> str | None:
    """Run the notebook through papermill; return the error in one line, or None."""
    place = Path(cell["notebooks"])
    place = place if place.is_absolute() else (folder / place).resolve()
    os.environ["STUDYKIT_CELL"] = str(folder.resolve())
    papermill = _papermill()
    handler = papermill.iorw.LocalHandler()
    handler.write = _write_whole  # papermill would rewrite the output notebook in place
    papermill.iorw.papermill_io.register("local", papermill.iorw.LocalHandler())
    papermill.iorw.papermill_io.register(str(folder.resolve()), handler)
    try:
        papermill.execute_notebook(
            str(place / f"{cell['notebook']}.ipynb"),
            str(folder.resolve() / "notebook.ipynb"),
            parameters=cell["parameters"],
            cwd=str(place),
            kernel_name="python3",
            language="python",
            progress_bar=False,
            log_output=True,
            execution_timeout=cell["timeout_s"],
            shutdown_kernel="immediate",  # everything is on disk by then; a graceful end takes half a second
        )
    except papermill.exceptions.PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}".partition("\n")[0]
    except Exception as error:
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    return None


def _papermill() -> Any:
    skip_address_grammar()
    import papermill
    import papermill.iorw

    return papermill


def _write_whole(text: str, path: str) -> None:
    with replacing(Path(path), durable=False) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _forget_paths(path: Path) -> None:
    """Drop papermill's metadata, which claims more than it knows, and this machine's folders from texts."""
    if not path.exists():
        return
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)
        part.metadata.pop("execution", None)
    for output in (output for code in notebook.cells for output in code.get("outputs", [])):
        for texts in (output, output.get("data", {})):
            for kind in {"text", "evalue", "traceback", "text/plain", "text/html"} & set(texts):
                texts[kind] = _without_places(texts[kind])
    with replacing(path) as temporary:
        nbformat.write(notebook, temporary)


def _without_places(text: Any) -> Any:
    """Shorten the folders of this machine in a text or a list of texts: code, interpreter and home."""
    if isinstance(text, list):
        return [_without_places(part) for part in text]
    places = {str(Path(__file__).parents[2]): ".", sys.prefix: "<python>", str(Path.home()): "~"}
    for place, short in sorted(places.items(), key=lambda p: -len(p[0])):
        text = text.replace(f"{place}/", f"{short}/") if len(place) > 1 else text
    return text


def _die_with_parent() -> None:
    """End this process and all it started once the batch that started it is gone, however it went."""
    parent = os.environ.pop("STUDYKIT_FOLLOW_PARENT", None)

    def watch() -> None:
        while str(os.getppid()) == parent:
            time.sleep(0.5)
        processes.signal_groups(processes.groups_of(os.getpid()), signal.SIGKILL)
        os.killpg(0, signal.SIGKILL)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
