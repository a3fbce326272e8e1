"""The base of all parts of a specification."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from studykit.errors import InputError
from studykit.files import check_plain
from studykit.spec._faults import one_line


@dataclass(frozen=True)
class PassedTo:
    """Marks a field that is an argument of another library's function: nothing else needs to read it.

    Attributes:
        function: its name, such as "LoraConfig".
        keyword: name of the argument; None where it is that of the field.
    """

    function: str
    keyword: str | None = None


Thing = Literal["examples", "student", "teacher", "training", "optimizer"]


@dataclass(frozen=True)
class AppliedTo:
    """Marks a field with the function that acts on it: nothing else needs to read it.

    It is called in every process, and again where a run goes on or its trained model is loaded: then it must leave
    trained weights as they are.

    Attributes:
        thing: what the function gets; each has its parts of a specification.
            "examples" (Data): of the source, before they are hashed, filtered and drawn.
            "student" (Student, Lora): loaded, with its adapters, before it is tried and divided among processes.
            "teacher" (Teacher): loaded; the field is in the key of its cache.
            "training" (Stage): the student while a stage trains it.
            "optimizer" (Stage): a new one, before it takes a step.
        function: of the thing and the field's value; returns what takes the thing's place, or None where it has changed
            the thing itself. For "training" it is a context manager, since the next stage trains the same student.
        off: value with which it is not called, besides None and the field's default.
    """

    thing: Thing
    function: Callable[[Any, Any], Any]
    off: Any = None

    def __post_init__(self) -> None:
        if not callable(self.function):  # Python assigns a field's default before it reads the annotation
            raise TypeError(f"AppliedTo({self.thing!r}, ...): give the function another name than the field's")


class Part(BaseModel):
    """Base of all parts: frozen, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __pydantic_init_subclass__(cls, **given: Any) -> None:
        """Refuse a mark that nothing would see, as in `Annotated[float, PassedTo("AdamW")] | None`."""
        super().__pydantic_init_subclass__(**given)
        for name, field in cls.model_fields.items():
            if _holds_mark(field.annotation):
                raise TypeError(f"{cls.__name__}.{name}: a mark belongs to the whole type: Annotated[... | None, mark]")

    def passed_to(self, function: str) -> dict[str, Any]:
        """Return the arguments of another library's function that are fields of this part; `None` is left out.

        Args:
            function: its name in the fields' `PassedTo`.
        """
        return {
            mark.keyword or name: value
            for name, field in type(self).model_fields.items()
            for mark in field.metadata
            if isinstance(mark, PassedTo) and mark.function == function and (value := getattr(self, name)) is not None
        }

    def acting_on(self, thing: Thing) -> dict[str, Any]:
        """Return the values of the fields that are applied to a thing, by name; those that are off are left out."""
        return {name: value for name, value, _ in self._acting_on(thing)}

    def apply_to(self, thing: Thing, given: Any) -> Any:
        """Return a thing after the functions of the fields that act on it, in the order of the fields."""
        for _, value, function in self._acting_on(thing):
            changed = function(given, value)
            given = given if changed is None else changed
        return given

    @contextmanager
    def applied_to(self, thing: Thing, given: Any) -> Iterator[None]:
        """Apply the fields that act on a thing within the block, where their functions are context managers."""
        with ExitStack() as stack:
            for _, value, function in self._acting_on(thing):
                stack.enter_context(function(given, value))
            yield

    def _acting_on(self, thing: Thing) -> Iterator[tuple[str, Any, Callable[[Any, Any], Any]]]:
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            for mark in field.metadata:
                if not isinstance(mark, AppliedTo) or mark.thing != thing:
                    continue
                if value not in (None, mark.off, field.get_default(call_default_factory=True)):
                    yield name, value, mark.function

    @classmethod
    def parse(cls, data: Any) -> Self:
        """Build a specification, or a part of one, from plain data.

        Raises:
            InputError: one line that names the faulty key; for an unknown key it gives the nearest one.
        """
        check_plain(data, "specification")
        try:
            part = cls.model_validate(data)
        except ValidationError as error:
            raise InputError(one_line(cls, error, data)) from None
        try:
            json.dumps(part.model_dump(), allow_nan=False)
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"specification: options must be plain JSON values ({error})") from None
        return part


def _holds_mark(annotation: Any) -> bool:
    return any(isinstance(part, PassedTo | AppliedTo) or _holds_mark(part) for part in get_args(annotation))
