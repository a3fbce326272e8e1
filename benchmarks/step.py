"""A training step side by side: studykit's sft, kd with a live and with a cached teacher, trl's SFT and GKD trainers.

    python -m benchmarks.step --shape qwen --layers 6 --tokens 4x256 --repeats 3
    python -m benchmarks.step --shape llama --device cuda --tokens 4x1024

All have the same batches, models (random weights of the shape) and optimizer settings. Seconds per step, tokens
per second, peak memory and the share of the machine's matrix peak are written to
results/benchmarks/step-<shape>-<device>.json.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks.measurement import find_peer_python, run_in_turns, wait, write_report
from benchmarks.step_setup import SHAPES, Setting, read_vocab_size

CONTESTANTS = {  # name in the report: script, and name in the script
    "studykit sft": ("step_studykit", "sft"),
    "studykit kd, cached teacher": ("step_studykit", "kd cached"),
    "studykit kd, live teacher": ("step_studykit", "kd live"),
    "trl SFTTrainer": ("step_trl", "sft"),
    "trl SFTTrainer with liger": ("step_trl", "sft with liger"),
    "trl GKDTrainer": ("step_trl", "gkd"),
}
_SIZE = {"cpu": 4096, "cuda": 8192}


def main() -> None:
    """Measure all contestants in turns, or the matrix product alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen")
    parser.add_argument("--layers", type=int, default=None, help="number of layers of both models, instead of all")
    parser.add_argument("--tokens", default="4x256", help="sequences x length of a step")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2, help="steps before the clock starts")
    parser.add_argument("--steps", type=int, default=4, help="timed steps of each process")
    parser.add_argument("--top-k", type=int, default=64, help="tokens per position that the cached teacher keeps")
    parser.add_argument("--only", nargs="*", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--name", default=None, help="of the report, instead of <shape>-<device>")
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(json.dumps(measure_matrix_peak(arguments.shape, arguments.device)))
        return
    sequences, length = map(int, arguments.tokens.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        make_tokenizer(read_vocab_size(arguments.shape), folder)
        commands = {name: make_command(arguments, name, sequences, length, folder) for name in arguments.only}
        outcomes = run_in_turns(commands, arguments.repeats)
    same = ["--shape", arguments.shape, "--device", arguments.device]
    product = run_in_turns({"matrix product": [sys.executable, "-m", "benchmarks.step", "--peak", *same]}, 1)[
        "matrix product"
    ]
    settings = {
        "shape": arguments.shape,
        "layers": arguments.layers,
        "tokens": arguments.tokens,
        "supervised": f"{length - length // 4} of {length}",
        "dtype": SHAPES[arguments.shape]["dtype"],
        "weights": "embedded" if arguments.shape == "lexicon" else "random",
        "device": arguments.device,
        "warmup": arguments.warmup,
        "steps": arguments.steps,
        "top_k": arguments.top_k,
    }
    name = arguments.name or f"{arguments.shape}-{arguments.device}"
    write_report("step", name, settings, **add_shares(outcomes, product))


def make_command(arguments: argparse.Namespace, name: str, sequences: int, length: int, tokenizer: str) -> list[str]:
    """Return the command line of one contestant."""
    script, contestant = CONTESTANTS[name]
    python = find_peer_python() if script == "step_trl" else sys.executable
    setting = Setting(
        contestant,
        arguments.shape,
        arguments.layers,
        sequences,
        length,
        arguments.device,
        arguments.warmup,
        arguments.steps,
        arguments.top_k,
        tokenizer,
    )
    return [python, "-m", f"benchmarks.{script}", json.dumps(asdict(setting))]


def add_shares(outcomes: dict[str, dict[str, Any]], product: dict[str, Any]) -> dict[str, Any]:
    """Add to every contestant its share of the speed of the matrix product, and return them with that speed."""
    if "failed" in product:
        return {"contestants": outcomes, "matrix_product": product["failed"]}
    peak = product["medians"]["flops_per_s"]
    for one in outcomes.values():
        if "medians" in one:
            one["medians"]["share_of_peak"] = one["medians"]["flops"] / one["medians"]["seconds"] / peak
    return {"contestants": outcomes, "peak_flops_per_s": peak}


def measure_matrix_peak(shape: str, device: str) -> dict[str, float]:
    """Return the best of ten products of two large square matrices, in the dtype of the shape."""
    size, dtype = _SIZE[device], getattr(torch, SHAPES[shape]["dtype"])
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        wait(device)
        started = time.perf_counter()
        _ = a @ b
        wait(device)
        best = min(best, time.perf_counter() - started)
    return {"flops_per_s": 2 * size**3 / best}


def make_tokenizer(size: int, folder: str) -> None:
    """Save a tokenizer with a word for every row of the output head, and a chat template."""
    names = ["<pad>", "<end>", "<unknown>", *(f"w{number}" for number in range(3, size))]
    words = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unknown>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<end>", unk_token="<unknown>"
    )
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] + ' <end> ' }}{% endfor %}"
    tokenizer.save_pretrained(str(Path(folder)))


if __name__ == "__main__":
    main()
