"""Versions of a record, and the step from each to the next.

A reader accepts every older version through `MIGRATIONS` and refuses a newer one clearly. A change of the record's
layout adds one function here and raises `SCHEMA`.
"""

import json
from collections.abc import Callable
from typing import Any

from studykit.errors import InputError
from studykit.spec import Lora, Part, Stage

SCHEMA = 1

_TRAINING = ("lr_scheduler_type", "warmup_ratio", "weight_decay", "max_grad_norm", "bf16")
_ADAPTERS = ("lora_alpha", "lora_dropout", "lora_target_modules")

STATUSES = ("done", "failed", "running", "stale")
"""`running` holds its folder's lock; `stale` holds none and left no record: killed on the way, and resumable."""

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""From version n to n + 1; empty while there has been one version only."""


def migrate(record: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the record in today's layout.

    Raises:
        InputError: no version, or one newer than this code knows.
    """
    version = record.get("schema")
    if not isinstance(version, int) or version < 1:
        raise InputError(f"{where} has no schema version: it was not written by studykit")
    if version > SCHEMA:
        raise InputError(f"{where} has schema {version}, this studykit reads up to {SCHEMA}: update studykit")
    while version < SCHEMA:
        record = MIGRATIONS[version](record)
        version += 1
    return record


def row(record: dict[str, Any], study: str) -> dict[str, Any]:
    """Return one line of the table of runs: identity, status, metrics, cost."""
    spec = record["spec"]
    manifests = record.get("data", [])
    stages = spec["stages"]
    asked = [stage["data"].get("budget", {}).get("examples") for stage in _distinct(stages, "data")]
    drawn = _distinct(manifests, "examples_sha256")  # stages on the same examples have one budget
    return {
        "run_id": record["run_id"],
        "study": study,
        "ablation": record.get("ablation", ""),
        "method": " > ".join(stage["method"] for stage in stages),
        "student": spec["student"]["name"],
        "teacher": (spec.get("teacher") or {}).get("name"),
        "budget_examples": _total([m["examples"] for m in drawn] or asked),
        "budget_tokens": _total([m.get("response_tokens") for m in drawn]),
        "seed": spec["seed"],
        "status": record["status"],
        "steps": sum(stage["steps"] for stage in stages),
        "options": _options(spec),
        **record.get("metrics", {}),
        **{f"teacher_{name}": value for name, value in record.get("teacher_metrics", {}).items()},
        **record.get("cost", {}),
    }


def _options(spec: dict[str, Any]) -> str:
    """Return in words what else tells runs of one method apart: runs with other options are not to be averaged."""
    parts: dict[str, Any] = {}
    for number, stage in enumerate(spec["stages"]):
        where = f"stage {number + 1} " if len(spec["stages"]) > 1 else ""
        batch = stage.get("batch_size", 1) * stage.get("gradient_accumulation_steps", 1)
        budget = stage["data"].get("budget", {})
        own = {"lr": stage.get("learning_rate"), "batch": batch, "sampler": budget.get("sampler")}
        own |= {
            "source": stage["data"]["source"],
            **stage["data"].get("options", {}),
            **{f"sampler_{name}": value for name, value in (budget.get("options") or {}).items()},
            **_changed(Stage, stage, _TRAINING),
            **stage.get("method_options", {}),
        }
        parts |= {f"{where}{name}": value for name, value in own.items()}
    if lora := spec["student"].get("lora"):
        parts |= {"lora_r": lora.get("lora_r"), **_changed(Lora, lora, _ADAPTERS)}
    teacher = spec.get("teacher") or {}
    parts |= {f"teacher_{name}": teacher.get(name) for name in ("top_k", "samples", "pruned")}
    parts["test_items"] = (spec.get("evaluation") or {}).get("items")
    return ", ".join(f"{name}={_short(value)}" for name, value in parts.items() if value is not None)


def _changed(part: type[Part], values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the values that are not their field's default."""
    return {name: values[name] for name in names if name in values and values[name] != part.model_fields[name].default}


def _distinct(parts: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Return the parts without those whose value repeats an earlier one's; parts without it all stay."""
    kept: list[dict[str, Any]] = []
    for part in parts:
        if part.get(key) is None or all(part[key] != other.get(key) for other in kept):
            kept.append(part)
    return kept


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _total(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
