"""Time and peak memory of the loss from hidden states: studykit's head, plain PyTorch, trl's chunks, liger-kernel's.

    python benchmarks/head.py --shape qwen --tokens 1024 --repeats 5
    python benchmarks/head.py --device cuda --tokens 8192 --repeats 5

Every measurement is a process of its own (on CUDA one serves all, with the peers' packages behind the kit's own),
contestants take turns, weights are random and bf16. A forward and backward pass over all tokens counts, after one over
64 of them on a CPU and one over all of them on CUDA, where shapes are compiled.
`studykit, autograd` is the same head with the loss's derivative found by autograd, and `studykit, eager` the one that
is not compiled (on CUDA; elsewhere none is).
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measuring import borrow_peers, in_turns, in_turns_here, peer_python, timed, write

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
        made = torch.randn(*size, generator=generator, device=device, dtype=torch.bfloat16)
        return made if size[0] == tokens else made.mul_(size[-1] ** -0.25)

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
    return timed(work, device, few) | {"loss": float(value.detach())}


def plain(hidden, weight, teacher_hidden, teacher_weight, target, loss):
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


def chunked_by_trl(hidden, weight, teacher_hidden, teacher_weight, target, loss):
    """Return the loss by trl's tiles, which project again in the backward pass."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    made, _ = ChunkedDivergenceFunction.apply(hidden, weight, None, teacher_hidden, teacher_weight, None, BETA[loss])
    return made.sum() / len(target)


def fused_by_liger(hidden, weight, teacher_hidden, teacher_weight, target, loss):
    """Return the loss by liger-kernel's fused linear JSD, whose beta has trl's sense."""
    made = importlib.import_module("liger_kernel.transformers").LigerFusedLinearJSD(jsd_beta=BETA[loss])
    return made(hidden, weight, teacher_hidden, teacher_weight, target)


def by_studykit(hidden, weight, teacher_hidden, teacher_weight, target, loss, *, closed=True, fused=None):
    """Return the loss by studykit's head."""
    from studykit.head import head_loss
    from studykit.losses import get_loss
    from studykit.teacher import TeacherSignal

    signal, made = TeacherSignal.from_hidden(teacher_hidden, teacher_weight), get_loss(loss)
    made.closed_form = closed
    return head_loss(hidden, weight, None, signal, target, made, denominator=len(target), fused=fused)[0]


RUN: dict[str, Callable[..., Any]] = {
    "plain": plain,
    "trl": chunked_by_trl,
    "liger": fused_by_liger,
    "studykit": by_studykit,
    "studykit, autograd": lambda *inputs: by_studykit(*inputs, closed=False),
    "studykit, eager": lambda *inputs: by_studykit(*inputs, fused=False),
}


def compare(arguments: argparse.Namespace, loss: str, frozen: bool) -> dict[str, Any]:
    """Measure all contestants in turns."""
    names = arguments.only or EVERYWHERE + (ON_CUDA if arguments.device == "cuda" else ())
    if arguments.device == "cuda":
        borrow_peers()
        job = (arguments.shape, arguments.tokens, loss, frozen, arguments.device)
        found = in_turns_here({name: partial(measure, name, *job) for name in names}, arguments.repeats)
        return {"loss": loss, "frozen_head": frozen, "contestants": found}
    same = ["--shape", arguments.shape, "--tokens", str(arguments.tokens), "--device", arguments.device]
    same += ["--loss", loss, *(["--frozen"] if frozen else [])]
    commands = {
        name: [peer_python() if name in PEERS else sys.executable, __file__, "--one", name, *same] for name in names
    }
    return {"loss": loss, "frozen_head": frozen, "contestants": in_turns(commands, arguments.repeats)}


def main() -> None:
    """Measure one contestant, or compare them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--loss", choices=BETA, default=None, help="one loss; all three without it")
    parser.add_argument("--frozen", action="store_true", help="only with the student's head not trained")
    parser.add_argument("--only", nargs="+", choices=RUN, help="some of the contestants")
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
            for name, found in lines[-1]["contestants"].items():
                print(f"  {name:20}", found.get("medians") or found["failed"], flush=True)
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
    write("head", f"{chosen.shape}-{chosen.device}", settings, lines=lines)


if __name__ == "__main__":
    main()
