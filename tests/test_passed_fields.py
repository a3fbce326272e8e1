"""A field that another library takes is one line: what it is marked with exists there, and the kit passes it on."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import peft
import pytest
import torch
import transformers
from peft.tuners.lora import LoraLayer

from studykit.losses import get_loss
from studykit.models.loading import load_student, load_teacher
from studykit.models.names import Models
from studykit.spec import AppliedTo, Lora, Part, PassedTo, RunSpec, Stage, Student, Teacher
from studykit.training.optimizer import make_optimizer, make_schedule

PACKAGE = Path(__file__).parents[1] / "studykit"
WITH_SIGNATURE: dict[str, Any] = {
    "LoraConfig": peft.LoraConfig,
    "AdamW": torch.optim.AdamW,
    "get_scheduler": transformers.get_scheduler,
}
STAGE = {"data": {"source": "lexicon"}, "method": "sft", "steps": 10, "learning_rate": 0.01}


def marks(part: type[Part], seen: set[type[Part]]) -> Iterator[tuple[str, str, str]]:
    """Yield the fields that are marked, of a part and of those inside it: part.field, function, keyword."""
    seen.add(part)
    for name, field in part.model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, PassedTo):
                yield f"{part.__name__}.{name}", mark.function, mark.keyword or name
    for kind in (kind for kind in Part.__subclasses__() if kind not in seen and kind.__module__.startswith("studykit")):
        yield from marks(kind, seen)


MARKS = sorted(marks(RunSpec, set()))


def test_there_are_marks():
    assert ("Lora.lora_r", "LoraConfig", "r") in MARKS
    assert ("Teacher.attn_implementation", "from_pretrained", "attn_implementation") in MARKS


@pytest.mark.parametrize(("field", "function", "keyword"), MARKS, ids=[f"{field} {to}" for field, to, _ in MARKS])
def test_a_function_has_the_argument_that_a_field_is(field, function, keyword):
    if function in WITH_SIGNATURE:
        assert keyword in inspect.signature(WITH_SIGNATURE[function]).parameters, field
    assert any(f'passed_to("{function}")' in file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py")), field


def test_every_function_that_is_passed_to_has_a_field():
    asked = {name for file in PACKAGE.rglob("*.py") for name in re.findall(r'passed_to\("(\w+)"\)', file.read_text())}
    assert asked == {function for _, function, _ in MARKS}


class OwnLora(Lora):
    use_rslora: Annotated[bool | None, PassedTo("LoraConfig")] = None
    rank_pattern: Annotated[dict[str, int] | None, PassedTo("LoraConfig")] = None


class OwnStage(Stage):
    adam_epsilon: Annotated[float | None, PassedTo("AdamW", "eps")] = None
    scheduler_options: Annotated[dict[str, float] | None, PassedTo("get_scheduler", "scheduler_specific_kwargs")] = None


class OwnTeacher(Teacher):
    output_attentions: Annotated[bool | None, PassedTo("from_pretrained")] = None


class OwnStudent(Student):
    output_hidden_states: Annotated[bool | None, PassedTo("from_pretrained")] = None


def test_an_argument_of_adapters_arrives_by_its_declaration():
    lora = OwnLora(lora_r=4, lora_alpha=8, use_rslora=True)
    student: Any = load_student(Student(name="lexicon/base-small", lora=lora), Models().find("lexicon/base-small"))
    config = student.peft_config["default"]
    assert (config.r, config.lora_alpha, config.use_rslora, config.rank_pattern) == (4, 8, True, {})
    scales = {module.scaling["default"] for module in student.modules() if isinstance(module, LoraLayer)}
    assert scales == {8 / 4**0.5}


def test_an_argument_of_a_model_arrives_by_its_declaration():
    found = Models().find("lexicon/base-small")
    teacher: Any = load_teacher(found, OwnTeacher(name=found.name, output_attentions=True, attn_implementation="eager"))
    student: Any = load_student(OwnStudent(name=found.name, output_hidden_states=True), found)
    assert teacher.config.output_attentions is True
    assert student.config.output_hidden_states is True


def test_arguments_of_optimizer_and_schedule_arrive_by_their_declaration():
    options = {"adam_epsilon": 0.5, "lr_scheduler_type": "cosine_with_min_lr", "scheduler_options": {"min_lr": 0.004}}
    stage = OwnStage.parse(STAGE | options)
    optimizer = make_optimizer(torch.nn.Linear(2, 2), [get_loss("cross_entropy")], stage)
    assert {(group["eps"], group["lr"]) for group in optimizer.param_groups} == {(0.5, 0.01)}
    schedule = make_schedule(optimizer, stage)
    for _ in range(stage.planned_steps):
        optimizer.step()
        schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.004, 0.004])


def test_what_is_off_is_not_passed():
    assert Lora().passed_to("LoraConfig") == {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0}
    assert Teacher(name="a").passed_to("from_pretrained") == {}
    assert OwnLora().passed_to("LoraConfig") == Lora().passed_to("LoraConfig")


@pytest.mark.parametrize("mark", [PassedTo("AdamW"), AppliedTo("student", lambda student, value: None)])
def test_a_mark_that_nothing_would_see_is_refused(mark):
    with pytest.raises(TypeError, match=r"Own\.lost: a mark belongs to the whole type"):
        type("Own", (Part,), {"__annotations__": {"lost": list[Annotated[float, mark]]}, "lost": None})
