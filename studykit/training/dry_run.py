"""Try everything that a run will do, small, before anything is trained: what fails then costs seconds, not a training.

    dry_run(resolved, student, folder)

In the configuration of the run (adapters, precision, attention, checkpointing, packing): a backward pass over
the two shortest examples of each stage, a few generated tokens where the run generates, and saving. The student is left
as it was, bit by bit.
"""

import copy
import math
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import nn

from studykit.chat import find_turn_ends
from studykit.collate import collate
from studykit.errors import InputError
from studykit.generation import find_eos_token_ids
from studykit.generation.probe import probe_generation
from studykit.head import Labels, Objective, head_loss
from studykit.losses import get_loss
from studykit.models.generation_config import make_savable
from studykit.models.loading import device, has_bf16
from studykit.models.probe import one_line_errors
from studykit.models.projection import output_head
from studykit.models.round_trip import check_adapters, check_round_trip
from studykit.models.sharding import is_sharding
from studykit.models.small_copy import small_copy
from studykit.models.states import choose_packing, hidden_states, unwrap
from studykit.models.unchanged import unchanged
from studykit.models.vocabulary import token_rows
from studykit.scorers import needs_generation
from studykit.teacher import OpenTeacher
from studykit.training.optimizer import make_optimizer
from studykit.training.resolved import ResolvedRun, ResolvedStage

_SAVED_WHOLE_BYTES = 2**26
"""A model of at most this size is saved whole; of a larger one a small model of its class is."""

_COPIES = 4
"""Of what is trained, on disk at once: a checkpoint with weights and two moments, and the weights after the stage."""

_READ_BACK: set[tuple[type, str]] = set()
"""Classes and configurations that were saved and read back in this process: the outcome is the same for all weights."""


def dry_run(resolved: ResolvedRun, student: nn.Module, folder: Path) -> None:
    """Try what a run does with its student: training, generation and saving.

    A student that will be sharded may be too large for one process: it is not run.

    Args:
        resolved: the run.
        student: as loaded; it is put on the device of the training.
        folder: the run's folder, on the disk that will hold the model.

    Raises:
        InputError: naming the example, the parameter or the file that fails, and the fix.
    """
    spec, tokenizer = resolved.spec, resolved.student.tokenizer
    is_whole = not is_sharding()
    if is_whole:
        student.to(device())
    for number, stage in enumerate(resolved.stages, 1):
        _check_stops(student, tokenizer, stage, spec.student.name)
        if is_whole:
            _try_backward(student, tokenizer, stage, f"student {spec.student.name!r}, stage {number}")
    if is_whole and any(_generates(resolved, stage) for stage in resolved.stages):
        probe_generation(student, spec.student.name, token_rows(tokenizer))
    folder.mkdir(parents=True, exist_ok=True)
    _check_disk(student, folder)
    _try_saving(student, tokenizer, spec.student.name)


def try_teacher(resolved: ResolvedRun, stage: ResolvedStage, teacher: OpenTeacher | None) -> None:
    """Try whether a stage's teacher generates, where that will be needed and no engine does it.

    Raises:
        InputError: its answers would be other ones with a cache.
    """
    spec, model = resolved.teacher_of(stage) or (None, None)
    untried = spec is None or spec.engine is not None or spec.endpoint is not None or is_sharding()
    if teacher is None or spec is None or model is None or untried:
        return
    if _generates(resolved, stage):
        probe_generation(teacher.model, spec.name, token_rows(model.tokenizer))


def _generates(resolved: ResolvedRun, stage: ResolvedStage) -> bool:
    """Whether answers are generated in a stage, or in an evaluation after it."""
    evaluated = any(needs_generation(evaluation.spec.scorers) for evaluation in resolved.evaluations)
    return evaluated or stage.max_new_tokens is not None


def _check_stops(student: Any, tokenizer: Any, stage: ResolvedStage, name: str) -> None:
    """Refuse answers that hold a token at which the model's own configuration has generation stop."""
    stops = list(set(find_eos_token_ids(student, tokenizer)) - set(find_turn_ends(tokenizer).ids))
    encoded = stage.data.encoded
    if not (np.isin(encoded.ids, stops) & encoded.loss_mask).any():
        return
    for index, example in enumerate(stage.data.examples):
        inside = np.intersect1d(encoded.ids_of(index)[encoded.supervised_of(index)], stops)
        if len(inside) and not example.is_text:
            raise InputError(
                f"example {example.id!r}: an answer holds {tokenizer.decode(inside[:1].tolist())!r}, at which the "
                f"generation_config.json of student {name!r} has it stop, so that it could never generate what "
                "follows: correct eos_token_id there, or remove it from the text"
            )


def _try_backward(student: Any, tokenizer: Any, stage: ResolvedStage, what: str) -> None:
    """Refuse a student without finite gradients in the parameters that are trained."""
    encoded, spec = stage.data.encoded, stage.spec
    shortest = np.argsort(encoded.lengths, kind="stable")[:2]
    names = " and ".join(repr(stage.data.examples[index].id) for index in shortest)
    batch = collate(encoded, shortest, tokenizer.pad_token_id).to(device())
    bf16 = has_bf16() if spec.bf16 is None else spec.bf16
    trying = one_line_errors(f"{what}: a training step on examples {names} fails")
    with trying, unchanged(student), spec.applied_to("training", student):
        student.train()
        make_optimizer(student, (), spec)  # with its arguments, before a teacher answers for hours
        with torch.autocast(device().type, torch.bfloat16, enabled=bf16):
            packed = choose_packing(student, spec.padding_free)
            hidden = hidden_states(student, batch.input_ids, batch.attention_mask, packed)
            head, objective = output_head(student, token_rows(tokenizer)), Objective(get_loss("cross_entropy"))
            loss, _ = head_loss(batch.predicting(hidden), head, None, Labels(batch.target), objective, 1)
        loss.backward()
        value = float(loss.detach())
        gradients = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}
        norms = {name: float(gradient.norm()) for name, gradient in gradients.items()}
    wrong = next((name for name, norm in norms.items() if not math.isfinite(norm)), None)
    if wrong or not math.isfinite(value):
        raise InputError(
            f"{what}: on examples {names} the loss is {value:.4g} and the gradient of {wrong or 'no parameter'} "
            "is not finite: look for damaged weights, or set bf16 to false or attn_implementation to 'eager'"
        )
    if not any(norms.values()):
        raise InputError(
            f"{what}: no gradient reaches the parameters that are trained: change lora_target_modules, or set "
            "gradient_checkpointing to false"
        )


def _check_disk(student: Any, folder: Path) -> None:
    """Refuse a run whose checkpoints and model do not fit on the disk."""
    trained = sum(p.numel() * p.element_size() for p in student.parameters() if p.requires_grad)
    whole = sum(p.numel() * p.element_size() for p in student.parameters())
    needed, free = _COPIES * trained + whole, shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: the run's checkpoints and model take about {needed / 2**30:,.1f} GiB, and {free / 2**30:,.1f} "
            "are free: make room, or name another results folder"
        )


def _try_saving(student: Any, tokenizer: Any, name: str) -> None:
    """Save to a temporary folder what is saved after the training, and read it back: weights, adapters, tokenizer.

    Of several processes the main one alone saves, here as then.
    """
    if not PartialState().is_main_process:
        return
    inner: Any = unwrap(student)
    wrong = f"student {name!r}: its generation_config.json could not be saved again, correct it"
    with one_line_errors(wrong):
        make_savable(copy.deepcopy(inner.generation_config))
    what = f"student {name!r}"
    with one_line_errors(f"{what} could not be saved after its training"), TemporaryDirectory() as folder:
        if student is not inner:
            check_adapters(student, Path(folder) / "adapter", what)
        tried = type(inner), inner.config.to_json_string()
        if tried not in _READ_BACK and (stand_in := _stand_in(inner)) is not None:
            check_round_trip(stand_in, Path(folder) / "model", what)
        _READ_BACK.add(tried)
        inner.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _stand_in(inner: Any) -> Any:
    """Return a random model to save and read back in the student's place; None where no small one can be made.

    It has the student's configuration where that is small, otherwise the class alone: a large model is not written
    twice. It has no adapters, since what is saved after the training has them merged.
    """
    small = sum(p.numel() * p.element_size() for p in inner.parameters()) <= _SAVED_WHOLE_BYTES
    with torch.random.fork_rng(devices=[]):
        if not small:
            return small_copy(inner)
        return type(inner)(copy.deepcopy(inner.config))  # a copy of the model would copy states that some keep in it
