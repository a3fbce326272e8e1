"""The tables of docs/models.md, from what `tools.architectures` and `tools.families` have found."""

import json
from collections.abc import Mapping
from pathlib import Path

from tools.architectures import NOT_MADE, REFUSED, RIGHT, WRONG
from tools.families import FAMILIES, Family

CAPABILITIES = ("logits", "padding", "gradients", "sft", "kd", "kd, cached", "gkd", "LoRA", "generation", "saving")
"""What every model that is not refused must do; packing may be refused alone, and rows are then padded."""


def format_page(folder: Path) -> str:
    """Return the generated block of the page."""
    found = json.loads((folder / "transformers.json").read_text(encoding="utf-8"))
    templates = json.loads((folder / "templates.json").read_text(encoding="utf-8"))
    types: dict[str, dict[str, str]] = found["types"]
    versions = ", ".join(f"{name} {number}" for name, number in (found["versions"] | templates["versions"]).items())
    return "\n\n".join(
        (
            f"Tried with {versions}, on small random weights on a CPU.",
            "### Families",
            _families(types, templates["families"]),
            "### Architectures",
            _summary(types),
            _by_reason("Refused when they are loaded, before anything is trained", types, "loading"),
            _partly(types),
            _by_reason("No small model could be made of these", types, NOT_MADE),
        )
    )


def _families(types: Mapping[str, Mapping[str, str]], templates: Mapping[str, Mapping[str, str]]) -> str:
    head = (
        "| family | model type | a turn ends with | trained on what trl trains on | several turns | system | logits "
        "| LoRA | generation |"
    )
    rows = [_family_row(family, types.get(family.model_type, {}), templates.get(family.name)) for family in FAMILIES]
    return "\n".join([head, "|" + " --- |" * 9, *rows])


def _family_row(family: Family, outcomes: Mapping[str, str], template: Mapping[str, str] | None) -> str:
    chat = ["no template at hand", "", "", ""]
    if template is not None:
        chat = [f"`{template['end']}`", template.get("mask", ""), template.get("turns", ""), template.get("system", "")]
    tried = [_word(outcomes, name) for name in ("logits", "LoRA", "generation")]
    return "| " + " | ".join([family.name, f"`{family.model_type}`", *map(_cell, chat), *tried]) + " |"


def _word(outcomes: Mapping[str, str], name: str) -> str:
    return outcomes.get(name, outcomes.get("loading", "not tried")).partition(":")[0]


def _cell(text: str) -> str:
    return text.replace("|", "\\|") if text.startswith("`") else _escape(text)


def _summary(types: Mapping[str, Mapping[str, str]]) -> str:
    right = [name for name, outcomes in types.items() if is_right(outcomes)]
    listed = ", ".join(f"`{name}`" for name in right)
    return (
        f"Of {len(types)} causal model types, {len(right)} do all of it right: logits as the model's own, alone and "
        f"padded; `sft`, `kd` (live and cached), `gkd` and LoRA, whose first losses equal a plain computation; greedy "
        f"answers as by forward passes without a cache; saving and loading.\n\n{listed}."
    )


def is_right(outcomes: Mapping[str, str]) -> bool:
    """Whether a model type does everything that it must."""
    return all(outcomes.get(name) == RIGHT for name in CAPABILITIES)


def _partly(types: Mapping[str, Mapping[str, str]]) -> str:
    rows = []
    for name, outcomes in types.items():
        if NOT_MADE in outcomes or "loading" in outcomes or is_right(outcomes):
            continue
        parts = [(what, text) for what, text in outcomes.items() if text.startswith((REFUSED, WRONG))]
        by_text: dict[str, list[str]] = {}
        for what, text in parts:
            by_text.setdefault(text, []).append(what)
        rows += [
            f"| `{name}` | {', '.join(whats)} | {_reason(text)} |"
            for text, whats in by_text.items()
            if whats != ["packing"]
        ]
    if not rows:
        return "No type does a part of it only."
    return "\n".join(["Right in part:", "", "| model type | what | outcome |", "| --- | --- | --- |", *rows])


def _by_reason(title: str, types: Mapping[str, Mapping[str, str]], key: str) -> str:
    rows = [f"| `{name}` | {_reason(outcomes[key])} |" for name, outcomes in types.items() if key in outcomes]
    return (
        "\n".join([f"{title}:", "", "| model type | reason |", "| --- | --- |", *rows]) if rows else f"{title}: none."
    )


def _reason(text: str) -> str:
    return _escape(text.removeprefix(f"{REFUSED}: "))[:240]


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
