"""The id of a part of a specification: a hash of its content in one canonical JSON text."""

import hashlib
import json
from typing import Any

from studykit.spec.part import Part

SCHEMA = 3
"""Version of what a specification means, hashed into every id; `RECORD_SCHEMA` is that of records on disk. Until 2 the
evaluation, of which there was one, was part of `run_id`."""


def canonical(part: Part, exclude: set[str] | dict[str, Any] | None = None) -> str:
    """Return the one JSON text of this content: keys sorted, no spaces, `None` left out, no NaN."""
    plain = part.model_dump(mode="json", exclude_none=True, exclude=exclude)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def hash_id(canonical: str) -> str:
    """Return 12 hex digits of the sha256 of schema version and canonical JSON."""
    return hashlib.sha256(f"{SCHEMA}:{canonical}".encode()).hexdigest()[:12]
