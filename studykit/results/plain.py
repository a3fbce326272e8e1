"""The base of all records."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of all records: frozen, strict about unknown keys and types, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON data, `None` left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
