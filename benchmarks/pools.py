"""A file of a million conversations: its index on disk, the first training step from it, and the check of a batch.

    python -m benchmarks.pools --conversations 939343 --budget 10000 --cells 15

The file has the shape of a large mixture for instruction tuning: 19 sources of unequal size, one to four turns, answers
of log-normal length, a few emoji. `index`: from the file to the index, without one before. `first step`: a process from
its start to the end of the first optimizer step of a small random model on a uniform budget, with the index there.
`cells`: a process that pins that many budgets of 100, 200, ... conversations, with the index there. All processes are
measured whole, imports included, in wall and processor seconds; the peak is of resident memory, mapped pages of the
index included. The numbers are written to results/benchmarks/pools-cpu.json.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.measurement import read_memory_gib, run_in_turns, write_report

_SOURCES, _WORDS, _VOCABULARY = 19, 20_000, 8192
_MAX_CHARACTERS, _MAX_TOKENS = 12_000, 8192
_SHAPE = {
    "model_type": "llama",
    "vocab_size": _VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": _MAX_TOKENS,
}


def main() -> None:
    """Make the file and the model, and measure everything in separate processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=939_343)
    parser.add_argument("--budget", type=int, default=10_000, help="conversations that are drawn")
    parser.add_argument("--cells", type=int, default=15, help="specifications that are pinned together")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--name", default="cpu", help="of the report")
    parser.add_argument("--folder", type=Path, help="for file and cache; a temporary one by default")
    parser.add_argument("--one", choices=WORKS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_measured(arguments)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        write_file(folder / "train.jsonl", arguments.conversations)
        same = ["--folder", name, "--budget", str(arguments.budget), "--cells", str(arguments.cells)]
        works = {work: [sys.executable, "-m", "benchmarks.pools", "--one", work, *same] for work in WORKS}
        environment = {"STUDYKIT_CACHE": f"{name}/cache", "CUDA_VISIBLE_DEVICES": ""}
        outcomes = run_in_turns(works, arguments.repeats, environment)
        gib = (folder / "train.jsonl").stat().st_size / 2**30
    settings = {"conversations": arguments.conversations, "file_gib": round(gib, 2)}
    settings |= {"budget": arguments.budget, "cells": arguments.cells}
    write_report("pools", arguments.name, settings, contestants=outcomes)


def write_file(file: Path, count: int) -> None:
    """Write conversations, and a tokenizer and a random model beside them."""
    text = _make_text(2**22)
    with file.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in _make_lines(text, count))
    _make_model(file.parent / "model", text[: 2**20])


def _make_text(characters: int) -> str:
    """Return words with frequencies as in a language, in random order."""
    generator = np.random.default_rng(0)
    syllables = [consonant + vowel for consonant in "bcdfghjklmnprstvw" for vowel in ("a", "e", "i", "o", "u", "ar")]
    words = ["".join(generator.choice(syllables, size=generator.integers(1, 5))) for _ in range(_WORDS)]
    shares = 1 / np.arange(2, _WORDS + 2)
    drawn = generator.choice(_WORDS, size=characters // 4, p=shares / shares.sum())
    return " ".join(words[i] for i in drawn)[:characters]


def _make_lines(text: str, count: int) -> Iterator[dict[str, Any]]:
    generator = np.random.default_rng(1)
    shares = 1 / np.arange(1, _SOURCES + 1)
    sources = generator.choice(_SOURCES, size=count, p=shares / shares.sum())
    turns = generator.choice([1, 2, 3, 4], size=count, p=[0.8, 0.1, 0.06, 0.04])
    emoji = generator.random(count) < 0.03
    for number in range(count):
        lengths = np.exp(generator.normal([5.5, 7.0], 1.0, size=(turns[number], 2)))
        lengths = np.minimum(lengths, _MAX_CHARACTERS / turns[number] / 2).astype(int) + 10
        starts = generator.integers(0, len(text) - _MAX_CHARACTERS, size=lengths.shape)
        messages = [
            {"role": role, "content": text[start : start + length] + (" 🙂" if emoji[number] else "")}
            for pair in zip(starts.tolist(), lengths.tolist(), strict=True)
            for role, start, length in zip(("user", "assistant"), *pair, strict=True)
        ]
        yield {"id": f"conversation-{number}", "messages": messages, "source": f"source-{sources[number]}"}


def _make_model(folder: Path, text: str) -> None:
    """Save a tokenizer of bytes and words that is trained on a text, and a random model with its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special, alphabet = ["<pad>", "<end>", "<user>", "<assistant>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([text], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>")
    tokenizer.add_special_tokens({"additional_special_tokens": special[2:]})
    tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"
    fields = dict(_SHAPE)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _measured(arguments: argparse.Namespace) -> dict[str, float]:
    """Do one work, and return seconds since the start of this process, its peak memory, and how often it parsed."""
    from studykit.sources import jsonl

    parsed, read = [], jsonl.read_records
    jsonl.read_records = lambda file: parsed.append(file) or read(file)
    WORKS[arguments.one](arguments)
    seconds = time.time() - psutil.Process().create_time()
    gib = round(read_memory_gib("cpu", peak=True), 3)
    return {"seconds": round(seconds, 2), "cpu_s": round(time.process_time(), 2), "gib": gib, "parsed": len(parsed)}


def index(arguments: argparse.Namespace) -> None:
    """Parse the file and write the index."""
    from studykit.data import Inputs
    from studykit.spec import RunSpec

    shutil.rmtree(arguments.folder / "cache" / "pools", ignore_errors=True)
    Inputs(arguments.folder).pool(RunSpec.parse(_specification(arguments, arguments.budget)).stages[0].data)


def take_first_step(arguments: argparse.Namespace) -> None:
    """Pin a specification and train one step."""
    from studykit.spec import RunSpec
    from studykit.study.pin import pin
    from studykit.training import train

    run = pin(RunSpec.parse(_specification(arguments, arguments.budget)), arguments.folder)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        train(run, Path(folder))


def pin_cells(arguments: argparse.Namespace) -> None:
    """Pin specifications of growing budgets."""
    from studykit.data import Inputs
    from studykit.spec import RunSpec
    from studykit.study.pin import pin

    inputs = Inputs(arguments.folder)
    for number in range(1, arguments.cells + 1):
        pin(RunSpec.parse(_specification(arguments, 100 * number)), inputs)


WORKS = {"index": index, "first step": take_first_step, "cells": pin_cells}


def _specification(arguments: argparse.Namespace, budget: int) -> dict[str, Any]:
    data = {"source": "jsonl", "options": {"path": str(arguments.folder / "train.jsonl")}}
    stage = {"method": "sft", "steps": 1, "batch_size": 8, "learning_rate": 1e-4, "max_length": _MAX_TOKENS}
    stages = [stage | {"data": data | {"budget": {"examples": budget}}}]
    return {"student": {"name": str(arguments.folder / "model")}, "stages": stages}


if __name__ == "__main__":
    main()
