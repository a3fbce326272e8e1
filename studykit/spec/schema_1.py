"""Specifications of schema 1 under today's names of fields: their meaning is the same."""

from typing import Any

_RENAMED_OPTIONS = {"choose": "select"}
"""Options of methods that have another name since schema 2."""

_RENAMED_LOSSES = {"decoupled": "decoupled_kl"}
"""Losses that have another name since schema 2. Rollouts were renamed too, but no method has an option for them."""


def is_schema_1(plain: Any) -> bool:
    """Whether a specification was pinned under schema 1, in which the student's hash was called `content`."""
    student = plain.get("student") if isinstance(plain, dict) else None
    return isinstance(student, dict) and "content" in student


def from_schema_1(plain: dict[str, Any]) -> dict[str, Any]:
    """Return a specification of schema 1 under today's names of fields; its meaning is the same.

    >>> from_schema_1({"student": {"name": "a", "content": "f0"}, "stages": []})
    {'student': {'name': 'a', 'sha256': 'f0'}, 'stages': []}
    """
    changes = {part: _renamed(plain[part], content="sha256") for part in ("student", "teacher") if part in plain}
    if isinstance(plain.get("stages"), list):
        changes["stages"] = [_stage_from_schema_1(stage) for stage in plain["stages"]]
    if isinstance(plain.get("evaluation"), dict):
        changes["evaluation"] = _with_data_from_schema_1(plain["evaluation"])
    return plain | changes


def _stage_from_schema_1(stage: Any) -> Any:
    if not isinstance(stage, dict):
        return stage
    options = _renamed(stage.get("method_options", {}), **_RENAMED_OPTIONS)
    if isinstance(options, dict) and options.get("loss") in list(_RENAMED_LOSSES):
        options |= {"loss": _RENAMED_LOSSES[options["loss"]]}
    return _renamed(_with_data_from_schema_1(stage), chosen="selected_sha256") | {"method_options": options}


def _with_data_from_schema_1(part: dict[str, Any]) -> dict[str, Any]:
    return part | {name: _renamed(part[name], content="sha256") for name in ("data", "validation") if name in part}


def _renamed(part: Any, **names: str) -> Any:
    return {names.get(key, key): value for key, value in part.items()} if isinstance(part, dict) else part
