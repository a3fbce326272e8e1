"""The setup that all contestants of `step` share: models of a shape, sequences, trainer settings and a stopwatch.

It runs in the environment of the kit and in that of the peers, and imports neither studykit nor a peer.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback

from benchmarks.measurement import ROOT, read_memory_gib, reset_peak, wait

_QWEN = {"model_type": "qwen2", "vocab_size": 151_936, "tie_word_embeddings": True, "num_key_value_heads": 2}
_LLAMA = {"model_type": "llama", "vocab_size": 128_256, "num_attention_heads": 32, "num_key_value_heads": 8}
_ROPE = {"max_position_embeddings": 32_768}


def _sized(family: dict[str, Any], hidden: int, layers: int, intermediate: int, **more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": intermediate}
    return family | _ROPE | sizes | more


SHAPES: dict[str, dict[str, Any]] = {
    "qwen": {  # Qwen2.5 0.5B from 1.5B
        "student": _sized(_QWEN, 896, 24, 4864, num_attention_heads=14),
        "teacher": _sized(_QWEN, 1536, 28, 8960, num_attention_heads=12),
        "dtype": "bfloat16",
    },
    "llama": {  # Llama 3.2 1B from 3.1 8B
        "student": _sized(_LLAMA, 2048, 16, 8192, tie_word_embeddings=True),
        "teacher": _sized(_LLAMA, 4096, 32, 14_336, tie_word_embeddings=False),
        "dtype": "bfloat16",
    },
    "lexicon": {"student": "base-medium", "teacher": "teacher-a", "dtype": "float32"},  # the embedded models
}
_EMBEDDED = ROOT / "studykit" / "models" / "embedded" / "lexicon"
_FIRST_TOKEN = 3  # the ids before it are padding, end and unknown


@dataclass(frozen=True)
class Setting:
    """One contestant's run: `sequences` rows of `length` tokens in every step, the first `prompt` unsupervised."""

    contestant: str
    shape: str
    layers: int | None
    sequences: int
    length: int
    device: str
    warmup: int
    steps: int
    top_k: int
    tokenizer: str

    @property
    def prompt(self) -> int:
        """Number of tokens at the start of each row that are not trained on."""
        return self.length // 4


def read_vocab_size(shape: str) -> int:
    """Return the rows of the output head."""
    student = SHAPES[shape]["student"]
    if isinstance(student, dict):
        return student["vocab_size"]
    return json.loads((_EMBEDDED / student / "config.json").read_text(encoding="utf-8"))["vocab_size"]


def make_model(setting: Setting, side: str) -> Any:
    """Return student or teacher: random weights of the shape, the same in every process; embedded ones for lexicon."""
    shape = SHAPES[setting.shape]
    dtype = getattr(torch, shape["dtype"])
    if isinstance(shape[side], str):
        embedded: Any = AutoModelForCausalLM.from_pretrained(str(_EMBEDDED / shape[side]), dtype=dtype)
        return embedded.to(setting.device)
    fields = dict(shape[side])
    fields["num_hidden_layers"] = setting.layers or fields["num_hidden_layers"]
    torch.manual_seed(len(side))
    with torch.device(setting.device):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields), dtype=dtype)


def make_sequences(setting: Setting) -> np.ndarray:
    """Return the token ids of all steps, int64 [steps * sequences, length], in the order they are trained on."""
    rows = (setting.warmup + setting.steps) * setting.sequences
    return np.random.default_rng(0).integers(_FIRST_TOKEN, read_vocab_size(setting.shape), (rows, setting.length))


def make_trainer_settings(setting: Setting, folder: str) -> dict[str, Any]:
    """Return the settings that every trainer is given."""
    return {
        "output_dir": folder,
        "max_steps": setting.warmup + setting.steps,
        "per_device_train_batch_size": setting.sequences,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "seed": 0,
        "bf16": False,  # the weights themselves are in the shape's dtype, on both sides
        "gradient_checkpointing": False,
        "train_sampling_strategy": "sequential",
        "logging_steps": setting.warmup + setting.steps,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": setting.device == "cuda",
        "use_cpu": setting.device == "cpu",
    }


class Stopwatch(TrainerCallback):
    """Times the steps after the warm-up, with the work between them, and measures the memory peak from there on."""

    def __init__(self, setting: Setting):
        self.setting = setting
        self.before = read_memory_gib(setting.device, peak=False)
        self.started = self.seconds = 0.0

    def on_step_end(self, args, state, control, **keywords):
        """Start after the last step of the warm-up, stop after the last of all."""
        if state.global_step == self.setting.warmup:
            wait(self.setting.device)
            reset_peak(self.setting.device)
            self.started = time.perf_counter()
        elif state.global_step == self.setting.warmup + self.setting.steps:
            wait(self.setting.device)
            self.seconds = time.perf_counter() - self.started


def measure_training(trainer: Any, watch: Stopwatch, teacher: nn.Module | None) -> dict[str, float]:
    """Train with a Trainer of transformers and return what was measured."""
    trainer.add_callback(watch)
    trainer.train()
    loss = next(line["loss"] for line in trainer.state.log_history if "loss" in line)
    return summarize(watch, trainer.model, teacher, loss)


def summarize(watch: Stopwatch, student: nn.Module, teacher: nn.Module | None, loss: float) -> dict[str, float]:
    """Return seconds per step, tokens per second, peak memory above the empty process, loss and FLOPs.

    FLOPs are 6 per parameter and token of the student, and 2 of a teacher that runs in the step.
    """
    setting = watch.setting
    gib = read_memory_gib(setting.device, peak=True) - watch.before
    tokens = setting.sequences * setting.length
    seconds = watch.seconds / setting.steps
    work = 6 * _count_parameters(student) + (0 if teacher is None else 2 * _count_parameters(teacher))
    return {"seconds": seconds, "tokens_per_s": tokens / seconds, "gib": gib, "loss": loss, "flops": work * tokens}


def _count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def run_contestant(run: Callable[[Setting, str], dict[str, float]]) -> None:
    """Run the contestant that the command line describes in JSON, and print its numbers as the last line."""
    setting = Setting(**json.loads(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(setting, str(Path(folder)))
    print(json.dumps(outcome))
