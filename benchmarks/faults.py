"""Wrong input, tried at random: every specification and every data file is accepted, or refused in one short line.

    python -m benchmarks.faults                                     # 20,000 specifications, 5,000 files
    python -m benchmarks.faults --specifications 500 --files 200    # the short form, which the tests run

A specification is one of a method on a few examples, with up to three of its values replaced by odd ones, removed,
renamed or moved; it is read and pinned as before a run. A data file has a few records in a tool's layout, changed in
the same ways, and bytes of it changed, cut or doubled; a run on it is pinned. What is counted: accepted, refused,
refused in a line that is too long or in several, an exception of another kind, and no end within a few seconds.
"No end" is measured in processor time, so that a crowded machine finds none, and in twelve times as much wall time.
The counts go to results/benchmarks/faults-cpu.json; the first example of each kind of fault is printed.
"""

import argparse
import copy
import json
import logging
import os
import random
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measurement import write_report

_LIMIT_S = 5.0
_MOST_WALL = 12
_LONGEST = 400
_DEEP, _DEEPEST = 2000, 20


class _Endless(BaseException):
    """Raised by the alarm; no `except Exception` catches it."""


@dataclass
class Counts:
    """How many inputs ended in which way, and one example of each fault.

    Attributes:
        kinds: number of inputs by ending.
        faults: by place and type of the exception: number, and the first input.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def wrong(self) -> int:
        """Return the number of inputs that were neither accepted nor refused in one short line."""
        return sum(self.kinds[kind] for kind in ("long refusal", "exception", "endless"))

    def add(self, kind: str, fault: str = "", example: object = "") -> None:
        """Count one input."""
        self.kinds[kind] += 1
        if fault:
            self.faults[fault] += 1
            with suppress(RecursionError):
                self.examples.setdefault(fault, f"{example!a:.600}")

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"endings": dict(self.kinds), "faults": dict(self.faults.most_common(40))}


def deep(levels: int = _DEEP) -> list[Any]:
    """Return a list in a list in a list ..."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


_NUMBERS = [0, 1, -1, 2, 3, 0.5, 1e-5, -0.1, 1e308, 2**31, 2**32, 2**63, 2**64, 2**70, -(2**70), 10**20, 10**4000]
_NUMBERS += [float("nan"), float("inf"), -float("inf"), None, True, False]
_NAMES = ["auto", "uniform", "kd", "sft", "jsd", "lexicon", "lexicon/teacher-a", "lexicon/base-small", "jsonl", "user"]
_TEXTS = ["", " ", "x", "1", "1e-5", "true", "null", "a\nb", "a\0b", "\ud83d", "é😀", "x" * 3000, "\x1b[2J", "<|end|>"]
_PATHS = ["../..", "/", ".", "~", "~no-such-user/x", "0123456789ab", "{", "{split}", "{0}", "%s", "a+b", "+"]
_LISTS = [[], [None], [1], ["x"], [[]], [{}], [1] * 500, ["exact_match", "exact_match"], ("nll",)]
_OBJECTS = [
    {},
    {"a": 1},
    {"": None},
    {"name": "x"},
    {"model_type": "llama"},
    {"x" * 500: 1},
    {"a\nb": 1},
    {"\ud83d": 1},
]
ODD = [*_NUMBERS, *_NAMES, *_TEXTS, *_PATHS, *_LISTS, *_OBJECTS, deep()]


def odd_value(generator: random.Random) -> Any:
    """Return a value that is seldom right."""
    drawn = generator.choice((*ODD, generator.random(), generator.randint(-5, 300)))
    return drawn if drawn is ODD[-1] else copy.deepcopy(drawn)  # a copy of the deepest would exceed Python's stack


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values inside a value, to a depth that no right input has."""
    if len(path) > _DEEPEST:
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def mutate(plain: dict[str, Any], generator: random.Random) -> dict[str, Any]:
    """Return a copy with one to three faults."""
    changed = copy.deepcopy(plain)
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        found = list(places(changed))
        if found:
            _change(changed, generator.choice(found), found, generator)
    return changed


def _change(changed: dict[str, Any], path: tuple[Any, ...], found: list[Any], generator: random.Random) -> None:
    parent = _at(changed, path[:-1])
    key, odd = path[-1], odd_value(generator)
    action = generator.choice(("replace", "replace", "replace", "remove", "rename", "add", "wrap", "move", "double"))
    if action == "remove":
        del parent[key]
    elif action == "rename" and isinstance(parent, dict):
        parent[generator.choice((f"{key}s", str(key)[1:], str(key).upper(), "x", ""))] = parent.pop(key)
    elif action == "add" and isinstance(parent[key], dict):
        parent[key][generator.choice(("x", "options", "seed", "temperature", "loss", "role", "weight"))] = odd
    elif action == "wrap":
        parent[key] = generator.choice(([parent[key]], {str(key): parent[key]}, f"{type(parent[key])}"))
    elif action == "move":
        with suppress(RecursionError):
            parent[key] = copy.deepcopy(_at(changed, generator.choice(found)))
    elif action == "double" and isinstance(parent[key], list):
        parent[key] = parent[key] * 2
    else:
        parent[key] = odd


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


_BYTES = (b"\0", b"\xff", b"\n", b"\r", b'"', b"{", b"[" * 3000, b"\\ud83d", b"\xef\xbb\xbf", b"9" * 5000)


def damage(content: bytes, generator: random.Random) -> bytes:
    """Return bytes with some changed, cut, doubled, or put in."""
    at = generator.randrange(len(content) + 1)
    end = min(len(content), at + generator.randint(1, 30))
    some = generator.choice(_BYTES)
    return generator.choice(
        (content[:at], content[at:], content[:at] + content[end:], content[:end] + content[at:], content[:at] + some)
        + (content[:at] + some + content[at:], content[:at] + bytes([generator.randrange(256)]) + content[end:])
    )


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `_Endless` in a block that takes more processor time, or sleeps for much longer."""

    def ring(number: int, frame: Any) -> None:
        raise _Endless

    timers = ((signal.ITIMER_PROF, signal.SIGPROF, seconds), (signal.ITIMER_REAL, signal.SIGALRM, _MOST_WALL * seconds))
    before = {number: signal.signal(number, ring) for _, number, _ in timers}
    for timer, _, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for timer, number, _ in timers:
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


def attempt(work: Callable[[], object], counts: Counts, example: object) -> None:
    """Do something that may refuse its input, and count how it ended."""
    from studykit.errors import InputError

    try:
        with limited(_LIMIT_S):
            work()
    except InputError as error:
        line = str(error)
        is_short = len(line) <= _LONGEST and "\n" not in line and line.strip()
        counts.add("refused" if is_short else "long refusal", "" if is_short else f"long: {line[:60]}", example)
    except _Endless as error:
        counts.add("endless", f"endless at {_place(error)}", example)
    except Exception as error:
        counts.add("exception", f"{type(error).__name__} at {_place(error)}: {str(error)[:80]!a}", example)
    else:
        counts.add("accepted")


def _place(error: BaseException) -> str:
    """Return the last line of this package that an exception went through."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if f"{os.sep}studykit{os.sep}" in frame.filename
    ]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "elsewhere"


TINY = {
    **{"model_type": "llama", "vocab_size": 160, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0},
    **{"bos_token_id": 1, "eos_token_id": 2},
}


def base_specifications(data_file: Path) -> list[dict[str, Any]]:
    """Return one specification for each method, with every part of a specification in some of them."""
    from studykit.methods import METHODS
    from studykit.samplers import SAMPLERS, models_of

    source = {"source": "jsonl", "options": {"path": str(data_file)}, "split": "train"}
    samplers = [name for name in SAMPLERS.names() if not models_of(name)]
    made = []
    for number, method in enumerate(METHODS.names()):
        options = {name: o.default for name, o in METHODS.options(method).items() if not o.required}
        sampler = samplers[number % len(samplers)]
        budget = {"examples": 8, "sampler": sampler, "seed": 0}
        stage = {
            **{"data": source | {"budget": budget}, "method": method, "method_options": options, "steps": 2},
            **{"batch_size": 2, "learning_rate": 0.01, "lr_scheduler_type": "cosine", "max_length": 64},
            **{"validation": source | {"budget": {"examples": 2}}, "warmup_ratio": 0.1, "weight_decay": 0.0},
        }
        evaluation = {
            "data": source | {"split": "test"},
            "items": 2,
            "scorers": ["exact_match", "nll"],
            "max_new_tokens": 4,
        }
        student = {
            "name": "lexicon/tokenizer",
            "random_config": TINY,
            "lora": {"lora_r": 2, "lora_target_modules": ["q_proj"]},
        }
        if method == "miniplm":
            options["reference"] = "lexicon/reference"
        spec = {"student": student, "stages": [stage], "evaluation": evaluation, "seed": 0}
        made.append(spec | {"teacher": {"name": "lexicon/teacher-a"}})
    return made


def base_files() -> list[list[dict[str, Any]]]:
    """Return records in the layouts of the common tools, three to a file."""
    ask, answer = {"role": "user", "content": "Say c a t"}, {"role": "assistant", "content": "K AE T"}
    records = [
        {"messages": [{"role": "system", "content": "Speak."}, ask, answer, ask, answer | {"weight": 0}, ask, answer]},
        {
            "prompt": "Say d o g",
            "completion": "D AO G",
            "id": "dog",
            "source": "words",
            "annotator": "a",
            "split": "train",
        },
        {"prompt": [ask], "completion": [answer]},
        {"conversations": [{"from": "human", "value": "Say c a t"}, {"from": "gpt", "value": "K AE T"}], "system": "S"},
        {"instruction": "Say", "input": "c a t", "output": "K AE T", "system": "Speak.", "history": [["a", "b"]]},
        {"text": "a plain document"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Say c a t"}]}, answer | {"train": True}]},
    ]
    return [[records[i], records[(i + 1) % len(records)], records[(i + 2) % len(records)]] for i in range(len(records))]


def try_specifications(count: int, seed: int, folder: Path) -> Counts:
    """Read and pin specifications with random faults."""
    from studykit.data import Inputs
    from studykit.spec import RunSpec
    from studykit.study.pin import pin

    data_file = folder / "words.jsonl"
    lines = [
        {"prompt": f"Say {w}", "completion": "K AE T", "split": "train" if n < 12 else "test"}
        for n, w in enumerate("abcdefghijklmnop")
    ]
    data_file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    generator, counts, inputs = random.Random(seed), Counts(), Inputs(folder / "results")
    bases = base_specifications(data_file)
    for _ in range(count):
        plain = mutate(generator.choice(bases), generator)
        attempt(lambda plain=plain: pin(RunSpec.parse(plain), inputs), counts, plain)
    return counts


def try_files(count: int, seed: int, folder: Path) -> Counts:
    """Pin a specification on data files with random faults."""
    from studykit.data import Inputs
    from studykit.spec import RunSpec
    from studykit.study.pin import pin

    generator, counts, inputs = random.Random(seed), Counts(), Inputs(folder / "results")
    base = next(spec for spec in base_specifications(folder) if spec["stages"][0]["method"] == "sft")
    for number in range(count):
        records = generator.choice(base_files())
        at = generator.randrange(len(records))
        records[at] = mutate(records[at], generator)
        with suppress(RecursionError, ValueError):  # some have no JSON text
            content = "\n".join(json.dumps(record) for record in records).encode()
            if generator.random() < 0.3:
                content = damage(content, generator)
            file = folder / f"faulty-{number}.jsonl"
            file.write_bytes(content)
            data = {"source": "jsonl", "options": {"path": str(file)}, "split": "train"}
            plain = base | {"stages": [base["stages"][0] | {"data": data, "max_length": 512}], "evaluation": None}
            attempt(lambda plain=plain: pin(RunSpec.parse(plain), inputs), counts, content)
    return counts


def main() -> int:
    """Try both; write the counts, and return 1 where anything was neither accepted nor refused in one short line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specifications", type=int, default=20_000)
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="cpu", help="of the report")
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as name:
        os.environ["STUDYKIT_CACHE"] = str(Path(name) / "cache")
        tried = {
            "specifications": try_specifications(chosen.specifications, chosen.seed, Path(name)),
            "files": try_files(chosen.files, chosen.seed, Path(name)),
        }
    for what, counts in tried.items():
        print(what, dict(counts.kinds))
        for fault, number in counts.faults.most_common():
            print(f"  {number:6} {fault}\n         {counts.examples.get(fault, '')}")
    sizes = {"specifications": chosen.specifications, "files": chosen.files, "seed": chosen.seed}
    write_report("faults", chosen.name, sizes, tried={what: counts.as_dict() for what, counts in tried.items()})
    return 1 if any(counts.wrong for counts in tried.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
