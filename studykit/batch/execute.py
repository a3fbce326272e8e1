"""Execute one cell of a batch: `python -m studykit.batch.execute results/<study>/cells/<cell_id> <token>`.

`cell.json` in the cell's folder names notebook and parameters; the executed notebook and `record.json` are written
beside it. The record is written last and is the only proof that the cell is done: papermill's metadata calls a killed
notebook completed.

The token is that of the lease under which a worker (`studykit.batch.work`) runs the cell. Nothing is written once the
folder has another lease.
"""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from studykit import results
from studykit.batch import quick_nbformat
from studykit.executors._processes import end_with_parent
from studykit.files import replacing
from studykit.files.leases import Held, LeaseLost, is_held_by
from studykit.results.cells import finish_cell, kernel_arguments, read_cell_spec, start_cell

_OUTPUT_TIMEOUT_S = 60
"""For the rest of a notebook cell's output after its code has ended; with papermill's 4 s long outputs were lost."""


PUT_OFF = 75
"""Exit code of a cell that is neither done nor failed: it waits for a run that another process holds, was stopped by
SIGTERM, or lost its lease. It is to be executed again, by whichever worker takes it."""

_PUT_OFF_BY = (Held.__name__, LeaseLost.__name__)


def main(folder: Path, token: str) -> int:
    """Run the cell of a folder; return 0 when it is done, 1 when it failed, `PUT_OFF` when it is to be run again."""
    end_with_parent()
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))  # the kernel receives it, too, and ends
    cell = read_cell_spec(folder)
    started = time.monotonic()
    start_cell(folder)
    error = _execute(folder, cell, token)
    if stopped or not is_held_by(folder, token) or (error or "").partition(":")[0] in _PUT_OFF_BY:
        print(f"put off: {error or 'stopped'}", flush=True)
        return PUT_OFF
    _clean(folder / "notebook.ipynb")
    error = error and _shorten_paths(error)
    finish_cell(folder, "failed" if error else "done", wall_s=time.monotonic() - started, error=error)
    return 1 if error else 0


def _execute(folder: Path, cell: results.CellSpec, token: str) -> str | None:
    """Run the notebook through papermill; return the error in one line, or None."""
    notebooks = (folder / cell.notebooks).resolve()  # a path that is absolute stays so
    quick_nbformat.import_nbformat()
    import papermill
    from papermill.iorw import papermill_io

    papermill_io.register(str(folder.resolve()), WholeFiles(folder, token))
    try:
        papermill.execute_notebook(
            str(notebooks / f"{cell.notebook}.ipynb"),
            str(folder.resolve() / "notebook.ipynb"),
            parameters=cell.parameters,
            cwd=str(notebooks),
            kernel_name="python3",
            language="python",
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            execution_timeout=cell.timeout_s,
            iopub_timeout=_OUTPUT_TIMEOUT_S,
            extra_arguments=[f"--IPKernelApp.extra_extensions={quick_nbformat.__name__}", *kernel_arguments(folder)],
            shutdown_kernel="immediate",  # everything is on disk by then; a graceful end takes half a second
        )
    except papermill.PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}".partition("\n")[0]
    except Exception as error:
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    return None


class WholeFiles:
    """How papermill reads and writes under the cell's folder: a file is replaced in one step, never seen half written.

    papermill writes the notebook again after each of its cells. Its handlers are any objects with these four methods.

    Args:
        folder: of the cell.
        token: of the lease without which nothing is written.
    """

    def __init__(self, folder: Path, token: str):
        self._folder, self._token = folder, token

    def read(self, path: str) -> str:
        """Return the text of a file."""
        return Path(path).read_text(encoding="utf-8")

    def write(self, text: str, path: str) -> None:
        """Replace a file.

        Raises:
            LeaseLost: the folder has another lease.
        """
        if not is_held_by(self._folder, self._token):
            raise LeaseLost(f"cell {self._folder.name} is another worker's by now")
        with replacing(Path(path), durable=False) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def listdir(self, path: str) -> list[str]:
        """Return the paths in a folder."""
        return [str(child) for child in Path(path).iterdir()]

    def pretty_path(self, path: str) -> str:
        """Return the path as shown in logs."""
        return path


def _clean(path: Path) -> None:
    """Drop papermill's metadata, which claims more than it knows, and this machine's folders from the outputs."""
    if not path.exists():
        return
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for part in (notebook, *notebook["cells"]):
        part["metadata"].pop("papermill", None)
        part["metadata"].pop("execution", None)
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", [])):
        for texts in (output, output.get("data", {})):
            for kind in {"text", "evalue", "traceback", "text/plain", "text/html"} & set(texts):
                texts[kind] = _shorten_paths(texts[kind])
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _shorten_paths(text: Any) -> Any:
    """Shorten the folders of this machine in a text or a list of texts: code, interpreter and home."""
    if isinstance(text, list):
        return [_shorten_paths(part) for part in text]
    folders = {str(Path(__file__).parents[2]): ".", sys.prefix: "<python>", str(Path.home()): "~"}
    for folder, short in sorted(folders.items(), key=lambda pair: -len(pair[0])):
        text = text.replace(f"{folder}/", f"{short}/") if len(folder) > 1 else text
    return text


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2]))  # papermill changes the working folder
