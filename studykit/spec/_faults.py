"""What is wrong in a specification, in one line."""

from typing import Any

from pydantic import BaseModel, ValidationError

from studykit.errors import shown, unknown


def one_line(model: type[BaseModel], error: ValidationError, given: Any) -> str:
    """Turn pydantic's report into one line about its first fault, under its path in the given data."""
    fault = error.errors()[0]
    keys = list(fault["loc"])
    if keys[:1] == ["evaluation"] and isinstance(given.get("evaluation"), dict):
        del keys[1:2]  # a single evaluation is no list
    path = ".".join(map(str, keys))
    if fault["type"] != "extra_forbidden":
        reason = fault["msg"].removeprefix("Value error, ")
        received = (
            "" if keys[-1:] in (["url"], ["api_key_env"]) else f" (received {shown(fault['input'])})"
        )  # a secret?
        return f"specification: {path or 'top level'}: {reason}{received}"
    owner: Any = model
    for part in fault["loc"][:-1]:
        owner = owner if isinstance(part, int) else _part_of(owner.model_fields[part].annotation)
    return f"specification: {path}: {unknown('key', str(fault['loc'][-1]), owner.model_fields)}"


def _part_of(annotation: Any) -> Any:
    """Find the Part class inside annotations such as `Teacher | None` and `tuple[Stage, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in getattr(annotation, "__args__", ()) if (found := _part_of(inner))), None)
