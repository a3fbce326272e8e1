"""Time and peak memory of the loss from hidden states: studykit's head, plain PyTorch, trl's chunks, liger-kernel's.

    python -m benchmarks.head --shape qwen --tokens 1024 --repeats 5
    python -m benchmarks.head --device cuda --tokens 8192 --repeats 5

Contestants take turns; on a CPU every measurement is a separate process, on CUDA one process does all of them and
imports the peers' packages after the kit's own. Weights are random and bf16. Measured is one forward and backward pass
over all tokens, after a warm-up over 64 tokens on a CPU and over all of them on CUDA, where shapes are compiled.
`studykit, autograd` is the same head with autograd instead of the loss's own gradient, and `studykit, eager` the head
without compilation (on CUDA; on a CPU nothing is compiled).
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.measurement import (
    borrow_peers,
    call_in_turns,
    find_peer_python,
    measure_work,
    run_in_turns,
    write_report,
)

SHAPES = {  # student's and teacher's hidden size, vocabulary
    "qwen": (896, 1536, 151_936),  # Qwen2.5-0.5B from 1.5B
    "llama": (2048, 4096, 128_256),  # Llama-3.2-1B from 8B
    "tiny": (64, 128, 5_000),
}
BETA = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": 0.5}
EVERYWHERE = ("plain", "trl", "studykit", "studykit, autograd")
ON_CUDA = ("liger", "studykit, eager")
PEERS = ("trl", "liger")


def measure(contestant: str, shape: str, tokens: int, loss: str, frozen: bool, device: str) -> dict[str, float]:
    """Return seconds of a forward and backward pass, peak memory in GiB beyond the inputs, and the loss."""
    student_size, teacher_size, vocabulary = SHAPES[shape]
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        drawn = torch.randn(*size, generator=generator, device=device, dtype=torch.bfloat16)
        return drawn if size[0] == tokens else drawn.mul_(size[-1] ** -0.25)

    hidden, teacher_hidden = normal(tokens, student_size), normal(tokens, teacher_size)
    weight, teacher_weight = normal(vocabulary, student_size), normal(vocabulary, teacher_size)
    target = torch.randint(vocabulary, (tokens,), generator=generator, device=device)
    hidden.requires_grad_()
    weight.requires_grad_(not frozen)
    value = torch.zeros(())

    def work(rows: int = tokens) -> None:
        nonlocal value
        hidden.grad = weight.grad = None
        value = RUN[contestant](hidden[:rows], weight, teacher_hidden[:rows], teacher_weight, target[:rows], loss)
        value.backward()

    few = partial(work, 64) if device == "cpu" else None
    return measure_work(work, device, few) | {"loss": float(value.detach())}


def compute_plain(hidden, weight, teacher_hidden, teacher_weight, target, loss):
    """Return the loss by full logits and autograd."""
    q = (hidden @ weight.T).float().log_softmax(-1)
    with torch.no_grad():
        p = (teacher_hidden @ teacher_weight.T).float().log_softmax(-1)
    if loss == "forward_kl":
        return (p.exp() * (p - q)).sum() / len(target)
    if loss == "reverse_kl":
        return (q.exp() * (q - p)).sum() / len(target)
    m = torch.logaddexp(p, q) - torch.tensor(2.0, device=q.device).log()
    return 0.5 * ((p.exp() * (p - m)).sum() + (q.exp() * (q - m)).sum()) / len(target)


def chunk_by_trl(hidden, weight, teacher_hidden, teacher_weight, target, loss):
    """Return the loss by trl's tiles, which project again in the backward pass."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    result, _ = ChunkedDivergenceFunction.apply(hidden, weight, None, teacher_hidden, teacher_weight, None, BETA[loss])
    return result.sum() / len(target)


def fuse_by_liger(hidden, weight, teacher_hidden, teacher_weight, target, loss):
    """Return the loss by liger-kernel's fused linear JSD, whose beta has trl's sense."""
    result = importlib.import_module("liger_kernel.transformers").LigerFusedLinearJSD(jsd_beta=BETA[loss])
    return result(hidden, weight, teacher_hidden, teacher_weight, target)


def compute_by_studykit(hidden, weight, teacher_hidden, teacher_weight, target, loss, *, closed=True, fused=None):
    """Return the loss by studykit's head."""
    from studykit.head import Chunking, Labels, Objective, OutputHead, head_loss
    from studykit.losses import get_loss
    from studykit.teacher import TeacherSignal

    signal, result = TeacherSignal.from_hidden(teacher_hidden, teacher_weight), get_loss(loss)
    result.closed_form = closed
    chunking, labels = Chunking(fused=fused), Labels(target)
    return head_loss(hidden, OutputHead(weight), signal, labels, Objective(result), len(target), chunking)[0]


RUN: dict[str, Callable[..., Any]] = {
    "plain": compute_plain,
    "trl": chunk_by_trl,
    "liger": fuse_by_liger,
    "studykit": compute_by_studykit,
    "studykit, autograd": lambda *inputs: compute_by_studykit(*inputs, closed=False),
    "studykit, eager": lambda *inputs: compute_by_studykit(*inputs, fused=False),
}


def compare(arguments: argparse.Namespace, loss: str, frozen: bool) -> dict[str, Any]:
    """Measure all contestants in turns."""
    names = arguments.only or EVERYWHERE + (ON_CUDA if arguments.device == "cuda" else ())
    if arguments.device == "cuda":
        borrow_peers()
        job = (arguments.shape, arguments.tokens, loss, frozen, arguments.device)
        outcomes = call_in_turns({name: partial(measure, name, *job) for name in names}, arguments.repeats)
        return {"loss": loss, "frozen_head": frozen, "contestants": outcomes}
    same = ["--shape", arguments.shape, "--tokens", str(arguments.tokens), "--device", arguments.device]
    same += ["--loss", loss, *(["--frozen"] if frozen else [])]
    commands = {
        name: [find_peer_python() if name in PEERS else sys.executable, "-m", "benchmarks.head", "--one", name, *same]
        for name in names
    }
    return {"loss": loss, "frozen_head": frozen, "contestants": run_in_turns(commands, arguments.repeats)}


def main() -> None:
    """Measure one contestant, or compare them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--loss", choices=BETA, default=None, help="one loss; all three without it")
    parser.add_argument("--frozen", action="store_true", help="only with the student's head not trained")
    parser.add_argument("--only", nargs="+", choices=RUN, help="only these contestants")
    parser.add_argument("--one", choices=RUN, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        measured = measure(chosen.one, chosen.shape, chosen.tokens, chosen.loss, chosen.frozen, chosen.device)
        print(json.dumps(measured))
        return
    lines = []
    for loss in [chosen.loss] if chosen.loss else BETA:
        for frozen in [True] if chosen.frozen else (False, True):
            lines.append(compare(chosen, loss, frozen))
            print(loss, "frozen head" if frozen else "trained head", flush=True)
            for name, outcome in lines[-1]["contestants"].items():
                print(f"  {name:20}", outcome.get("medians") or outcome["failed"], flush=True)
    if any("failed" in line["contestants"].get("studykit", {}) for line in lines):
        sys.exit("studykit itself failed: nothing is written")
    sizes = dict(zip(("hidden", "teacher_hidden", "vocabulary"), SHAPES[chosen.shape], strict=True))
    settings = {
        "device": chosen.device,
        **sizes,
        "tokens": chosen.tokens,
        "dtype": "bfloat16",
        "repeats": chosen.repeats,
    }
    write_report("head", f"{chosen.shape}-{chosen.device}", settings, lines=lines)


if __name__ == "__main__":
    main()
