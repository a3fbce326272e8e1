"""Whether a model that is saved and read back is the same: some classes of transformers write or load other weights.

check_round_trip(copied, folder, "student 'x'")              # a copy of a model: its weights are changed
check_adapters(student, folder, "student 'x'")                # adapters of a student, which stays as it was
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from studykit.errors import InputError
from studykit.models.loading import load_adapters
from studykit.models.states import evaluating, unwrap

_TOKENS = 8
_TOLERANCE = 1e-4
"""Of the largest logit: the same weights give the same logits but for the order of sums."""

_NOISE = 0.05


def check_round_trip(model: Any, folder: Path, what: str) -> None:
    """Refuse a class whose saved weights are other ones when they are read back.

    Weights get noise first: a row that loading sets to zero is often zero before anything is trained.

    Args:
        model: of transformers, a copy that is used for nothing else: its weights are changed.
        folder: an empty one.
        what: names the model in messages.

    Raises:
        InputError: other weights, or other logits with the same weights.
    """
    model.float().cpu().eval().set_attn_implementation("eager")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _add_noise(model.parameters())
        model.save_pretrained(folder)
        again = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, attn_implementation="eager"
        )
        found = dict(again.named_parameters())
        for name, wanted in model.named_parameters():
            if name in found and not torch.equal(found[name], wanted):
                raise _error(what, f"other values of {name} than it saves")
        if not _equal_logits(again, _logits(model)):
            raise _error(what, "a model that makes other logits than the one it saves")


def check_adapters(student: Any, folder: Path, what: str) -> None:
    """Refuse adapters that are other ones when they are read back.

    Args:
        student: wrapped by peft; it is left as it was.
        folder: an empty one.
        what: names the student in messages.

    Raises:
        InputError: the logits with the adapters as read back differ.
    """
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    with _kept(trained), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _add_noise(trained)
        student.save_pretrained(folder, save_embedding_layers=False)
        wanted = _logits(student)
        with torch.no_grad():
            for parameter in trained:
                parameter.zero_()
        load_adapters(student, folder)
        if not _equal_logits(student, wanted):
            raise _error(what, "adapters that make other logits than the ones it saves")


def _error(what: str, fault: str) -> InputError:
    return InputError(
        f"{what}: transformers {transformers.__version__} loads {fault}, so what is trained would be lost: choose "
        "another architecture, or another version of transformers"
    )


def _add_noise(parameters: Any) -> None:
    with torch.no_grad():
        for parameter in parameters:
            if parameter.is_floating_point():
                parameter.add_(_NOISE * torch.randn_like(parameter, device="cpu").to(parameter.device))


@contextmanager
def _kept(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Put parameters back as they were before the block."""
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


@torch.no_grad()
def _logits(model: Any) -> Tensor:
    """Return logits of a few tokens, the padding token among them, float32 [1, T, V]."""
    inner = unwrap(model)
    embeddings = inner.get_input_embeddings().weight
    ids = (torch.arange(_TOKENS, device=embeddings.device) * 7 % len(embeddings))[None]
    with evaluating(model), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # some architectures hash with random numbers
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.float()


def _equal_logits(model: Any, wanted: Tensor) -> bool:
    tolerance = _TOLERANCE * float(wanted.abs().nan_to_num().max())
    return torch.allclose(_logits(model), wanted, rtol=0, atol=tolerance, equal_nan=True)
