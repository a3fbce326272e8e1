"""Find the things of a room by their file names, and check their options: one new file is one new loss, sampler, ...

A room is a package such as `studykit.losses`. Every module in it whose name has no leading underscore adds one
thing, named like the file. Nothing is registered anywhere: adding the file is the whole edit.

    room = Room("studykit.losses", kind="loss")
    room.names()                         # ["cross_entropy", "forward_kl", ...], without importing them
    room.member("forward_kl")            # the function forward_kl in studykit/losses/forward_kl.py

The keyword parameters of a thing are its options, and their annotations are type and range, here checked for all
rooms by pydantic. The bool class attributes of its base are its flags; a file with a plain function sets them in
capitals:

    check_options("loss", "jsd", jsd, {"beta": 0.1})
    flags(Loss, module)                  # {"needs_teacher": True, "couples_rows": False, ...}
"""

import ast
import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from studykit.errors import InputError, shown, unknown

_ARGUMENTS = re.compile(r"^Args:\n((?: .*\n?|\n)+)", re.MULTILINE)
_ARGUMENT = re.compile(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", re.MULTILINE)
_IMPORTED_TEXT = "__imported_text__"
"""Attribute of an imported module: the text of its file at that time, which Python itself does not keep."""
_LIMITS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


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
        return sorted(file[:-3] for file in os.listdir(self.folder) if file.endswith(".py") and file[0] != "_")

    def module(self, name: str) -> ModuleType:
        """Import and return the module of one thing.

        Raises:
            InputError: no file of that name; the nearest name is suggested.
        """
        self.check(name)
        module = import_module(f"{self.package}.{name}")
        vars(module).setdefault(_IMPORTED_TEXT, self._text(name))
        return module

    def check_unchanged(self, name: str) -> None:
        """Refuse a thing whose file was edited after this process imported it: what would run is the old code.

        Raises:
            InputError: naming the file.
        """
        if vars(self.module(name))[_IMPORTED_TEXT] != self._text(name):
            raise InputError(
                f"{self.kind} {name!r}: its file was edited after it was imported: restart the notebook's kernel (or "
                "this process) to run the new code"
            )

    def check(self, name: str) -> None:
        """Refuse a name that no file has; nothing is imported.

        Raises:
            InputError: with the nearest name.
        """
        if name not in self.names():
            raise unknown(self.kind, name, self.names())

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
        """Return the first line of a module's docstring, without importing it, and hence torch."""
        return (self._docstrings(name)[0]).partition("\n")[0]

    def options(self, name: str) -> Mapping[str, "Option"]:
        """Return the options of one thing by name: its keywords, or its attribute `options` where it has one."""
        member = self.member(name)
        return member.options if hasattr(member, "options") else options_of(member)

    def source(self, name: str) -> str:
        """Return the paper that a module's docstrings name under "Source:", without importing it; "" for none."""
        return next(iter(self.paragraphs(name, "Source")), "")

    def paragraphs(self, name: str, label: str) -> list[str]:
        """Return the paragraphs of a module's docstrings that begin with a label and a colon, in one line each.

        Args:
            name: of the module, which is not imported.
            label: without the colon, such as "Source".
        """
        pattern = re.compile(rf"^ *{re.escape(label)}:\s+(.+?)\s*(?:\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)
        return [" ".join(text.split()) for docstring in self._docstrings(name) for text in pattern.findall(docstring)]

    def _text(self, name: str) -> str:
        return (self.folder / f"{name}.py").read_text(encoding="utf-8")

    def _docstrings(self, name: str) -> list[str]:
        """Return the docstrings of a module and of its functions and classes, the module's first."""
        tree = ast.parse(self._text(name))
        inside = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        return [ast.get_docstring(node) or "" for node in (tree, *inside)]

    @property
    def folder(self) -> Path:
        """The folder of the package."""
        found = find_spec(self.package)
        if found is None or found.origin is None:
            raise ModuleNotFoundError(f"no package {self.package}")
        return Path(found.origin).parent


@dataclass(frozen=True)
class Option:
    """One keyword option of a loss, rollout, sampler, source or method.

    Args:
        name: the keyword.
        annotation: type and range, such as `Annotated[float, Field(ge=0, lt=1)]`; a `Literal`, a union, or `Any`.
        default: `inspect.Parameter.empty` where a value is required.
        description: its text in the docstring under "Args:", or else its annotation, in one line.
    """

    name: str
    annotation: Any = Any
    default: Any = inspect.Parameter.empty
    description: str = field(default="", repr=False)

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is inspect.Parameter.empty

    @property
    def type_name(self) -> str:
        """Type and range in one line.

        >>> from typing import Annotated
        >>> from pydantic import Field
        >>> Option("beta", Annotated[float, Field(ge=0, lt=1)] | None).type_name
        'float (>= 0, < 1) | None'
        """
        return _type_name(self.annotation)

    def describe(self) -> dict[str, Any]:
        """Return default, type and description as plain data; without a default a value is required."""
        default = {} if self.required else {"default": self.default}
        return default | {"type": self.type_name, "description": self.description}

    def fault(self, value: Any) -> str | None:
        """Return why a value is refused, or None for a valid one.

        A number in quotes, a truth value for a number, NaN and infinity are refused; an integer is a valid float.

        >>> from typing import Annotated
        >>> from pydantic import Field
        >>> Option("beta", Annotated[float, Field(ge=0, le=1)]).fault(1.5)
        'beta must be less than or equal to 1, received 1.5'
        """
        try:
            self._validator.validate_python(value)
        except ValidationError as error:
            faults = error.errors(include_url=False)
            where = "".join(f"[{part}]" for part in faults[0]["loc"] if isinstance(part, int))
            reasons = dict.fromkeys(fault["msg"].removeprefix("Input should be ") for fault in faults)
            return f"{self.name}{where} must be {' or '.join(reasons)}, received {shown(value)}"
        return None

    @cached_property
    def _validator(self) -> TypeAdapter:
        return TypeAdapter(self.annotation, config=ConfigDict(strict=True, allow_inf_nan=False))


@cache
def options_of(make: Callable[..., Any]) -> Mapping[str, Option]:
    """Return the keyword-only parameters of a function or class by name, in their order.

    >>> def jsd(x, *, beta: float = 0.5): ...
    >>> options_of(jsd)["beta"]
    Option(name='beta', annotation=<class 'float'>, default=0.5)
    """
    parameters = inspect.signature(make, eval_str=True).parameters.values()
    about = _argument_descriptions(make)
    return {
        p.name: Option(
            p.name,
            Any if p.annotation is p.empty else p.annotation,
            p.default,
            about.get(p.name) or _field_description(p.annotation),
        )
        for p in parameters
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _argument_descriptions(make: Callable[..., Any]) -> dict[str, str]:
    """Return the text on each argument in a docstring, under "Args:", in one line each."""
    arguments = _ARGUMENTS.search(inspect.getdoc(make) or "")
    found = _ARGUMENT.findall(arguments[1]) if arguments else []
    return {name: " ".join(text.split()) for name, text in found}


def _field_description(annotation: Any) -> str:
    """Return the description that an annotation holds itself, as `Annotated[float, Field(description=...)]` does."""
    found = (getattr(part, "description", None) for part in get_args(annotation)[1:])
    return next((text for text in found if isinstance(text, str)), "")


def _type_name(annotation: Any) -> str:
    parts = get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(map(_type_name, parts))
    if get_origin(annotation) is Annotated:
        limits = [limit for part in parts[1:] for limit in getattr(part, "metadata", [part])]
        texts = [f"{sign} {getattr(x, name):g}" for x in limits for name, sign in _LIMITS.items() if hasattr(x, name)]
        return f"{_type_name(parts[0])} ({', '.join(texts)})" if texts else _type_name(parts[0])
    return "None" if annotation is type(None) else inspect.formatannotation(annotation).replace("typing.", "")


def check_options(
    kind: str, name: str, make: Callable[..., Any] | Mapping[str, Option], options: Mapping[str, Any]
) -> None:
    """Refuse unknown and missing options, and values outside their type or range, before anything is loaded.

    Args:
        kind: such as `"loss"`, for the message.
        name: of the loss, for the message.
        make: the function or class that takes the options as keywords, or the options themselves by name.
        options: the values that were given.

    Raises:
        InputError: naming the first option at fault; for an unknown one the nearest that exists.

    >>> from typing import Annotated
    >>> from pydantic import Field
    >>> def jsd(x, *, beta: Annotated[float, Field(ge=0, le=1)] = 0.5): ...
    >>> check_options("loss", "jsd", jsd, {"betta": 0.1})
    Traceback (most recent call last):
    studykit.errors.InputError: loss 'jsd': unknown option 'betta'; did you mean 'beta'?
    >>> check_options("loss", "jsd", jsd, {"beta": "0.5"})
    Traceback (most recent call last):
    studykit.errors.InputError: loss 'jsd': beta must be a valid number, received '0.5'
    """
    known = make if isinstance(make, Mapping) else options_of(make)
    for option, value in options.items():
        if option not in known:
            raise InputError(f"{kind} {name!r}: {unknown('option', option, known)}")
        if fault := known[option].fault(value):
            raise InputError(f"{kind} {name!r}: {fault}")
    missing = [option.name for option in known.values() if option.required and option.name not in options]
    if missing:
        raise InputError(f"{kind} {name!r}: option {missing[0]!r} is required")


def flags(base: type, module: ModuleType) -> dict[str, bool]:
    """Return all flags of a thing: the bool class attributes of its base, as the module sets them in capitals.

    The base holds the defaults: `couples_rows = False` there is `COUPLES_ROWS = True` in a module. Other capitals of
    a module are constants as long as they are numbers or texts.

    Raises:
        InputError: a module sets an unknown flag, or a flag that is not True or False.
    """
    defaults = {name: value for name, value in vars(base).items() if isinstance(value, bool)}
    capitals = {name.lower(): value for name, value in vars(module).items() if name.isupper() and name[0] != "_"}
    capitals.pop("type_checking", None)  # of typing, and no flag
    for name, value in capitals.items():
        if name in defaults and not isinstance(value, bool):
            raise InputError(f"{module.__name__}: {name.upper()} must be True or False, received {shown(value)}")
        if isinstance(value, bool) and name not in defaults:
            raise InputError(f"{module.__name__}: {unknown('flag', name.upper(), [flag.upper() for flag in defaults])}")
    return {name: capitals.get(name, value) for name, value in defaults.items()}
