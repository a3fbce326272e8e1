"""Times beside training: start of the package, of the command and of a notebook, the table of runs, the cache.

    python -m benchmarks.overheads --runs 10000 --repeats 5

`python`: an empty interpreter, for comparison. `import studykit` and `studykit --help`: whole processes. `notebook`: an
empty notebook, through the local executor; `notebook, imports`: one that imports what notebook 01 does; `notebook,
pinned`: the cells of notebook 01 until its arms are checked and pinned. `table, first`: `results.load` of synthetic
runs, copies of a committed one under other ids, without an index; `table`: the same from the index. `cache`: the
signals of a cached teacher for the lexicon's sequences. The seconds of each are written to
results/benchmarks/overheads-cpu.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measurement import ROOT, run_in_turns, write_report

_BATCH_ROWS = 64
_TOP_K = 16
_HELP = "import sys; sys.argv = ['studykit', '--help']; from studykit.cli import main; main()"
_STARTS = {"python": "pass", "import studykit": "import studykit", "studykit --help": _HELP}


def main() -> None:
    """Measure everything in turns, or one thing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000, help="synthetic runs in the table")
    parser.add_argument("--examples", type=int, default=4096, help="sequences in the cache")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--name", default="cpu", help="of the report")
    parser.add_argument("--one", choices=[*_STARTS, *OTHERS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        outcome = time_start(arguments.one) if arguments.one in _STARTS else OTHERS[arguments.one](arguments)
        print(json.dumps(outcome))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_runs(Path(folder) / "table", arguments.runs)
        same = ["--folder", folder, "--examples", str(arguments.examples)]
        commands = {
            name: [sys.executable, "-m", "benchmarks.overheads", "--one", name, *same] for name in [*_STARTS, *OTHERS]
        }
        outcomes = run_in_turns(
            commands, arguments.repeats, {"STUDYKIT_CACHE": f"{folder}/cache", "CUDA_VISIBLE_DEVICES": ""}
        )
    settings = {"runs": arguments.runs, "examples": arguments.examples, "batch": _BATCH_ROWS, "top_k": _TOP_K}
    write_report("overheads", arguments.name, settings, contestants=outcomes)


def time_start(name: str) -> dict[str, float]:
    """Return the wall time of a whole process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", _STARTS[name]], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return {"seconds": time.perf_counter() - started}


def time_notebook(arguments: argparse.Namespace, *cells: str) -> dict[str, float]:
    """Return the wall time of a batch of one notebook, which has these cells after its parameters."""
    import nbformat.v4 as v4
    import yaml

    from studykit.batch import grid as batch
    from studykit.batch.work import run_batch
    from studykit.executors.local import Local

    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        (folder / "batches").mkdir()
        code = v4.new_code_cell('study = "empty"\nresults = "results"', metadata={"tags": ["parameters"]})
        notebook = v4.new_notebook(cells=[code, *map(v4.new_code_cell, cells)])
        (folder / "empty.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
        (folder / "batches" / "one.yaml").write_text(yaml.safe_dump([{"notebook": "empty"}]), encoding="utf-8")
        started = time.perf_counter()
        planned = batch.plan("one", folder=folder, results_root=folder / "results")
        failed = run_batch(planned, Local())
        seconds = time.perf_counter() - started
        if failed:
            raise RuntimeError(str(batch.failures(failed)))
    return {"seconds": seconds}


def time_imports(arguments: argparse.Namespace) -> dict[str, float]:
    """Return the wall time of a batch of one notebook with the imports of notebook 01."""
    lines = [line for cell in _cells() for line in cell.splitlines() if line.startswith(("from ", "import "))]
    return time_notebook(arguments, "\n".join(lines))


def time_pinned(arguments: argparse.Namespace) -> dict[str, float]:
    """Return the wall time of a batch of one notebook with the cells of notebook 01 until its arms are pinned."""
    return time_notebook(arguments, *_cells()[:2], _PIN)


_PIN = """from studykit.data import Inputs
from studykit.spec import RunSpec
from studykit.study.pin import pin
inputs = Inputs(results)
pinned = [pin(RunSpec.parse(arm), inputs) for arm in arms.values()]"""


def _cells() -> list[str]:
    """Return the code of notebook 01."""
    notebook = json.loads((ROOT / "notebooks" / "01_data_size.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def write_runs(study: Path, count: int) -> None:
    """Write `count` finished runs: a committed one with other ids, seeds and scores, and their evaluations."""
    from studykit.files import seal, unseal

    source = min((ROOT / "results" / "lexicon" / "runs").glob("*/record.json")).parent
    [evaluated] = (source / "evaluations").iterdir()
    files = (source / "record.json", evaluated / "record.json")
    record, scored = (unseal(json.loads(file.read_text(encoding="utf-8"))) for file in files)
    study.mkdir()
    shutil.copy(source.parents[1] / "study.json", study)
    for number in range(count):
        run = study / "runs" / f"{number:012x}"
        evaluation = run / "evaluations" / evaluated.name
        evaluation.mkdir(parents=True)
        record["run_id"] = scored["run_id"] = run.name
        record["spec"]["seed"], scored["metrics"]["exact_match"] = number, number / count
        shutil.copy(evaluated / "evaluation.json", evaluation)
        (run / "spec.json").write_text(json.dumps(record["spec"]), encoding="utf-8")
        for folder, content in ((run, record), (evaluation, scored)):
            (folder / "record.json").write_text(json.dumps(seal(content)), encoding="utf-8")


def time_first_table(arguments: argparse.Namespace) -> dict[str, float]:
    """Return the time to read every record and leave an index."""
    (arguments.folder / "table" / "index.jsonl").unlink(missing_ok=True)
    return time_table(arguments)


def time_table(arguments: argparse.Namespace) -> dict[str, float]:
    """Return the time to load the table of runs, and the number of runs in it."""
    from studykit import results

    started = time.perf_counter()
    frame = results.load(arguments.folder / "table")
    return {"seconds": time.perf_counter() - started, "runs": len(frame)}


def time_cache(arguments: argparse.Namespace) -> dict[str, float]:
    """Return how fast a cached teacher gives signals, and the time to capture the sequences that are not stored yet."""
    from studykit.chat import encode
    from studykit.collate import each_example_once
    from studykit.models.names import Models
    from studykit.sources import load_examples
    from studykit.spec import Teacher
    from studykit.teacher import open_teacher

    model = Models().find("lexicon/teacher-a")
    tokenizer = model.tokenizer
    examples = load_examples("lexicon", "train", {"tasks": ["pronounce"]})[: arguments.examples]
    encoded = encode(examples, tokenizer, None)
    batches = each_example_once(encoded, _BATCH_ROWS, tokenizer.pad_token_id)
    teacher = open_teacher(Teacher(name=model.name, top_k=_TOP_K), model, tokenizer, len(tokenizer))
    started = time.perf_counter()
    teacher.prepare(encoded)
    prepared = time.perf_counter()
    for batch in batches:
        teacher.signal(batch)
    seconds = time.perf_counter() - prepared
    positions = sum(len(batch.target) for batch in batches)
    return {"seconds": seconds, "positions_per_s": positions / seconds, "prepare_s": prepared - started}


OTHERS = {
    "notebook": time_notebook,
    "notebook, imports": time_imports,
    "notebook, pinned": time_pinned,
    "table, first": time_first_table,
    "table": time_table,
    "cache": time_cache,
}


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
