"""A field on which the kit acts is a line and a function beside it: nothing else reads it, and it acts."""

# Parts are frozen, so that a field of a subclass may have a narrower type.
# pyright: reportIncompatibleVariableOverride=false

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
import torch
from pydantic import Field, ValidationError
from torch import nn

from studykit.data import Inputs
from studykit.errors import InputError
from studykit.models.loading import load_student, load_teacher
from studykit.models.names import Models
from studykit.sources import content_hash
from studykit.spec import AppliedTo, Data, Lora, Part, RunSpec, Stage, Student, Teacher
from studykit.spec.part import Thing
from studykit.spec.values import OnOrNone
from studykit.study.pin import pin
from studykit.study.score import teacher_answers
from studykit.teacher import open_teacher
from studykit.training import loop, ranks, train
from studykit.training.dry_run import dry_run

PACKAGE = Path(__file__).parents[1] / "studykit"
PARTS: dict[str, set[type[Part]]] = {"examples": {Data}, "student": {Student, Lora}, "teacher": {Teacher}}
PARTS |= {"training": {Stage}, "optimizer": {Stage}}
"""The parts of a specification whose fields the kit applies to a thing; below, one of each is shown to act."""

FOUND = Models().find("lexicon/base-small")
EMBEDDINGS = "model.embed_tokens.weight"


def marks() -> Iterator[tuple[type[Part], str, str]]:
    """Yield the fields that are marked, of all parts: part, field, thing."""
    for part in (part for part in Part.__subclasses__() if part.__module__.startswith("studykit")):
        for name, field in part.model_fields.items():
            yield from ((part, name, mark.thing) for mark in field.metadata if isinstance(mark, AppliedTo))


MARKS = sorted(marks(), key=str)


def test_there_are_marks():
    assert (Stage, "gradient_checkpointing", "training") in MARKS
    assert (Teacher, "pruned", "teacher") in MARKS


@pytest.mark.parametrize(("part", "field", "thing"), MARKS, ids=[f"{p.__name__}.{name} {to}" for p, name, to in MARKS])
def test_a_field_belongs_to_a_part_that_the_kit_applies_to_the_thing(part, field, thing):
    assert part in PARTS[thing], f"{field} would do nothing: {thing!r} is of {PARTS[thing]}"


def test_every_thing_is_one_that_the_kit_applies_fields_to():
    called = [re.findall(r'\.appl(y|ied)_to\("(\w+)"', file.read_text()) for file in PACKAGE.rglob("*.py")]
    assert {thing for calls in called for _, thing in calls} == set(PARTS) == set(get_args(Thing))
    assert {thing for calls in called for how, thing in calls if how == "ied"} == {"training"}


def shout(examples: Sequence[Any], is_on: bool) -> list[Any]:
    """Return the examples with every answer twice."""
    twice = [example.messages[-1] | {"content": f"{example.answer} {example.answer}"} for example in examples]
    return [replace(e, messages=(*e.messages[:-1], last)) for e, last in zip(examples, twice, strict=True)]


def drop_long(examples: list[Any], longest: int) -> None:
    """Leave examples out of the list itself."""
    examples[:] = [example for example in examples if len(example.answer) <= longest]


def freeze_embeddings(model: Any, is_on: bool) -> None:
    model.get_input_embeddings().requires_grad_(False)


def add_noise(model: Any, alpha: float) -> None:
    """Add uniform noise to the embeddings in training, as NEFTune does."""

    def noisy(module, inputs, output):
        size = alpha / (output.shape[-1] * output.shape[-2]) ** 0.5
        return output + torch.empty_like(output).uniform_(-size, size) if module.training else output

    model.get_input_embeddings().register_forward_hook(noisy)


def freeze_a(model: Any, is_on: bool) -> None:
    """Train the second matrix of each adapter alone, as LoRA-FA does."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_B" in name)


def flatten(model: Any, temperature: float) -> None:
    model.get_output_embeddings().weight.data /= temperature


@contextmanager
def frozen(model: Any, is_on: bool) -> Iterator[None]:
    weight = model.get_input_embeddings().weight
    weight.requires_grad_(False)
    yield
    weight.requires_grad_(True)


def clip_values(optimizer: Any, limit: float) -> None:
    if limit <= 0:
        raise ValueError("the largest value of a gradient must be positive")
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    optimizer.register_step_pre_hook(lambda *_: nn.utils.clip_grad_value_(weights, limit))


class OwnData(Data):
    said_twice: Annotated[OnOrNone, AppliedTo("examples", shout)] = None
    longest_answer: Annotated[int | None, AppliedTo("examples", drop_long)] = None


class OwnLora(Lora):
    frozen_a: Annotated[OnOrNone, AppliedTo("student", freeze_a)] = None


class OwnStudent(Student):
    lora: OwnLora | None = None
    frozen_embeddings: Annotated[OnOrNone, AppliedTo("student", freeze_embeddings)] = None
    noise: Annotated[float | None, AppliedTo("student", add_noise)] = None


class OwnTeacher(Teacher):
    flattened: Annotated[float | None, AppliedTo("teacher", flatten)] = None


class OwnStage(Stage):
    data: OwnData
    frozen_embeddings: Annotated[OnOrNone, AppliedTo("training", frozen)] = None
    max_grad_value: Annotated[float | None, AppliedTo("optimizer", clip_values)] = None


class OwnRun(RunSpec):
    student: OwnStudent
    teacher: OwnTeacher | None = None
    stages: tuple[OwnStage, ...] = Field(min_length=1)


@pytest.fixture
def pinned(plain_spec, stage, tmp_path):
    """Pin a run of two steps a stage, with fields of student, data and teacher, and of each of the stages."""

    def make(*stages, student=None, data=None, teacher=None, method="sft"):
        every = [stage(method, steps=2) | changes for changes in stages or ({},)]
        every = [plain | {"data": plain["data"] | (data or {})} for plain in every]
        plain = plain_spec(*every, student={"name": FOUND.name} | (student or {}))
        plain["teacher"] |= teacher or {}
        return pin(OwnRun.parse(plain), Inputs(tmp_path / "results"))

    return make


@pytest.fixture
def trained(pinned, tmp_path):
    """Train a run in a folder of a name, and return its weights."""

    def make(name, *stages, **fields):
        (tmp_path / name).mkdir(exist_ok=True)
        model = train(pinned(*stages, **fields), tmp_path / name, checkpoint_every_s=0.0).model
        return {key: value.detach().clone() for key, value in model.state_dict().items()}

    return make


@pytest.fixture
def interrupted(trained, monkeypatch):
    """Train a run until an error in the last step of a stage, and then go on in the same folder."""

    def make(name, *stages, stage=0, **fields):
        compute_loss, seen = loop.compute_loss, []

        def fail(training, *given):
            seen.extend([training] if training not in seen else [])
            if len(seen) == stage + 1 and training.step == 1:
                raise RuntimeError("interrupted")
            return compute_loss(training, *given)

        monkeypatch.setattr(loop, "compute_loss", fail)
        with pytest.raises(RuntimeError, match="interrupted"):
            trained(name, *stages, **fields)
        monkeypatch.setattr(loop, "compute_loss", compute_loss)
        return trained(name, *stages, **fields)

    return make


def assert_bitwise_equal(one, other):
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []


def test_fields_act_in_their_order_and_what_is_off_does_not():
    class Three(Part):
        first: Annotated[int | None, AppliedTo("examples", lambda thing, value: [*thing, value])] = None
        second: Annotated[int, AppliedTo("examples", lambda thing, value: thing.append(value), off=1)] = 7
        third: Annotated[bool | None, AppliedTo("student", lambda thing, value: "changed")] = None
        fourth: Annotated[list, AppliedTo("examples", lambda thing, value: [0])] = Field(default_factory=list)

    assert Three(first=1, second=2, third=True).apply_to("examples", []) == [1, 2]
    assert Three(second=7).apply_to("examples", given := []) is given == []
    assert (Three(second=0).acting_on("examples"), Three(second=1).acting_on("examples")) == ({"second": 0}, {})
    assert Three(third=True).apply_to("student", "given") == "changed"


def test_a_function_named_like_its_field_is_refused():
    """In a class body, the default is assigned before the annotation is read, so that the name is the default's."""
    code = 'class Own(Part):\n    shout: Annotated[bool | None, AppliedTo("examples", shout)] = None'
    with pytest.raises(TypeError, match="another name than the field"):
        exec(code, globals() | {"__name__": "own"})


def test_examples_are_changed_before_they_are_hashed_filtered_and_drawn(data_file):
    plain = {"source": "jsonl", "options": {"path": str(data_file)}, "filters": {"min_response_tokens": 3}}
    inputs, one, other = Inputs(), OwnData.parse(plain), OwnData.parse(plain | {"said_twice": True})
    before, after = inputs.pool(one), inputs.pool(other)
    assert after.examples[1].answer == "K AE K AE" == f"{before.examples[1].answer} {before.examples[1].answer}"
    assert after.sha256 == content_hash(after.examples) != before.sha256 == inputs.pool(Data.parse(plain)).sha256
    assert inputs.kept(one, FOUND).dropped["min_response_tokens"] > 0
    assert inputs.kept(other, FOUND).dropped["min_response_tokens"] == 0


def test_a_stage_draws_and_counts_changed_examples(pinned):
    one, other = (pinned(data=data) for data in ({}, {"said_twice": True}))
    drawn, changed = one.stages[0].data, other.stages[0].data
    assert [example.id for example in drawn.examples] == [example.id for example in changed.examples]
    assert changed.encoded.response_tokens.sum() > 1.5 * drawn.encoded.response_tokens.sum()
    assert changed.manifest["examples_sha256"] != drawn.manifest["examples_sha256"]
    assert one.spec.run_id != other.spec.run_id
    with pytest.raises(InputError, match="is not what this specification was pinned to"):
        pinned(data={"said_twice": True, "sha256": one.stages[0].spec.data.sha256})


def test_examples_left_out_in_place_are_hashed_too(pinned):
    data = pinned(data={"longest_answer": 9, "budget": {}})
    assert {len(example.answer) for example in data.stages[0].data.examples} == {1, 4, 6, 8}
    in_order = sorted(data.stages[0].data.drawn, key=lambda example: int(example.id.partition("-")[2]))
    assert data.stages[0].spec.data.sha256 == content_hash(in_order)


def test_what_is_frozen_of_a_student_stays_through_tuning_interruption_and_saving(
    trained, interrupted, pinned, tmp_path
):
    before = load_student(Student(name=FOUND.name), FOUND).state_dict()
    fields: dict[str, Any] = {"student": {"frozen_embeddings": True}}
    whole = trained("whole", **fields)
    moved = {name for name, value in before.items() if not torch.equal(value, whole[name])}
    assert EMBEDDINGS not in moved
    assert len(moved) > len(before) / 2
    kept = torch.load(tmp_path / "whole" / "checkpoints" / "stage-0" / "finished" / "weights.pt", weights_only=True)
    assert kept.keys() >= moved
    assert EMBEDDINGS not in kept
    assert_bitwise_equal(whole, interrupted("again", **fields))
    assert pinned(**fields).run_id != pinned().run_id


def test_noise_in_training_is_drawn_again_where_a_run_goes_on(trained, interrupted):
    fields: dict[str, Any] = {"student": {"noise": 5.0}}
    noisy, plain = trained("noisy", **fields), trained("plain")
    assert not torch.equal(noisy[EMBEDDINGS], plain[EMBEDDINGS])
    assert_bitwise_equal(noisy, interrupted("again", **fields))
    ids = torch.arange(12).reshape(2, 6)
    calm = [load_student(OwnStudent(name=FOUND.name, noise=noise), FOUND).eval()(ids).logits for noise in (5.0, None)]
    assert torch.equal(*calm)


def test_a_field_of_adapters_gets_the_model_that_has_them(trained):
    before = load_student(Student(name=FOUND.name, lora=Lora(lora_r=2)), FOUND).state_dict()
    after = trained("adapters", student={"lora": {"lora_r": 2, "frozen_a": True}})
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {name for name in before if "lora_B" in name} != set()


def test_a_field_of_one_stage_ends_with_it_also_where_the_run_goes_on(trained, interrupted, tmp_path):
    stages: Any = ({"frozen_embeddings": True, "gradient_checkpointing": True}, {})
    before = load_student(Student(name=FOUND.name), FOUND).state_dict()
    whole = trained("whole", *stages)
    first = torch.load(tmp_path / "whole" / "checkpoints" / "stage-0" / "finished" / "weights.pt", weights_only=True)
    assert torch.equal(first[EMBEDDINGS], before[EMBEDDINGS])
    assert not torch.equal(whole[EMBEDDINGS], before[EMBEDDINGS])
    for stage in (0, 1):
        assert_bitwise_equal(whole, interrupted(f"again {stage}", *stages, stage=stage))
    last = trained("last", *reversed(stages))
    assert_bitwise_equal(last, interrupted("last again", *reversed(stages), stage=1))


def test_what_is_applied_is_tried_before_the_training_and_leaves_no_trace(pinned, tmp_path):
    run = pinned({"frozen_embeddings": True, "max_grad_value": 0.1, "gradient_checkpointing": True})
    student: Any = load_student(run.spec.student, run.student)
    seen = []
    student.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: seen.append((module.weight.requires_grad, student.is_activation_checkpointing))
    )
    dry_run(run, student, tmp_path)
    assert seen[0] == (False, True)
    assert (student.get_input_embeddings().weight.requires_grad, student.is_activation_checkpointing) == (True, False)
    with pytest.raises(InputError, match=r"a training step on examples .* fails: .*must be positive"):
        dry_run(pinned({"max_grad_value": -1.0}), student, tmp_path)


def test_gradients_are_changed_before_each_step(trained):
    """AdamW adds 1e-8 to the size of a gradient that it divides by: with far smaller ones, nothing moves."""
    before = load_student(Student(name=FOUND.name), FOUND).state_dict()
    assert_bitwise_equal(before, trained("clipped", {"max_grad_value": 1e-30}))


def test_deepspeed_which_makes_its_optimizer_itself_is_refused(pinned, monkeypatch):
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    ranks.check_shares(pinned(), 2)
    with pytest.raises(InputError, match="max_grad_value is applied to an optimizer that DeepSpeed replaces"):
        ranks.check_shares(pinned({"max_grad_value": 0.1}), 2)


def test_a_field_of_a_teacher_changes_its_distribution_and_the_key_of_its_cache(empty_cache):
    ids = torch.arange(12).reshape(2, 6)
    plain, flat, same = (load_teacher(FOUND, OwnTeacher(name="a", flattened=t)) for t in (None, 2.0, None))
    torch.testing.assert_close(flat(ids).logits, plain(ids).logits / 2)
    assert torch.equal(same(ids).logits, plain(ids).logits)
    kinds: list[tuple[type[Teacher], dict]] = [(Teacher, {}), (OwnTeacher, {})]
    kinds += [(OwnTeacher, fields) for fields in ({"flattened": 2.0}, {"flattened": 3.0}, {"pruned": 0.2})]
    named = [kind(name=FOUND.name, top_k=4, **fields) for kind, fields in kinds]
    teachers: Any = [open_teacher(teacher, FOUND, FOUND.tokenizer, 85) for teacher in named]
    folders = [teacher.store.folder for teacher in teachers]
    assert folders[0] == folders[1]
    assert len(set(folders)) == 4


def test_a_field_of_a_teacher_is_in_the_name_of_its_answers_where_it_is_on(plain_spec, stage, tmp_path):
    plain = plain_spec(stage("kd"), evaluation={"data": stage()["data"] | {"budget": {}}, "items": 2})
    runs = [
        pin(kind.parse(plain | {"teacher": plain["teacher"] | fields}), Inputs(tmp_path))
        for kind, fields in [(RunSpec, {}), (OwnRun, {}), (OwnRun, {"flattened": 2.0})]
    ]
    files = [teacher_answers(run, run.evaluations[0]) for run in runs]
    assert files[0] == files[1] != files[2]


def test_a_field_of_a_teacher_is_refused_where_its_weights_are_elsewhere():
    endpoint = {"model": "served", "logprobs": 4}
    with pytest.raises(ValidationError, match="flattened is a matter of the server"):
        OwnTeacher.model_validate({"name": "a", "endpoint": endpoint, "flattened": 2.0})
    with pytest.raises(InputError, match="where flattened has changed none: leave engine out"):
        open_teacher(OwnTeacher(name="a", engine="vllm", flattened=2.0), FOUND, FOUND.tokenizer, 85)
