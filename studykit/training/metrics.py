"""The training curve: means since the last log, and `metrics.jsonl`, one JSON object per logged step."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from studykit.files import json_object, replacing


class Averages:
    """Sums over the supervised tokens since the last log; they stay on the device until `take`."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self._clear()

    def add(self, loss: Tensor, sums: Mapping[str, Tensor]) -> None:
        """Add one micro-batch: its share of the step's loss, and the sums of `head_loss`."""
        self._loss += loss
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0) + value

    def take(self, steps: int) -> dict[str, float]:
        """Return the loss per optimizer step and the means per supervised token of all processes, and start again."""
        losses: Any = self.accelerator.gather(self._loss)
        loss = float(losses.sum()) / steps
        sums = sum_over_processes({name: float(value) for name, value in self._sums.items()})
        tokens = sums.pop("tokens", 1)
        means = {name: value / tokens for name, value in sums.items()}
        if means:
            means = {"mean_token_accuracy": means.pop("correct"), **means}
        self._clear()
        return {"loss": loss, **means}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, for a checkpoint."""
        return {"loss": self._loss, "sums": self._sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self._loss = state["loss"].to(self._loss.device)
        self._sums = {name: value.to(self._loss.device) for name, value in state["sums"].items()}

    def _clear(self) -> None:
        self._loss = torch.tensor(0.0, device=self.accelerator.device)
        self._sums: dict[str, Tensor] = {}


class MetricsFile:
    """Logged steps of one stage in the run's `metrics.jsonl`; several stages share the file."""

    def __init__(self, file: Path, stage: int):
        self.file, self.stage = file, stage

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line."""
        line = {"stage": self.stage, "step": step, "time_s": round(time.time(), 3), **values}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, allow_nan=False) + "\n")

    def drop_after(self, step: int) -> None:
        """Drop the lines that a killed process logged after its last checkpoint: they are logged again."""
        if not self.file.exists():
            return
        lines = self.file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        with replacing(self.file) as temporary:
            temporary.write_text("".join(line for line in lines if self._is_before(line, step)), encoding="utf-8")

    def _is_before(self, line: str, step: int) -> bool:
        if not line.endswith("\n"):  # the process was killed while it wrote this line
            return False
        try:
            content = json_object(json.loads(line))
            return (content["stage"], content["step"]) <= (self.stage, step)
        except (ValueError, KeyError, TypeError):  # a damaged line is lost, and stops no training
            return False


def check_finite(values: Mapping[str, float], step: int) -> None:
    """Refuse to go on once the training has diverged.

    Raises:
        FloatingPointError: loss or gradient are not finite numbers.
    """
    if not all(math.isfinite(values[name]) for name in ("loss", "grad_norm")):
        raise FloatingPointError(
            f"training diverged: loss is {values['loss']} and the gradient's norm {values['grad_norm']} at step "
            f"{step}, learning rate {values['learning_rate']:.2g}; lower learning_rate or max_grad_norm"
        )


def sum_over_processes(values: Mapping[str, float]) -> dict[str, float]:
    """Return sums by name over all processes; one may lack a name that another has."""
    total: dict[str, float] = {}
    for part in gather_object([dict(values)]):
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return total
