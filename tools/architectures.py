"""Try the package on a small random model of every causal architecture: `python -m tools.architectures [TYPE ...]`.

Each model type runs in a child process with a time limit. For every capability the result is `right`, `refused: ...`
(in one line, before training) or `wrong: ...`, which is a defect; a type that no small model can be made of is listed
with the reason. The results go to results/architectures/, and from there into docs/models.md.

    .venv/bin/python -m tools.architectures llama mamba --show       # try two, and print what came out
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "architectures" / "transformers.json"
TIME_LIMIT_S = 240
RIGHT, REFUSED, WRONG, NOT_MADE = "right", "refused", "wrong", "not made"


def main() -> int:
    """Try the given types, or all; return 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", help="model types of transformers; all where none is given")
    parser.add_argument("--show", action="store_true", help="print the outcomes in full")
    chosen = parser.parse_args()
    _prepare()
    from tools.small_models import model_types

    outcomes = {}
    for model_type in chosen.types or model_types():
        outcomes[model_type] = try_in_child(model_type)
        found = outcomes[model_type]
        lines = [f"{name}: {value}" for name, value in found.items() if chosen.show or not str(value).startswith(RIGHT)]
        print(model_type, *lines, sep="\n  ", flush=True)
    known = json.loads(RESULTS.read_text(encoding="utf-8"))["types"] if chosen.types and RESULTS.exists() else {}
    versions = {name: version(name) for name in ("transformers", "torch", "peft")}
    RESULTS.parent.mkdir(exist_ok=True)
    content = {"versions": versions, "types": dict(sorted((known | outcomes).items()))}
    RESULTS.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return any(str(value).startswith(WRONG) for found in outcomes.values() for value in found.values())


def _prepare() -> None:
    """Import what is slow to import once, before children are forked, and stay off the network."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    import peft  # noqa: F401
    import torch
    from transformers.utils import logging

    import tools.trials  # noqa: F401

    logging.set_verbosity_error()
    torch.set_num_threads(1)


def try_in_child(model_type: str) -> dict[str, str]:
    """Return the outcomes of a model type, from a process that may crash or hang."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send_outcomes, args=(model_type, sender))
    child.start()
    sender.close()
    outcomes: dict[str, str] = {}
    try:
        while receiver.poll(TIME_LIMIT_S):
            outcomes |= receiver.recv()
        outcomes["whole"] = f"{WRONG}: not done within {TIME_LIMIT_S} s"
    except EOFError:  # the child has closed its end
        child.join(10)
        if child.exitcode:
            outcomes["whole"] = f"{WRONG}: the process ended with exit code {child.exitcode}"
    child.kill()
    child.join()
    return outcomes


def _send_outcomes(model_type: str, sender: Any) -> None:
    import warnings

    warnings.simplefilter("ignore")
    sys.stderr = sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STUDYKIT_CACHE"] = f"{folder}/cache"
        for outcome in outcomes_of(model_type, Path(folder)):
            sender.send(outcome)
    sender.close()


def outcomes_of(model_type: str, folder: Path) -> Iterator[dict[str, str]]:
    """Yield the outcome of one capability after the other, by its name.

    Args:
        model_type: of transformers.
        folder: empty, for models and runs.
    """
    from studykit.errors import InputError, one_line
    from tools.trials import TRIALS, Subject

    try:
        subject = Subject.make(model_type, folder)
    except Exception as error:  # a class may refuse the sizes in any way
        yield {NOT_MADE: one_line(error) or type(error).__name__}
        return
    yield {"class": type(subject.model).__name__, "parameters": str(subject.parameters)}
    try:
        subject.load()
    except InputError as error:
        yield {"loading": f"{REFUSED}: {one_line(error)}".replace(str(folder), "")}
        return
    for name, trial in TRIALS.items():
        with _outcome(name, folder) as outcome:
            trial(subject)
        yield outcome


@contextmanager
def _outcome(name: str, folder: Path) -> Iterator[dict[str, str]]:
    """Fill in the outcome of a block: right, refused in one line, or wrong."""
    from studykit.errors import InputError, one_line

    outcome = {name: RIGHT}
    try:
        yield outcome
    except InputError as error:
        outcome[name] = f"{REFUSED}: {error}".replace(str(folder), "")
    except Exception as error:
        outcome[name] = f"{WRONG}: {type(error).__name__}: {one_line(error)}".replace(str(folder), "")


if __name__ == "__main__":
    sys.exit(main())
