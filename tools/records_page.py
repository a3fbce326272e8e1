"""The page about the files of a study: a table of keys for each record, and their JSON schemas."""

import json
from typing import Any

from studykit.results.record import CellRecord, CellSpec, EvaluationRecord, Record, RunRecord
from studykit.results.tuning import TuningRecord

RECORDS: dict[str, type[Record]] = {
    "record": RunRecord,
    "evaluation-record": EvaluationRecord,
    "tuning": TuningRecord,
    "cell": CellSpec,
    "cell-record": CellRecord,
}
"""The typed files of a study by the name of their schema."""


def format_page() -> str:
    """Return the page's text."""
    return "\n\n".join(_record_table(kind, name) for name, kind in RECORDS.items())


def schemas() -> dict[str, str]:
    """Return the JSON schemas by name of file."""
    plain = {name: kind.model_json_schema(by_alias=True) for name, kind in RECORDS.items()}
    return {f"{name}.schema.json": json.dumps(schema, indent=1) + "\n" for name, schema in plain.items()}


def _record_table(kind: type[Record], name: str) -> str:
    """Return a record's keys with their types and meanings as Markdown."""
    properties = kind.model_json_schema(by_alias=True)["properties"]
    rows = [f"| `{key}` | {_type(about)} | {about.get('description', '')} |" for key, about in properties.items()]
    purpose = (kind.__doc__ or "").partition("\n")[0]
    head = f"### {purpose}\n\nSchema: [`{name}.schema.json`]({name}.schema.json)"
    return "\n".join([head, "", "| key | type | meaning |", "| --- | --- | --- |", *rows])


def _type(about: dict[str, Any]) -> str:
    """Return the type of a key in words."""
    if "anyOf" in about:
        return " or ".join(dict.fromkeys(_type(part) for part in about["anyOf"] if part.get("type") != "null"))
    if "$ref" in about:
        return about["$ref"].rpartition("/")[2]
    if "enum" in about:
        return " or ".join(f"`{value}`" for value in about["enum"])
    if about["type"] == "array":
        return f"list of {_type(about['items'])}"
    return str(about["type"])
