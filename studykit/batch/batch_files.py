"""Batch files: `notebooks/batches/<name>.yaml`, a list of `{notebook, grid: {parameter: [values]}}`. Torch-free.

    - notebook: 01_data_size
      grid: {seed: [0, 1], budget_examples: [500, 5000], epochs: [10, 1]}
      together: [budget_examples, epochs]         # 500 with 10 and 5000 with 1, each with both seeds

They are read by the core schema of YAML 1.2, in which `1e-5` is a number, `010` is ten, and `yes`, `no`, `on`, `off`
and `2026-01-01` are texts. PyYAML follows YAML 1.1: there `1e-5` is a text, `010` is eight, and the others are
booleans and a date.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from studykit.errors import InputError, unknown

_KEYS = ("notebook", "grid", "together")


def read_batch(name: str, folder: Path) -> list[dict[str, Any]]:
    """Return the entries of a batch file.

    Args:
        name: a file in `batches/` of the folder, without its ending, or a path to a YAML file.
        folder: the folder of the notebooks.

    Raises:
        InputError: no such file, or not a list of such entries.
    """
    batches = {path.stem: path for path in (folder / "batches").glob("*.yaml")}
    path = Path(name) if name.endswith((".yaml", ".yml")) else batches.get(name)
    if path is None:
        raise unknown("batch", name, batches)
    try:
        entries = yaml.load(path.read_text(encoding="utf-8"), CoreLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"cannot read batch {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(entries, list) or not entries or not all(map(_is_entry, entries)):
        raise InputError(f"{path} must be a list of {{notebook, grid: {{parameter: [values]}}}}")
    for key in (key for entry in entries for key in entry if key not in _KEYS):
        raise InputError(f"{path}: {unknown('key', key, _KEYS)}")
    return entries


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("notebook"), str)
        and isinstance(entry.get("grid") or {}, dict)
        and isinstance(entry.get("together") or [], list)
        and all(isinstance(key, str) for key in (*entry, *(entry.get("grid") or {}), *(entry.get("together") or [])))
    )


class CoreLoader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema (section 10.3.2 of the specification)."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  instead of those of YAML 1.1


def _whole_number(loader: CoreLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0 if text[:2] in ("0o", "0x") else 10)


for _tag, _pattern, _first_characters in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
):
    CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first_characters)
CoreLoader.add_constructor("tag:yaml.org,2002:int", _whole_number)
