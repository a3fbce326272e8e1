"""Held-out items are found among training examples as they are, rewritten, or asked with another answer."""

import numpy as np
import pytest

from studykit.data.overlap import MIN_SEQUENCES, SEQUENCE, HeldOutIndex, normalise
from studykit.sources import PLAIN_TEXT, Example

WORDS = "abcdefghijklmnopqrst"
LONG = " ".join(f"{x}{y}" for x in "uvwxyz" for y in WORDS)
"""120 different words."""


def conversation(*contents, system=None):
    opening = [] if system is None else [{"role": "system", "content": system}]
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    return Example(str(contents), (*opening, *turns), "made up", "human", "train")


def text(content):
    return Example(content, ({"role": PLAIN_TEXT, "content": content},), "made up", "human", "train")


def kind(item, *examples):
    """Return the kind of an item among examples; None where nothing is found."""
    found = HeldOutIndex([item]).search(examples)
    assert found.examples.any() == bool(found.items[0])
    return next((name for name, count in found.counts().items() if count), None)


ITEM = conversation("Which town is the capital of Perú?", "Lima.")


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        (ITEM, "exact"),
        (conversation("Which town is the capital of Perú?", "Lima.", "And of Chile?", "Santiago"), "exact"),
        (conversation("Which town is the capital of Perú?", "Lima.", system="Be short."), "exact"),
        (conversation("which  town is\nthe capital of PERÚ", "lima"), "normalised"),
        (conversation("Which town is the capital of Peru\u0301?", "Ｌima\u200b"), "normalised"),
        (conversation("Which town is the capital of Perú?", "Cusco."), "same_prompt"),
        (conversation("which town is the capital of perú", "Cusco.", "No.", "Lima."), "same_prompt"),
        (conversation("Which town is the capital of Peru?", "Lima."), None),
        (conversation("Hello", "Hello", "Which town is the capital of Perú?", "Lima."), None),
        (conversation("Which town is the", "capital of Perú? Lima."), None),
    ],
)
def test_a_short_item_is_compared_as_a_whole(example, expected):
    assert kind(ITEM, conversation("Hello", "Hi"), example) == expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("It’s “well-known” — yes!", 'it s "well known" yes', True),
        ("6/2", "6*2", False),
        ("-5", "5", False),
        ("pages 3–5", "pages 3-5", True),
        ("50%", "50", False),
        ("x > 1", "x < 1", False),
        ("हिन्दी", "हन्द", False),
        ("ﬁne", "FINE", True),
        ("?!", "??", False),
    ],
)
def test_what_tells_texts_apart_is_kept(one, other, same):
    assert (normalise(one) == normalise(other)) is same


def replace_words(content, *places):
    words = content.split()
    return " ".join("other" if number in places else word for number, word in enumerate(words))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (replace_words(LONG, 30, 70), "near"),  # 106 of 116 sequences
        (f"{LONG} and more", "near"),
        (f"before it {LONG}", "near"),
        (" ".join(LONG.split()[:90]), "near"),  # 86 of 116
        (" ".join(LONG.split()[:75]), None),  # 71 of 116
        (replace_words(LONG, *range(0, 120, 5)), None),
        (" ".join(reversed(LONG.split())), None),
    ],
)
def test_a_long_item_is_found_by_two_thirds_of_its_sequences_of_words(content, expected):
    assert kind(text(LONG), text("nothing of it"), text(content)) == expected


def test_sequences_are_counted_within_one_example():
    """Two examples that have half of an item each, one after the other, are not the item."""
    words = LONG.split()
    assert kind(text(LONG), text(" ".join(words[:60])), text(" ".join(words[60:]))) is None


def test_a_text_without_spaces_is_compared_by_characters():
    characters = "".join(chr(0x4E00 + number) for number in range(60))
    assert kind(text(characters), text(f"{characters[:58]}好")) == "near"
    assert kind(text(characters), text(characters[:30])) is None


def test_what_items_share_tells_nothing_about_one_of_them():
    items = [conversation(f"{LONG} {question}", question) for question in ("one", "two")]
    assert not HeldOutIndex(items).search([conversation(f"{LONG} three", "three")]).items.any()
    assert kind(items[0], conversation(f"{LONG} three", "three")) == "near"


def test_a_text_of_few_sequences_is_compared_as_a_whole():
    words = LONG.split()[: MIN_SEQUENCES + SEQUENCE - 2]
    assert kind(text(" ".join(words)), text(" ".join([*words, "more"]))) is None
    longer = LONG.split()[: MIN_SEQUENCES + SEQUENCE - 1]
    assert kind(text(" ".join(longer)), text(" ".join([*longer, "more"]))) == "near"


def test_numbers_of_items_and_examples_are_right_across_batches(monkeypatch):
    monkeypatch.setattr("studykit.data.overlap._BATCH", 500)
    items = [text(" ".join(f"{word}{number}" for word in LONG.split())) for number in range(5)]
    fillers = [text(f"filler {number} {LONG}") for number in range(7)]
    near = text(items[3].messages[0]["content"] + " more")
    found = HeldOutIndex(items).search([*fillers, near, *fillers, items[1], text("last")])
    assert found.items.tolist() == [0, 4, 0, 2, 0]
    assert np.flatnonzero(found.examples).tolist() == [7, 15]
