"""Load students, teachers and tokenizers; reach hidden states and output head the same way in every wrapper.

A model's name is looked up in this order: an embedded model (`lexicon/teacher-a`), the id of a finished run under the
results folder, a local folder, and finally the hub.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import logging as transformers_logging

from studykit.chat import tokenizer_hash
from studykit.errors import InputError, unknown
from studykit.models.projection import OutputHead as OutputHead
from studykit.models.projection import linear as linear
from studykit.models.projection import logits_in_chunks as logits_in_chunks
from studykit.models.projection import output_head as output_head
from studykit.models.projection import project as project
from studykit.models.projection import shaped as shaped
from studykit.models.pruning import prune
from studykit.models.states import evaluating as evaluating
from studykit.models.states import hidden_states as hidden_states
from studykit.models.states import padding_through as padding_through
from studykit.models.states import set_padding_free as set_padding_free
from studykit.models.states import unwrapped as unwrapped
from studykit.spec import Lora, Student, Teacher

EMBEDDED = Path(__file__).parent / "embedded"
transformers_logging.disable_progress_bar()  # a bar per saved shard says nothing in a log file

_CONTENT = ("*.safetensors", "*config.json", "tokenizer.json", "*.jinja", "vocab.*", "merges.txt", "*.model")
_RUN_ID = re.compile(r"[0-9a-f]{12}")


def locate(name: str, results_root: Path) -> str:
    """Return the folder of an embedded model, a finished run or a local path; any other name is left to the hub.

    Raises:
        InputError: an embedded model nobody has heard of, or a run that is not there or not finished.
    """
    family, _, short = name.partition("/")
    if family in {p.name for p in EMBEDDED.iterdir()} and not Path(name).exists():
        known = sorted(p.name for p in (EMBEDDED / family).iterdir())
        if short not in known:
            raise unknown("embedded model", name, [f"{family}/{k}" for k in known])
        return str(EMBEDDED / family / short)
    if _RUN_ID.fullmatch(name):
        for folder in sorted(Path(results_root).glob(f"*/runs/{name}/model")):
            if _is_done(folder.parent):
                return str(folder)
        raise InputError(f"run {name} has no saved model under {results_root}: run it first, or name a model folder")
    return str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name


def _is_done(run_folder: Path) -> bool:
    try:
        return json.loads((run_folder / "record.json").read_text(encoding="utf-8"))["status"] == "done"
    except (OSError, ValueError, KeyError):
        return False


def load_tokenizer(name: str, results_root: Path, revision: str | None = None) -> Any:
    """Return the tokenizer of a model; without a pad token, the end token pads.

    Raises:
        InputError: no tokenizer there.
    """
    where = locate(name, results_root)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load the tokenizer of {name!r}: {str(error).splitlines()[0]}") from None
    if not tokenizer.is_fast:
        raise InputError(f"the tokenizer of {name!r} has no fast version, which character offsets need")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_student(student: Student, results_root: Path, seed: int = 0) -> nn.Module:
    """Return the student in float32 (its adapters, where it has any, on top of bf16 where the device has it).

    Raises:
        InputError: no such model or attention, or LoRA on a target that does not exist.
    """
    where = locate(student.name, results_root)
    if student.random_config is not None:
        torch.manual_seed(seed)
        config = architecture(student.random_config)
        with _refused(f"cannot make a {config.model_type}"):
            model = AutoModelForCausalLM.from_config(config, **_attention(student.attn_implementation))
    else:
        dtype = _frozen_dtype() if student.lora else torch.float32
        model = _load(where, student.revision, dtype, student.attn_implementation)
    return _with_adapters(model, student.lora, seed) if student.lora else model


def load_teacher(teacher: Teacher, results_root: Path) -> nn.Module:
    """Return the teacher, pruned if that is asked for: evaluation mode, no gradients, bf16 where the device has it."""
    where = locate(teacher.name, results_root)
    model = _load(where, teacher.revision, _frozen_dtype(), teacher.attn_implementation)
    if teacher.pruned:
        prune(model, teacher.pruned)
    return model.eval().requires_grad_(False).to(device())


def device() -> torch.device:
    """Return the accelerator where there is one, otherwise the CPU; Apple's has no float64, which sums are kept in."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if found is None or found.type == "mps" else found


def has_bf16() -> bool:
    """Return whether the GPU computes in bf16; older ones only imitate it."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def weights_hash(name: str, results_root: Path, revision: str | None = None) -> str:
    """Return the sha256 over a model folder's weights, configuration, tokenizer and chat template.

    A model on the hub is known by the commit that its name and revision stand for.

    Raises:
        InputError: a folder without safetensors weights.
    """
    folder = Path(locate(name, results_root))
    if not folder.is_dir():
        return hashlib.sha256(f"{name}@{_commit(name, revision)}".encode()).hexdigest()
    files = sorted({f for pattern in _CONTENT for f in folder.glob(pattern)})
    if not any(f.suffix == ".safetensors" for f in files):
        raise InputError(f"{folder} holds no *.safetensors weights: is it a model saved with save_pretrained?")
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def config_hash(random_config: dict[str, Any], tokenizer: Any) -> str:
    """Return the sha256 of an architecture whose weights are drawn at random, and of the tokenizer it goes with."""
    content = [random_config, tokenizer_hash(tokenizer)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def architecture(random_config: dict[str, Any]) -> Any:
    """Return the configuration that plain fields describe, `model_type` among them.

    Raises:
        InputError: no such architecture, or fields that it refuses.
    """
    fields = dict(random_config)
    kind = fields.pop("model_type", None)
    known = [config.model_type for config in AutoModelForCausalLM._model_mapping]
    if kind not in known:
        raise InputError(f"student.random_config: {unknown('model_type', str(kind), known)}")
    try:
        return AutoConfig.for_model(kind, **fields)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise InputError(f"student.random_config: {' '.join(str(error).split())}") from None


def check_attention(attn_implementation: str | None) -> None:
    """Refuse the name of an attention implementation that transformers does not have.

    Raises:
        InputError: with the nearest known name.
    """
    known = ["eager", *(name for name in ALL_ATTENTION_FUNCTIONS.valid_keys() if "|" not in name)]
    if attn_implementation is not None and attn_implementation not in known:
        raise unknown("attn_implementation", attn_implementation, known)


def shared_vocabulary(student_tokenizer: Any, teacher_tokenizer: Any) -> int:
    """Return how many token ids both models mean the same by: the rows on which they can be compared.

    Models of one family are often padded to different sizes; rows past the tokenizer belong to no token and are left
    out on both sides (padding the smaller side with zeros would give those rows mass).

    Raises:
        InputError: the tokenizers differ.
    """
    ours, theirs = student_tokenizer.get_vocab(), teacher_tokenizer.get_vocab()
    if not same_vocabulary(student_tokenizer, teacher_tokenizer):
        differing = sorted(set(ours.items()) ^ set(theirs.items()))[:3]
        raise InputError(
            f"student and teacher have different tokenizers ({len(ours):,} and {len(theirs):,} tokens; first "
            f"differences: {', '.join(token for token, _ in differing)}): token by token they cannot be compared; "
            "take a teacher with the student's tokenizer, or a method that compares across tokenizers (`uld`, `seqkd`)"
        )
    return token_rows(student_tokenizer)


def token_rows(tokenizer: Any) -> int:
    """Return how many rows of an output head belong to a token: models are often padded to more."""
    return max(tokenizer.get_vocab().values()) + 1


def same_vocabulary(student_tokenizer: Any, teacher_tokenizer: Any) -> bool:
    """Return whether every token has the same id in both."""
    return student_tokenizer.get_vocab() == teacher_tokenizer.get_vocab()


def _commit(name: str, revision: str | None) -> str:
    """Return the commit of a model on the hub.

    Raises:
        InputError: no such model, or no way to reach it.
    """
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load model {name!r}: {str(error).splitlines()[0]}") from None
    return config._commit_hash or revision or "main"


def _load(where: str, revision: str | None, dtype: torch.dtype, attn_implementation: str | None) -> nn.Module:
    attention = _attention(attn_implementation)
    with _refused(f"cannot load model {where!r}"):
        return AutoModelForCausalLM.from_pretrained(
            where, revision=revision, dtype=dtype, trust_remote_code=False, use_safetensors=True, **attention
        )


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Say in one line why transformers cannot make a model."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"{what}: {str(error).splitlines()[0]}") from None


def _attention(attn_implementation: str | None) -> dict[str, str]:
    check_attention(attn_implementation)
    return {} if attn_implementation is None else {"attn_implementation": attn_implementation}


def _frozen_dtype() -> torch.dtype:
    """Weights that no optimizer steps may be bf16 where the accelerator computes in it."""
    return torch.bfloat16 if has_bf16() else torch.float32


def _with_adapters(model: Any, lora: Lora, seed: int) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    targets = lora.lora_target_modules
    config = LoraConfig(
        r=lora.lora_r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise InputError(f"LoRA: {str(error).splitlines()[0]}") from None
