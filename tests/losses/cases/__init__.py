"""One file for each loss: a slow reference, values worked out by hand, and options to try; `..case` says how."""

import pkgutil
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import Any

from ..case import Case

FILES: dict[str, ModuleType] = {
    file.name: import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__)
}


def each(name: str) -> list[tuple]:
    """Return the entries of a list such as `CONSTANTS` in all files, each after the name of its loss."""
    return [(loss, *entry) for loss, file in FILES.items() for entry in getattr(file, name, [])]


CASES: list[Case] = [replace(case, name=loss) for loss, file in FILES.items() for case in file.CASES]
AT_ZEROS = [Case(loss, options) for loss, file in FILES.items() for options in getattr(file, "AT_ZEROS", [])]


def reference(case: Case, *batch: list, **more: Any) -> list[float]:
    """Return the values of a case's slow reference on rows of teacher and student, and labels."""
    return FILES[case.name].reference(*batch, **case.options, **more)
