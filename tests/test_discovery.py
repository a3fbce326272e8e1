"""One new file is one new thing: named by its file, described by its docstring, refused with the nearest name."""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from studykit.cli import ROOMS
from studykit.discovery import Option, Room, check_options, flags, options_of
from studykit.errors import InputError, unknown


@pytest.fixture
def room(tmp_path, monkeypatch):
    """Return a room of four files in a package made for the test."""
    folder = tmp_path / "made_up_room"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "plain.py").write_text('"""A plain thing.\n\nWith more to say."""\n\ndef plain():\n    return "plain"\n')
    (folder / "two_words.py").write_text('"""A class."""\nclass TwoWords:\n    pass\n')
    (folder / "loud.py").write_text('raise RuntimeError("listing a room must not import it")\n')
    (folder / "empty.py").write_text('"""Promises and does not keep."""\n')
    (folder / "_private.py").write_text("")
    (folder / "notes.txt").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Room("made_up_room", kind="thing")
    for name in [name for name in sys.modules if name.startswith("made_up_room")]:
        del sys.modules[name]


def test_names_come_from_files_without_importing_them(room):
    assert room.names() == ["empty", "loud", "plain", "two_words"]
    assert not [name for name in sys.modules if name.startswith("made_up_room.")]


def test_a_source_is_read_from_any_docstring_of_the_file_without_importing_it(room, tmp_path):
    said = [
        "Says it.",
        "",
        "    Source:",
        "        One (2001), A Title",
        "        on two lines.",
        "",
        "    Example:",
        "",
    ]
    doc = "\n".join(said)
    text = f'"""Cited."""\nraise RuntimeError\ndef cited():\n    """{doc}    """\n'
    (tmp_path / "made_up_room" / "cited.py").write_text(text)
    assert room.source("cited") == "One (2001), A Title on two lines."
    assert room.source("plain") == ""


def test_labelled_paragraphs_are_read_from_all_docstrings_of_a_file(room, tmp_path):
    module = '"""Cited.\n\nCode: one,\nin two lines.\n\nCode: two.\n\nCodec: none.\n"""\n'
    function = 'raise RuntimeError\ndef cited():\n    """Cite.\n\n    Code:\n        three\n    """\n'
    (tmp_path / "made_up_room" / "cited.py").write_text(module + function)
    assert room.paragraphs("cited", "Code") == ["one, in two lines.", "two.", "three"]
    assert room.paragraphs("plain", "Code") == []


def test_a_new_file_is_the_whole_edit(room, tmp_path):
    (tmp_path / "made_up_room" / "fresh.py").write_text('"""New."""\ndef fresh():\n    return 1\n')
    assert "fresh" in room.names()
    assert room.member("fresh")() == 1


def test_a_member_is_the_function_or_class_named_like_the_file(room):
    assert room.member("plain")() == "plain"
    assert room.member("two_words").__name__ == "TwoWords"


def test_a_file_that_does_not_keep_its_promise_is_a_programming_fault(room):
    with pytest.raises(TypeError, match=r"empty\.py must define empty\(\.\.\.\) or class Empty"):
        room.member("empty")


@pytest.mark.parametrize(("name", "answer"), [("plian", "did you mean 'plain'"), ("zzz", "known: empty, loud, plain")])
def test_an_unknown_name_is_answered_with_the_nearest(room, name, answer):
    with pytest.raises(InputError, match=f"unknown thing '{name}'; {answer}"):
        room.member(name)


@pytest.mark.parametrize("name", ["_private", "__init__", "plain.plain", "../plain", "", "os"])
def test_only_files_of_the_room_are_members(room, name):
    with pytest.raises(InputError, match="unknown thing"):
        room.module(name)


def test_a_description_is_the_first_line_and_needs_no_import(room):
    assert room.describe("plain") == "A plain thing."
    assert room.describe("loud") == ""


def test_a_room_that_is_not_there_is_a_programming_fault():
    with pytest.raises(ModuleNotFoundError, match="no package studykit_nothing"):
        Room("studykit_nothing", kind="thing").names()


def test_options_are_keywords_only():
    def make(x, *, beta=0.5, gamma=None): ...

    check_options("loss", "jsd", make, {"beta": 1, "gamma": 2})
    for option, answer in (("betta", "did you mean 'beta'"), ("x", "known: beta, gamma")):
        with pytest.raises(InputError, match=f"loss 'jsd': unknown option '{option}'; {answer}"):
            check_options("loss", "jsd", make, {option: 1})


def make_with_options(
    *,
    share: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    count: Annotated[int, Field(ge=1)] | None = None,
    schedule: Literal["linear", "fixed"] = "linear",
    alpha: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto",
    whiten: bool = False,
    names: Sequence[str] = (),
    rest: dict[str, Any] | None = None,
    untyped=None,
): ...


VALID = [("share", 0), ("share", 0.99), ("count", None), ("count", 3), ("schedule", "fixed"), ("alpha", 2)]
VALID += [("alpha", "auto"), ("whiten", True), ("names", ["a"]), ("names", ("a", "b")), ("rest", {"a": 1})]
VALID += [("rest", None), ("untyped", object())]


@pytest.mark.parametrize(("option", "value"), VALID)
def test_a_value_of_the_annotated_type_and_range_is_accepted(option, value):
    check_options("loss", "made_up", make_with_options, {option: value})


REFUSED = [
    ("share", 1, "less than 1"),
    ("share", -0.1, "greater than or equal to 0"),
    ("share", "0.5", "a valid number"),
    ("share", True, "a valid number"),
    ("share", float("nan"), "a finite number"),
    ("share", float("inf"), "a finite number"),
    ("share", None, "a valid number"),
    ("count", 0, "greater than or equal to 1"),
    ("count", 2.5, "a valid integer"),
    ("count", True, "a valid integer"),
    ("schedule", "liner", "'linear' or 'fixed'"),
    ("alpha", "aut", "a valid number or 'auto'"),
    ("alpha", -1.0, "greater than or equal to 0 or 'auto'"),
    ("whiten", 1, "a valid boolean"),
    ("rest", [], "a valid dictionary"),
]


@pytest.mark.parametrize(("option", "value", "range_"), REFUSED)
def test_a_value_outside_type_or_range_is_refused_in_one_line(option, value, range_):
    with pytest.raises(InputError) as refusal:
        check_options("loss", "made_up", make_with_options, {option: value})
    assert str(refusal.value) == f"loss 'made_up': {option} must be {range_}, received {value!r}"


def test_a_refusal_names_the_element_of_a_sequence():
    with pytest.raises(InputError, match=r"names\[1\] must be a valid string, received \['a', 2\]"):
        check_options("source", "made_up", make_with_options, {"names": ["a", 2]})


def test_a_missing_option_without_default_is_refused():
    def read(split, *, path: str): ...

    with pytest.raises(InputError, match="source 'file': option 'path' is required"):
        check_options("source", "file", read, {})


def test_options_of_a_class_are_those_of_its_constructor():
    class Made:
        def __init__(self, *, beta: float = 0.5): ...

    assert dict(options_of(Made)) == {"beta": Option("beta", float, 0.5)}
    check_options("loss", "made", {"gamma": Option("gamma", int)}, {"gamma": 3})  # or options put together elsewhere


@pytest.mark.parametrize("what", ROOMS)
def test_every_option_is_annotated_and_its_default_is_valid(what):
    room = Room(ROOMS[what], kind=what)
    for name in room.names():
        member = room.member(name)
        for option in (member.options if what == "methods" else options_of(member)).values():
            assert option.annotation is not Any, f"{what} {name}: {option.name} has no annotation"
            assert option.required or option.fault(option.default) is None


class Base:
    couples_rows: bool = False
    needs_teacher: bool = True
    learning_rate: float | None = None


def module_with(**attributes) -> ModuleType:
    module = ModuleType("made_up")
    vars(module).update(attributes)
    return module


def test_flags_are_the_bool_attributes_of_the_base_as_a_module_sets_them():
    assert flags(Base, module_with()) == {"couples_rows": False, "needs_teacher": True}
    module = module_with(
        COUPLES_ROWS=True, NEEDS_TEACHER=False, LARGEST=3.0, NAME="x", _PRIVATE=True, TYPE_CHECKING=False
    )
    assert flags(Base, module) == {"couples_rows": True, "needs_teacher": False}


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"COUPLE_ROWS": True}, "made_up: unknown flag 'COUPLE_ROWS'; did you mean 'COUPLES_ROWS'"),
        ({"LEARNING_RATE": True}, "unknown flag 'LEARNING_RATE'"),
        ({"COUPLES_ROWS": 1}, "COUPLES_ROWS must be True or False, received 1"),
    ],
)
def test_an_unknown_flag_and_a_flag_that_is_not_bool_are_refused(attributes, message):
    with pytest.raises(InputError, match=message):
        flags(Base, module_with(**attributes))


def test_an_error_without_anything_known_says_none():
    assert str(unknown("study", "x", [])) == "unknown study 'x'; known: none"


@pytest.mark.parametrize("what", ROOMS)
def test_every_file_of_every_room_keeps_its_promise(what):
    room = Room(ROOMS[what], kind=what)
    for name in room.names():
        assert room.describe(name), f"{what} {name} has no docstring"
        assert room.member(name)


def test_an_option_is_documented_by_its_docstring():
    def make(x, *, beta: float = 0.5, gamma: int | None = None, share: Annotated[float, Field(description="of x")] = 1):
        """Return nothing.

        Args:
            x: a number.
            beta: weight of the teacher
                in the mixture: one half is even.
            gamma: whatever.

        Returns:
            other: nothing.
        """

    assert {option.name: option.description for option in options_of(make).values()} == {
        "beta": "weight of the teacher in the mixture: one half is even.",
        "gamma": "whatever.",
        "share": "of x",
    }


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (float, "float"),
        (int | None, "int | None"),
        (Annotated[float, Field(ge=0, lt=1)], "float (>= 0, < 1)"),
        (dict[str, Any], "dict[str, Any]"),
        (Literal["a", "b"], "Literal['a', 'b']"),
        (Any, "Any"),
    ],
)
def test_a_type_and_its_range_are_one_line(annotation, text):
    assert Option("x", annotation).type_name == text
