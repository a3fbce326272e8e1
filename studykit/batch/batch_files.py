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
_MOST_VALUES = 100_000
"""Of a batch file, aliases written out."""


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
        entries = yaml.load(path.read_text(encoding="utf-8-sig"), CoreLoader)
    except yaml.MarkedYAMLError as error:
        raise InputError(f"cannot read batch {path}: {_describe(error)}") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"cannot read batch {path}: {error}") from None
    if not isinstance(entries, list) or not entries or not all(map(_is_entry, entries)):
        raise InputError(f"{path} must be a list of {{notebook, grid: {{parameter: [values]}}}}")
    for key in (key for entry in entries for key in entry if key not in _KEYS):
        raise InputError(f"{path}: {unknown('key', key, _KEYS)}")
    return entries


def _describe(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    place = f"(line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    return " ".join(part for part in (error.context, error.problem, place) if part)


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("notebook"), str)
        and isinstance(entry.get("grid") or {}, dict)
        and isinstance(entry.get("together") or [], list)
        and all(isinstance(key, str) for key in (*entry, *(entry.get("grid") or {}), *(entry.get("together") or [])))
    )


class CoreLoader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema (section 10.3.2 of the specification).

    It refuses a key that is given twice, of which PyYAML takes the last, and aliases that multiply beyond what a file
    of parameters can mean.
    """

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  instead of those of YAML 1.1

    def get_single_node(self) -> Any:
        """Return the document's root, checked."""
        root = super().get_single_node()
        if root is not None:
            _count_values(root, {})
        return root


def _count_values(node: yaml.Node, counts: dict[int, int]) -> int:
    """Return the number of values in a node with every alias written out; `counts` holds those of the nodes seen.

    Raises:
        yaml.MarkedYAMLError: a key given twice, an alias inside what it names, or too many values.
    """
    if id(node) in counts:
        if not counts[id(node)]:
            raise yaml.MarkedYAMLError(problem="an alias stands inside what it names", problem_mark=node.start_mark)
        return counts[id(node)]
    counts[id(node)] = 0
    children = []
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    counts[id(node)] = 1 + sum(_count_values(child, counts) for child in children)
    if counts[id(node)] > _MOST_VALUES:
        raise yaml.MarkedYAMLError(problem=f"more than {_MOST_VALUES:,} values", problem_mark=node.start_mark)
    return counts[id(node)]


def _check_keys(node: yaml.MappingNode) -> None:
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                problem = f"the key {key.value!r:.40} is given twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add((key.tag, key.value))


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
