"""The base of all parts of a specification."""

import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from studykit.errors import InputError
from studykit.files import check_plain
from studykit.spec._faults import one_line


class Part(BaseModel):
    """Base of all parts: frozen, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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
