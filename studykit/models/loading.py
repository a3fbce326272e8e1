"""Load students and teachers.

What transformers imports for its models takes seconds: it is imported when the first one is made.
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.utils import logging as transformers_logging

from studykit.chat import tokenizer_hash
from studykit.errors import InputError, unknown
from studykit.models.adapters import merge_adapters
from studykit.models.lora_targets import without_adapters
from studykit.models.names import ModelRef
from studykit.models.placement import placement
from studykit.models.probe import probe
from studykit.models.projection import output_head
from studykit.models.sharding import is_sharding, shard
from studykit.spec import Lora, Student, Teacher

_LOG = logging.getLogger(__name__)
_MOST_LAYERS = 10_000
_ALL = "all-linear"

transformers_logging.disable_progress_bar()  # a bar per saved shard is noise in a log file


def load_student(student: Student, model: ModelRef, seed: int = 0) -> nn.Module:
    """Return the student in float32 (with adapters: its base in bf16 where the device has it).

    A student that is a folder of adapters starts from its base model with these merged into the weights; what is
    trained is then all weights, or new adapters.

    Args:
        student: architecture, adapters and attention.
        model: as found by the student's name.
        seed: of random weights, and of the adapters'.

    Raises:
        InputError: no such model or attention, LoRA on a target that does not exist, or losses that would be wrong.
    """
    if student.random_config is not None:
        torch.manual_seed(seed)
        config = architecture(student.random_config)
        with _refused(f"cannot make a {config.model_type}"):
            loaded = transformers.AutoModelForCausalLM.from_config(config, **_checked(student.passed_to("from_config")))
    else:
        dtype = _frozen_dtype() if student.lora else torch.float32
        loaded = _load(model, dtype, student.passed_to("from_pretrained"))
    if student.lora:
        loaded = _with_adapters(loaded, student.lora, seed)
        _name_base(loaded, None if student.random_config is not None else model)
    for part in (student, student.lora):
        loaded = loaded if part is None else part.apply_to("student", loaded)
    probe(loaded, student.name)
    return loaded


def load_adapters(student: nn.Module, folder: Path) -> None:
    """Give a student with adapters those that were saved in a folder."""
    from peft import load_peft_weights, set_peft_model_state_dict

    set_peft_model_state_dict(student, load_peft_weights(str(folder), device="cpu"))


def load_teacher(model: ModelRef, how: Teacher | None = None, *, sharded: bool = False) -> nn.Module:
    """Return a model that is not trained: evaluation mode, no gradients, bf16 where the device has it.

    Args:
        model: as found by its name.
        how: pruned, quantised or spread over devices as this specification says; None as it is.
        sharded: divide it among the processes of the run, where these shard their models.

    Raises:
        InputError: no such model or attention, losses that would be wrong, or an output head that is offloaded.
    """
    passed = {} if how is None else how.passed_to("from_pretrained")
    placed = {} if how is None else placement(how)
    loaded: Any = _load(model, _frozen_dtype(), passed | placed)
    if how is not None:
        loaded = how.apply_to("teacher", loaded)
    if output_head(loaded).weight.device.type == "meta":
        raise InputError(
            f"device_map leaves the output head of {model.name!r} to the CPU or the disk: give it to a device, such as "
            "device_map={..., 'lm_head': 0}, or take a smaller quantization"
        )
    probe(loaded, model.name)
    loaded = loaded.eval().requires_grad_(False)
    if sharded and is_sharding() and not placed:
        shard(loaded)
        return loaded
    return loaded if placed else loaded.to(device())


def device() -> torch.device:
    """Return the accelerator, or the CPU without one; Apple's is not used, since it cannot sum in float64."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if accelerator is None or accelerator.type == "mps" else accelerator


def has_bf16() -> bool:
    """Return whether the GPU computes in bf16; older ones only imitate it."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def config_hash(random_config: dict[str, Any], tokenizer: Any) -> str:
    """Return the sha256 of an architecture whose weights are drawn at random, and of the tokenizer it goes with."""
    content = [random_config, tokenizer_hash(tokenizer)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def architecture(random_config: dict[str, Any]) -> Any:
    """Return the configuration that plain fields describe, `model_type` among them.

    Raises:
        InputError: no such architecture, or fields that it refuses.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    fields = dict(random_config)
    kind = fields.pop("model_type", None)
    if not isinstance(kind, str) or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        known = list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
        raise InputError(f"student.random_config: {unknown('model_type', str(kind), known)}")
    try:
        config = transformers.AutoConfig.for_model(kind, **fields)
    except Exception as error:  # whatever a configuration makes of its fields
        raise InputError(f"student.random_config: {str(error) or type(error).__name__}") from None
    layers = getattr(config, "num_hidden_layers", 0)
    if isinstance(layers, int) and layers > _MOST_LAYERS:
        raise InputError(f"student.random_config: {layers:,} layers are more than {_MOST_LAYERS:,}")
    return config


def check_attention(attn_implementation: str | None) -> None:
    """Refuse the name of an attention implementation that transformers does not have.

    Raises:
        InputError: with the nearest known name.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    known = ["eager", *(name for name in ALL_ATTENTION_FUNCTIONS.valid_keys() if "|" not in name)]
    if attn_implementation is not None and attn_implementation not in known:
        raise unknown("attn_implementation", attn_implementation, known)


def _load(model: ModelRef, dtype: torch.dtype, passed: dict[str, Any]) -> nn.Module:
    if model.base is not None:
        base = _load(model.base, dtype, passed)
        return merge_adapters(base, Path(model.path), model.base.name)
    _check_generation_config(Path(model.path))
    with _refused(f"cannot load model {model.path!r}"):
        made: Any = transformers.AutoModelForCausalLM.from_pretrained(
            model.path,
            revision=model.revision,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **_checked(passed),
        )
    loaded, report = made
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            f"cannot load model {model.path!r}: its files lack {len(missing):,} of the tensors of a "
            f"{type(loaded).__name__}, such as {missing[0]}, which would be random: save the whole causal language "
            "model again, or correct architectures and tie_word_embeddings in its config.json"
        )
    if unread := sorted(report["unexpected_keys"]):
        _LOG.warning(
            "model %r: a %s reads %s tensors of its files not, such as %s",
            *(model.path, type(loaded).__name__, f"{len(unread):,}", unread[0]),
        )
    return loaded


def _check_generation_config(folder: Path) -> None:
    """Refuse a damaged generation_config.json, which transformers passes over, and the end tokens in it."""
    file = folder / "generation_config.json"
    if not file.is_file():
        return
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}): repair it, or remove it") from None
    ends = config.get("eos_token_id") if isinstance(config, dict) else file
    ends = ends if isinstance(ends, list) else [ends]
    if wrong := [end for end in ends if end is not None and (isinstance(end, bool) or not isinstance(end, int))]:
        raise InputError(f"{file}: eos_token_id must be a token id, or a list of them, received {wrong[0]!r:.80}")


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Raise a one-line error where transformers cannot make a model, for whatever reason."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        if "ignore_mismatched_sizes" in reason:
            reason = "its weights have other sizes than its config.json says: save model and configuration again"
        raise InputError(f"{what}: {reason[:300]}") from None


def _checked(passed: dict[str, Any]) -> dict[str, Any]:
    check_attention(passed.get("attn_implementation"))
    return passed


def _frozen_dtype() -> torch.dtype:
    """Return the dtype of weights that are not trained: bf16 where the accelerator computes in it."""
    return torch.bfloat16 if has_bf16() else torch.float32


def _name_base(student: Any, model: ModelRef | None) -> None:
    """Name the model of new adapters so that they find it again, wherever they are saved; None for random weights."""
    settings = student.peft_config["default"]
    settings.base_model_name_or_path = "" if model is None else model.lasting_name
    settings.revision = None if model is None else model.revision


def _with_adapters(model: Any, lora: Lora, seed: int) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    targets = lora.lora_target_modules
    config = LoraConfig(
        target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=(without_adapters(model) or None) if targets == _ALL else None,
        task_type="CAUSAL_LM",
        **lora.passed_to("LoraConfig"),
    )
    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings():  # peft reads a property that transformers 5 has renamed
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            return get_peft_model(model, config)
    except ValueError as error:
        raise InputError(f"LoRA: {str(error).splitlines()[0]}") from None
