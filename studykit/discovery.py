"""Find the things of a room by their file names: one new file is one new loss, sampler, source, ...

A room is a package such as `studykit.losses`. Every module in it whose name has no leading underscore adds one
thing, named like the file. Nothing is registered anywhere: adding the file is the whole edit.

    room = Room("studykit.losses", kind="loss")
    room.names()                         # ["cross_entropy", "forward_kl", ...], without importing them
    room.member("forward_kl")            # the function forward_kl in studykit/losses/forward_kl.py
"""

import ast
import inspect
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from studykit.errors import InputError, unknown

_SOURCE = re.compile(r"^ *Source:\s+(.+?)\s*(?:\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Room:
    """One package of like things.

    Args:
        package: import path of the package, such as `"studykit.losses"`.
        kind: what one of them is called in messages, such as `"loss"`.
    """

    package: str
    kind: str

    def names(self) -> list[str]:
        """Return the sorted names of all things in the room, importing none of them."""
        return sorted(m.name for m in pkgutil.iter_modules([str(self._folder())]) if not m.name.startswith("_"))

    def module(self, name: str) -> ModuleType:
        """Import and return the module of one thing.

        Raises:
            InputError: no file of that name; the nearest name is suggested.
        """
        if name not in self.names():
            raise unknown(self.kind, name, self.names())
        return import_module(f"{self.package}.{name}")

    def member(self, name: str) -> Any:
        """Return the function (or class) that a module is named after.

        Raises:
            InputError: no such module.
            TypeError: the module defines neither `name` nor its CamelCase form.
        """
        module = self.module(name)
        camel = "".join(part.capitalize() for part in name.split("_"))
        for attribute in (name, camel):
            if hasattr(module, attribute):
                return getattr(module, attribute)
        raise TypeError(f"{module.__file__} must define {name}(...) or class {camel}, as its file name promises")

    def describe(self, name: str) -> str:
        """Return the first line of a module's docstring, without importing it (torch stays asleep)."""
        return (self._docstrings(name)[0]).partition("\n")[0]

    def source(self, name: str) -> str:
        """Return the paper that a module's docstrings name under "Source:", without importing it; "" for none."""
        found = (_SOURCE.search(text) for text in self._docstrings(name))
        return next((" ".join(match[1].split()) for match in found if match), "")

    def _docstrings(self, name: str) -> list[str]:
        """Return the docstrings of a module and of what stands at its top level, the module's first."""
        tree = ast.parse((self._folder() / f"{name}.py").read_text(encoding="utf-8"))
        inside = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        return [ast.get_docstring(node) or "" for node in (tree, *inside)]

    def _folder(self) -> Path:
        found = find_spec(self.package)
        if found is None or found.origin is None:
            raise ModuleNotFoundError(f"no package {self.package}")
        return Path(found.origin).parent


def check_options(kind: str, name: str, make: Callable[..., Any], options: dict[str, Any]) -> None:
    """Refuse options that `make` does not take as keywords, before anything is loaded.

    Raises:
        InputError: naming the nearest option that exists.

    >>> def jsd(x, *, beta=0.5): ...
    >>> check_options("loss", "jsd", jsd, {"betta": 0.1})
    Traceback (most recent call last):
    studykit.errors.InputError: loss 'jsd': unknown option 'betta'; did you mean 'beta'?
    """
    parameters = inspect.signature(make).parameters.values()
    known = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise InputError(f"{kind} {name!r}: {unknown('option', option, known)}")
