"""One new file is one new thing: named by its file, described by its docstring, refused with the nearest name."""

import sys

import pytest

from studykit.cli import ROOMS
from studykit.discovery import Room, check_options
from studykit.errors import InputError, unknown


@pytest.fixture
def room(tmp_path, monkeypatch):
    """Return a room of four files in a package made for the test."""
    folder = tmp_path / "made_up_room"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "plain.py").write_text('"""A plain thing.\n\nWith more to say."""\n\ndef plain():\n    return "plain"\n')
    (folder / "two_words.py").write_text('"""A class."""\nclass TwoWords:\n    pass\n')
    (folder / "loud.py").write_text('raise RuntimeError("nobody may import me to list me")\n')
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


def test_an_error_without_anything_known_says_none():
    assert str(unknown("study", "x", [])) == "unknown study 'x'; known: none"


@pytest.mark.parametrize("what", ROOMS)
def test_every_file_of_every_room_keeps_its_promise(what):
    room = Room(ROOMS[what], kind=what)
    for name in room.names():
        assert room.describe(name), f"{what} {name} has no docstring"
        if what != "samplers":  # a sampler is a file with rank()
            assert callable(room.member(name))
        else:
            assert callable(room.module(name).rank)
