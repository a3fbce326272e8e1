"""Which weights of a finished run stay on disk.

    check_keep("adapter", run, folder)            # before anything trains
    student = save_weights("adapter", trained, folder, card)

- `full`: merged weights in float32, as they were trained, and adapters alone beside them;
- `bf16`: the same, with merged weights in half the bytes, of which a score may differ a little from the run's;
- `adapter`: what was trained of a model with adapters, without the model itself;
- `none`: nothing. Record, curves and answers stay in any case.

It is no part of a run's identity. Only merged weights can be named as a model.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from studykit.errors import InputError, unknown
from studykit.generation import find_eos_token_ids
from studykit.models.generation_config import make_savable
from studykit.models.limits import limits_of
from studykit.results import is_done
from studykit.training.checkpoints import KEPT
from studykit.training.resolved import ResolvedRun
from studykit.training.stages import Trained

KEEP = ("none", "adapter", "bf16", "full")

_BYTES = {"none": 0, "adapter": 0, "bf16": 2, "full": 4}
"""Per parameter of the model; adapters are small beside it."""

_CHECKPOINT_BYTES = 12
"""Per trained parameter: the weight and two moments, in float32."""


def check_keep(keep: str, run: ResolvedRun, folder: Path) -> None:
    """Refuse to keep what a run does not have, or what the disk has no room for.

    Args:
        keep: one of `KEEP`.
        run: the pinned run.
        folder: of the study, which need not exist.

    Raises:
        InputError: with what would do.
    """
    kept = bytes_per_parameter(keep)
    has_adapters = run.spec.student.lora is not None
    if keep == "adapter" and not has_adapters:
        raise InputError(
            "keep='adapter': all weights are trained, there are no adapters: take 'bf16', 'full' or 'none'"
        )
    if is_done(folder / "runs" / run.run_id):
        return
    parameters = limits_of(run.student, run.spec.student.random_config).parameters
    checkpoints = 0 if has_adapters else (KEPT + 1) * _CHECKPOINT_BYTES * parameters
    existing = next(place for place in (folder.resolve(), *folder.resolve().parents) if place.exists())
    needed, free = kept * parameters + checkpoints, shutil.disk_usage(existing).free
    if needed > free:
        fits = [other for other in KEEP if _BYTES[other] * parameters + checkpoints <= free and other != "adapter"]
        advice = f"keep={fits[-1]!r} fits" if fits else "adapters have small checkpoints: lora_r=16"
        raise InputError(
            f"weights and checkpoints take about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free in {folder}: "
            f"free some, or: {advice}"
        )


def bytes_per_parameter(keep: str) -> int:
    """Return the bytes on disk for each parameter of a model.

    Raises:
        InputError: no such kind of weights.
    """
    if keep not in KEEP:
        raise unknown("keep", keep, KEEP)
    return _BYTES[keep]


def save_weights(keep: str, trained: Trained, folder: Path, card: str) -> nn.Module | None:
    """Save what is to stay: `model/`, which loads without peft, and of adapters alone `adapter/`.

    Args:
        keep: one of `KEEP`.
        trained: the trained student, with its tokenizer.
        folder: of the run.
        card: text of the model card.

    Returns:
        The model as it was trained; None where its adapters have been merged.
    """
    model: Any = trained.model
    has_adapters = hasattr(model, "merge_and_unload")
    if has_adapters and keep != "none":
        model.save_pretrained(folder / "adapter", save_embedding_layers=False)  # else peft looks for the base's
    if not _BYTES[keep]:
        return model
    if has_adapters:
        model = model.merge_and_unload()
    # A model loaded from there then stops where the kit does: a base model's configuration knows no end of a turn.
    model.generation_config.eos_token_id = find_eos_token_ids(model, trained.tokenizer)
    model.generation_config.pad_token_id = trained.tokenizer.pad_token_id
    make_savable(model.generation_config)
    with _rounded(model) if keep == "bf16" else nullcontext():
        model.save_pretrained(folder / "model")
    trained.tokenizer.save_pretrained(folder / "model")
    (folder / "model" / "README.md").write_text(card, encoding="utf-8")
    return None if has_adapters else model


@contextmanager
def _rounded(model: nn.Module) -> Iterator[None]:
    """Hold the weights in bf16 within the block, and as they were after it."""
    before = [(tensor, tensor.data) for tensor in (*model.parameters(), *model.buffers())]
    model.to(torch.bfloat16)
    try:
        yield
    finally:
        for tensor, data in before:
            tensor.data = data
