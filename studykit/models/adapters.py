"""Folders of low-rank adapters, as peft saves them: the model that they belong to, and that model with them merged.

base, revision = base_of(folder)                 # of adapter_config.json
model = merge_adapters(model, folder)            # plain weights again, which give the same logits
"""

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from studykit.errors import InputError, one_line
from studykit.models.file_hashes import file_sha256

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_BASE = ("base_model_name_or_path", "revision")
_PROBE_TOKENS = 8
_FIX = "merge them with peft (merge_and_unload), save model and tokenizer with save_pretrained, and name that folder"


def is_adapter_folder(folder: Path) -> bool:
    """Return whether a folder holds adapters, and no weights of a model."""
    return (folder / _CONFIG).is_file() and not any(f.name != _WEIGHTS for f in folder.glob("*.safetensors"))


def base_of(folder: Path) -> tuple[str, str | None]:
    """Return name and revision of the model that adapters belong to.

    Raises:
        InputError: adapters of a kind that cannot be merged, without safetensors, or of a model without a name.
    """
    config = _read_config(folder)
    if config.get("peft_type") != "LORA":
        raise InputError(f"{folder} holds adapters of type {config.get('peft_type')!r}, and only LORA is read: {_FIX}")
    if not (folder / _WEIGHTS).is_file():
        raise InputError(f"{folder} holds no {_WEIGHTS}: save the adapters with safe_serialization=True")
    name, revision = (config.get(key) for key in _BASE)
    if not isinstance(name, str) or not name:
        raise InputError(
            f"{folder}/{_CONFIG} names no base_model_name_or_path (its weights were drawn at random?): write the base "
            "model's folder or id there, or name the merged model"
        )
    return name, revision


def adapters_hash(folder: Path) -> str:
    """Return the sha256 of adapters and their settings; the base model's folder is no part of it."""
    settings = {key: value for key, value in _read_config(folder).items() if key not in _BASE}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(bytes.fromhex(file_sha256(folder / _WEIGHTS)))
    return digest.hexdigest()


def merge_adapters(base: nn.Module, folder: Path, base_name: str) -> nn.Module:
    """Return the base model with adapters merged into its weights; no adapter layers are left.

    Args:
        base: the model that the adapters belong to; it is changed.
        folder: of the adapters.
        base_name: for messages.

    Raises:
        InputError: adapters of another model, or ones that cannot be merged without a change of the logits.
    """
    from peft import PeftConfig, get_peft_model

    what = f"the adapters in {folder} do not fit {base_name!r}"
    try:
        with _no_warnings():
            adapted: Any = get_peft_model(base, PeftConfig.from_pretrained(str(folder)))
            loaded = adapted.load_adapter(str(folder), "default", torch_device="cpu")
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise InputError(f"{what} ({lines[min(1, len(lines) - 1)][:200]}): name their base model, or {_FIX}") from None
    if wrong := [*loaded.missing_keys, *loaded.unexpected_keys]:
        raise InputError(f"{what} ({len(wrong):,} tensors such as {wrong[0]}): name their base model, or {_FIX}")
    before = _logits(adapted)
    try:
        with _no_warnings():
            merged = adapted.merge_and_unload().requires_grad_(True)  # peft has frozen the base
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise InputError(f"the adapters in {folder} cannot be merged: {one_line(error)[:200]}") from None
    config = merged.config.get_text_config()
    if merged.get_output_embeddings().weight is not merged.get_input_embeddings().weight:
        config.tie_word_embeddings = merged.config.tie_word_embeddings = (
            False  # or one would be saved, and read, as both
        )
    tolerance = (1e-3 if before.dtype == torch.float32 else 0.1) * before.float().std()
    if (_logits(merged) - before).abs().max() > tolerance:
        raise InputError(
            f"the adapters in {folder} change the logits when they are merged (adapters on embeddings that are tied to "
            "the output?): untie the embeddings before training them"
        )
    return merged


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Silence peft on tied embeddings: whether a merge changes anything is measured."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@torch.no_grad()
def _logits(model: Any) -> torch.Tensor:
    """Return the logits after a few tokens, float [1, 8, V]."""
    rows = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(_PROBE_TOKENS, device=model.device).remainder(rows)[None]
    model.eval()
    return model(input_ids=ids).logits


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {folder}/{_CONFIG}: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"{folder}/{_CONFIG} is no JSON object")
    return config
