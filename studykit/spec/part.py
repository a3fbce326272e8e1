"""The base of all parts of a specification."""

import json
from dataclasses import dataclass
from typing import Any, Self

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


class Part(BaseModel):
    """Base of all parts: frozen, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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
