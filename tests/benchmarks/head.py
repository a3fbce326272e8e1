"""Time and peak memory of the loss from hidden states: studykit's head, plain PyTorch, and trl's chunked divergence.

    python tests/benchmarks/head.py --shape qwen --tokens 1024 --repeats 5
    python tests/benchmarks/head.py --device cuda --tokens 8192 --repeats 9

Every measurement is a process of its own (so that its peak memory is its own), contestants take turns, weights are
random. Each process runs the forward and backward pass twice and times the second. Medians and ratios are printed and
written to results/benchmarks/head.json.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

SHAPES = {  # student's and teacher's hidden size, vocabulary
    "qwen": (896, 1536, 151_936),  # Qwen2.5-0.5B from 1.5B
    "llama": (2048, 4096, 128_256),  # Llama-3.2-1B from 8B
    "tiny": (64, 128, 5_000),
}
BETA = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": 0.5}
CONTESTANTS = ("plain", "trl", "studykit")
ROOT = Path(__file__).parents[2]


def measure(contestant: str, shape: str, tokens: int, loss: str, frozen: bool, device: str) -> dict[str, float]:
    """Return seconds of a forward and backward pass, peak memory in GiB beyond the inputs, and the loss."""
    import torch

    student_size, teacher_size, vocabulary = SHAPES[shape]
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        made = torch.randn(*size, generator=generator, device=device, dtype=torch.bfloat16)
        return made if len(size) < 2 else made * size[-1] ** -0.25

    hidden, teacher_hidden = normal(tokens, student_size), normal(tokens, teacher_size)
    weight, teacher_weight = normal(vocabulary, student_size), normal(vocabulary, teacher_size)
    target = torch.randint(vocabulary, (tokens,), generator=generator, device=device)
    hidden.requires_grad_()
    weight.requires_grad_(not frozen)
    run = {"plain": plain, "trl": chunked_by_trl, "studykit": by_studykit}[contestant]
    before = memory(device)
    seconds, value = 0.0, torch.zeros(())
    for _ in range(2):
        hidden.grad = weight.grad = None
        wait(device)
        started = time.perf_counter()
        value = run(hidden, weight, teacher_hidden, teacher_weight, target, loss)
        value.backward()
        wait(device)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "gib": memory(device) - before, "loss": float(value.detach())}


def plain(hidden, weight, teacher_hidden, teacher_weight, target, loss):
    """Return the loss by full logits and autograd."""
    import torch

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


def by_studykit(hidden, weight, teacher_hidden, teacher_weight, target, loss):
    """Return the loss by studykit's head."""
    from studykit.head import head_loss
    from studykit.losses import get_loss
    from studykit.teacher import TeacherSignal

    signal = TeacherSignal.from_hidden(teacher_hidden, teacher_weight)
    return head_loss(hidden, weight, None, signal, target, get_loss(loss), denominator=len(target))[0]


def wait(device: str) -> None:
    """Let the device finish."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def memory(device: str) -> float:
    """Return the peak so far in GiB."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compare(arguments: argparse.Namespace, loss: str, frozen: bool) -> dict:
    """Measure all contestants in turns and return medians and ratios to studykit."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    for _ in range(arguments.repeats):
        for name in CONTESTANTS:
            one = ["--one", name, "--loss", loss, *(["--frozen"] if frozen else [])]
            same = ["--shape", arguments.shape, "--tokens", str(arguments.tokens), "--device", arguments.device]
            done = subprocess.run([sys.executable, __file__, *one, *same], capture_output=True, text=True, check=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    medians = {
        name: {key: statistics.median(line[key] for line in lines) for key in lines[0]} for name, lines in found.items()
    }
    own = medians["studykit"]
    ratios = {
        name: {key: round(line[key] / own[key], 3) for key in ("seconds", "gib")} for name, line in medians.items()
    }
    return {"loss": loss, "frozen_head": frozen, "medians": medians, "to_studykit": ratios, "all": found}


def main() -> None:
    """Measure one contestant, or compare them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--loss", choices=BETA, default=None, help="one loss; all three without it")
    parser.add_argument("--frozen", action="store_true", help="the student's head is not trained")
    parser.add_argument("--one", choices=CONTESTANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measured = measure(
            arguments.one, arguments.shape, arguments.tokens, arguments.loss, arguments.frozen, arguments.device
        )
        print(json.dumps(measured))
        return
    import torch

    lines = []
    for loss in [arguments.loss] if arguments.loss else BETA:
        for frozen in [True] if arguments.frozen else (False, True):
            lines.append(compare(arguments, loss, frozen))
            print(loss, "frozen head" if frozen else "trained head", json.dumps(lines[-1]["to_studykit"]), flush=True)
    machine = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor() or platform.machine()
    report = {
        "shape": dict(zip(("hidden", "teacher_hidden", "vocabulary"), SHAPES[arguments.shape], strict=True)),
        "tokens": arguments.tokens,
        "repeats": arguments.repeats,
        "machine": machine,
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
        "lines": lines,
    }
    target = ROOT / "results" / "benchmarks" / f"head-{arguments.shape}-{arguments.device}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
