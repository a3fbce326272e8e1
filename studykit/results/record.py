"""The files of a run and of a batch's cell as typed records, their versions, and how they are read.

    record = read_record(run_folder("results/lexicon", run_id))
    record.spec.stages[0].method, record.cost["train_s"], record.environment.processor

`RunRecord` is a run's `record.json`, `EvaluationRecord` that of one of its evaluations; `CellSpec` and `CellRecord` are
the `cell.json` and `record.json` of a cell. A reader accepts every older version through `MIGRATIONS` and refuses a
newer one. A change of a record's layout adds one function there and raises `RECORD_SCHEMA`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError, field_validator
from pydantic_core import to_json

from studykit.errors import InputError
from studykit.files import json_object, parse_json, seal, unseal, write_json
from studykit.results.held_out import HeldOut, ItemCounts
from studykit.results.plain import Record
from studykit.spec import Evaluation, RunSpec, from_schema_1, is_schema_1

RECORD_SCHEMA = 3
"""Version of the layout of records; `studykit.spec.SCHEMA` is that of what a specification means."""

STATUSES = ("done", "failed", "running", "stale")
"""`running`: a process holds its folder; `stale`: none does, and there is no record: killed, and
resumable."""


R = TypeVar("R", bound=Record)
T = TypeVar("T")


class Manifest(Record):
    """Which examples a stage was trained on, by counts and hashes; a sampler may add keys."""

    model_config = ConfigDict(extra="allow")

    dropped: dict[str, int] | None = Field(
        default=None, description="number of the source's examples that each filter left out"
    )
    examples: int | None = Field(default=None, description="number of examples in the budget: conversations or texts")
    response_tokens: int | None = Field(default=None, description="number of supervised tokens in them")
    sequences: int | None = Field(
        default=None, description="number of token sequences that the examples are trained as"
    )
    answers: int | None = Field(default=None, description="number of answers that are trained on")
    answers_left_out: int | None = Field(
        default=None, description="number of answers that the chat template keeps from being trained on"
    )
    seen_examples: int | None = Field(default=None, description="number of sequences that are trained on at least once")
    epochs: float | None = Field(default=None, description="how often each was trained on, on average")
    best_step: int | None = Field(
        default=None, description="the optimizer step whose weights the stage ends with, where these are the best ones"
    )
    best_validation: float | None = Field(default=None, description="their score on the validation data")
    examples_sha256: str | None = Field(default=None, description="hash of the examples in their order")
    trained_on: dict[str, int] | None = Field(
        default=None, description="number of sequences trained on, repetitions included, by who wrote the answers"
    )
    generated_answers: int | None = Field(default=None, description="number of answers that models generated for it")
    ended_answers: int | None = Field(default=None, description="number of those that ended by themselves")
    cut_answers: int | None = Field(default=None, description="number of those that were cut at the limit of tokens")


class Environment(Record):
    """What the numbers depend on besides the specification; no names of machines, people or folders."""

    python: str
    platform: str = Field(description="operating system and machine type")
    processor: str | None = Field(default=None, description="model name of the processor")
    gpu: str | None = Field(default=None, description="model name of the GPU that computed")
    gpus: int | None = Field(default=None, description="number of GPUs that computed")
    processes: int | None = Field(default=None, description="number of processes that computed; null: one")
    cores: int | None = None
    threads: str | None = Field(default=None, description="value of OMP_NUM_THREADS")
    packages: dict[str, str] = Field(default={})
    git_revision: str | None = None
    git_dirty: bool = Field(default=False, description="whether code differed from that revision")


class Token(Record):
    """A token of the student's tokenizer."""

    id: int
    text: str


class ChatRecord(Record):
    """How conversations became tokens, and what ends an answer: the same in training, generation and likelihood."""

    ends: tuple[Token, ...] = Field(default=(), description="tokens that end the answers which were trained on")
    stops: tuple[Token, ...] = Field(default=(), description="tokens at which generation stops")
    template_sha256: str | None = Field(default=None, description="of the tokenizer's chat template")
    template_date: str | None = Field(default=None, description="the date that templates write as today's")
    turns: tuple[str | None, ...] = Field(
        default=(), description="answers that each stage trains on: last, each or all; null: the template decides"
    )


class RunRecord(Record):
    """`record.json` of a run: written last in its training, so that its existence means trained."""

    schema_version: int = Field(default=RECORD_SCHEMA, alias="schema", description="version of this layout")
    run_id: str = Field(description="name of the run's folder: 12 hex digits of its specification's hash")
    status: Literal["done", "failed"]
    ablation: str = Field(default="", description="the question that the run was trained for")
    arm: str = Field(default="", description="its name in the comparison that the run was trained for")
    started: str = Field(description="UTC, ISO 8601")
    finished: str = Field(description="UTC, ISO 8601")
    spec: RunSpec = Field(description="the specification with its hashes, without evaluations")
    cost: dict[str, int | float] = Field(default={}, description="tokens, seconds and memory of the training")
    data: tuple[Manifest, ...] = Field(default=(), description="one manifest per stage")
    chat: ChatRecord | None = Field(default=None, description="tokens that end an answer, and the chat template")
    device: str | None = Field(default=None, description="type of the device that trained")
    parameters: dict[str, int] | None = Field(default=None, description="number of parameters, total and trainable")
    train_threads: tuple[int | None, ...] = Field(default=(), description="threads of each stage; null on a GPU")
    teacher_is_folded: bool = Field(default=False, description="whether a cache gave the teacher's distribution")
    error: str | None = Field(default=None, description="of a failed run")
    environment: Environment | None = None
    files: dict[str, str] = Field(default={}, description="sha256 of the other files of the folder")


class EvaluationRecord(Record):
    """`record.json` of an evaluation: written last, so that its existence means complete."""

    schema_version: int = Field(default=RECORD_SCHEMA, alias="schema", description="version of this layout")
    run_id: str = Field(description="the run that was evaluated")
    eval_id: str = Field(description="name of the evaluation's folder: 12 hex digits of the evaluation's hash")
    status: Literal["done", "failed"]
    started: str = Field(description="UTC, ISO 8601")
    finished: str = Field(description="UTC, ISO 8601")
    evaluation: Evaluation = Field(description="the evaluation with its hashes")
    metrics: dict[str, int | float] = Field(default={}, description="the student's scores on the held-out items")
    teacher_metrics: dict[str, int | float] = Field(default={}, description="the teacher's scores on the same items")
    held_out: HeldOut | None = Field(default=None, description="the held-out items, and what they cover")
    items_trained_on: ItemCounts | None = Field(
        default=None, description="held-out items among the examples of the budgets"
    )
    items_validated_on: ItemCounts | None = Field(default=None, description="held-out items in validation data")
    answers_from: str | None = Field(
        default=None, description="the run's other evaluation whose stored answers were scored; null: answered anew"
    )
    cost: dict[str, int | float] = Field(default={}, description="seconds of the evaluation")
    error: str | None = Field(default=None, description="of a failed evaluation")
    environment: Environment | None = None
    files: dict[str, str] = Field(default={}, description="sha256 of the other files of the folder")

    @field_validator("items_trained_on", mode="before")
    @classmethod
    def _number_before_kinds(cls, value: Any) -> Any:
        """Read the number that stood here before there were kinds; it was that of normalised texts."""
        return {"normalised": value} if isinstance(value, int) else value


class Hypothesis(Record):
    """A notebook's hypothesis as it was when a batch first started the cell."""

    sha256: str = Field(description="of the text under the heading Hypothesis")
    written: str = Field(description="when a cell of this notebook in the study first had this text; UTC, ISO 8601")


class CellSpec(Record):
    """`cell.json`: which notebook a cell of a batch executes, with which parameters."""

    schema_version: int = Field(default=RECORD_SCHEMA, alias="schema", description="version of this layout")
    cell_id: str = Field(description="name of the cell's folder: 12 hex digits of the hash of code and parameters")
    notebook: str = Field(description="name of the notebook without its ending")
    notebooks: str = Field(description="folder of the notebook, relative to the cell's folder")
    parameters: dict[str, Any] = Field(description="all parameters of the notebook, defaults included")
    timeout_s: float = Field(description="seconds after which the cell is stopped")
    hypothesis: Hypothesis | None = Field(default=None, description="the notebook's hypothesis, before the first run")


class CellRecord(Record):
    """`record.json` of a cell: written last, so that its existence means complete."""

    schema_version: int = Field(default=RECORD_SCHEMA, alias="schema", description="version of this layout")
    status: Literal["done", "failed"]
    runs: tuple[str, ...] = Field(default=(), description="ids of the runs that the notebook trained or read")
    evaluations: tuple[str, ...] = Field(default=(), description="ids of the evaluations that it showed of them")
    wall_s: float = Field(description="seconds of the execution")
    error: str | None = Field(default=None, description="of a failed cell")


def _fields_renamed(record: dict[str, Any]) -> dict[str, Any]:
    """From 1 to 2: fields of the specification have other names; the run keeps its id, which is its folder's name."""
    spec = {"spec": from_schema_1(record["spec"])} if "spec" in record else {}
    return record | {"schema": 2} | spec


_OF_THE_EVALUATION = ("metrics", "teacher_metrics", "held_out", "items_trained_on")
_SECONDS = "evaluate_s"


def _evaluation_apart(record: dict[str, Any]) -> dict[str, Any]:
    """From 2 to 3: what a run's one evaluation measured is read by `evaluation_before_3`, and left out here."""
    if "spec" not in record:
        return record | {"schema": 3}
    apart = {name: value for name, value in record.items() if name not in _OF_THE_EVALUATION}
    spec = {name: value for name, value in record["spec"].items() if name != "evaluation"}
    cost = {name: value for name, value in record.get("cost", {}).items() if name != _SECONDS}
    return apart | {"schema": 3, "spec": spec, "cost": cost}


def evaluation_before_3(record: dict[str, Any]) -> dict[str, Any] | None:
    """Return the evaluation in a run's record of schema 1 or 2 as a record of schema 3, or None where it has none."""
    if not isinstance(version := record.get("schema"), int) or version > 2:
        return None
    record = MIGRATIONS[1](record) if version == 1 else record
    evaluation = record["spec"].get("evaluation")
    if evaluation is None:
        return None
    shared = ("run_id", "status", "started", "finished", "environment", *_OF_THE_EVALUATION)
    files = {name: sha256 for name, sha256 in record.get("files", {}).items() if name == "items.jsonl"}
    return {name: record[name] for name in shared if name in record} | {
        "schema": 3,
        "eval_id": Evaluation.model_validate(evaluation).eval_id,
        "evaluation": evaluation,
        "cost": {name: value for name, value in record.get("cost", {}).items() if name == _SECONDS},
        "files": files,
    }


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _fields_renamed, 2: _evaluation_apart}
"""From version n to n + 1; a record of a cell had no version before 2."""


def migrate(record: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the record in today's layout.

    Raises:
        InputError: no version, or one newer than this code knows.
    """
    version = record.get("schema")
    if not isinstance(version, int) or version < 1:
        raise InputError(f"{where} has no schema version: it was not written by studykit")
    if version > RECORD_SCHEMA:
        raise InputError(f"{where} has schema {version}, this studykit reads up to {RECORD_SCHEMA}: update studykit")
    while version < RECORD_SCHEMA:
        record = MIGRATIONS[version](record)
        version += 1
    return record


def read_record(folder: Path) -> RunRecord | None:
    """Return a run's record in today's layout, or None while there is none.

    Raises:
        InputError: not JSON, not written by studykit, or from a newer version.
    """
    return read_records(folder)[0]


def read_records(folder: Path) -> tuple[RunRecord | None, EvaluationRecord | None]:
    """Return a run's record in today's layout, and that of the evaluation which is in the same file until schema 2.

    Raises:
        InputError: not JSON, not written by studykit, or from a newer version.
    """
    file = folder / "record.json"

    def read(plain: dict[str, Any]) -> tuple[RunRecord, EvaluationRecord | None]:
        plain = _fields_renamed(plain) if plain.get("schema") == 1 else plain
        record, before = validate(RunRecord, migrate(plain, str(file))), evaluation_before_3(plain)
        return record, validate(EvaluationRecord, before) if before else None

    return read_plain(file, read) or (None, None)


def read_typed(file: Path, kind: type[R], oldest: dict[str, Any] | None = None) -> R | None:
    """Return a file as a typed record in today's layout, or None where there is no file.

    Args:
        file: the JSON file.
        kind: the type of record.
        oldest: keys that a file of the first version lacks.

    Raises:
        InputError: not JSON, not written by studykit, or from a newer version.
    """
    return read_plain(file, lambda plain: validate(kind, migrate((oldest or {}) | plain, str(file))))


def validate(kind: type[R], plain: dict[str, Any]) -> R:
    """Return plain data in today's layout as a typed record."""
    return kind.model_validate_json(to_json(plain), strict=True)


def read_plain(file: Path, read: Callable[[dict[str, Any]], T]) -> T | None:
    """Return what a function makes of a file's JSON object, or None where there is no file.

    Raises:
        InputError: not JSON, or data that the function refuses.
    """
    try:
        return read(unseal(json_object(parse_json(file.read_text(encoding="utf-8")))))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        reason = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error)
    raise InputError(f"{file} is damaged ({reason}): remove the folder and run again")


def write_record(folder: Path, record: Record) -> None:
    """Put `record.json` in place, whole and durable, with the sha256 of its content as its last key."""
    write_json(folder / "record.json", seal(record.to_json()))


def recorded_status(folder: Path) -> str | None:
    """Return the status in the record of a run or cell; None where there is no readable record."""
    try:
        return json_object(parse_json((folder / "record.json").read_text(encoding="utf-8"))).get("status")
    except (OSError, ValueError):
        return None


def is_done(folder: Path) -> bool:
    """Whether a run or cell is finished and did not fail."""
    return recorded_status(folder) == "done"


def read_spec(folder: Path) -> dict[str, Any] | None:
    """Return what a run trains, under today's names, also while it has no record; None if missing or damaged."""
    try:
        plain = json_object(parse_json((folder / "spec.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    plain = from_schema_1(plain) if is_schema_1(plain) else plain
    return {name: value for name, value in plain.items() if name != "evaluation"}
