"""Which answers of a conversation are trained on, and in how many sequences: `turns` of a stage.

    sequences, conversation = as_sequences(examples, "each")        # ids "a#1", "a#2"; [0, 0]

    None    all answers in one sequence where the template renders each as it did when it was the last; else the last
    last    one sequence, in which the last answer alone is trained on
    each    one sequence for each answer, in which the conversation ends with it
    all     all answers in one sequence; an example that the template renders otherwise is refused

`each` is right for every template: each answer is rendered as the model will meet it. `all` costs fewer tokens.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from studykit.chat.encoded import Encoded
from studykit.chat.turns import trained_turns
from studykit.errors import InputError
from studykit.sources import Example

Turns = Literal["last", "each", "all"]


def as_sequences(examples: Sequence[Example], turns: Turns | None) -> tuple[list[Example], np.ndarray]:
    """Return the conversations that become one sequence each, and the example that each of them is of.

    Answers before the last one of a sequence are context (`weight` 0) for `last` and `each`. Raw texts stay.

    Args:
        examples: conversations or raw texts.
        turns: as the stage gives it.

    Returns:
        The sequences in the order of the examples, and int64 [n], the index of the example of each.
    """
    if turns in (None, "all"):
        return list(examples), np.arange(len(examples))
    sequences: list[Example] = []
    owners: list[int] = []
    for index, example in enumerate(examples):
        parts = _parts(example, turns)
        sequences += parts
        owners += [index] * len(parts)
    return sequences, np.array(owners, dtype=np.int64)


def _parts(example: Example, turns: Turns | None) -> list[Example]:
    answers = trained_turns(example.messages)
    if len(answers) < 2:
        return [example]
    if turns == "last":
        return [_ending_at(example, answers[-1], example.id)]
    return [_ending_at(example, turn, f"{example.id}#{number}") for number, turn in enumerate(answers, 1)]


def _ending_at(example: Example, turn: int, name: str) -> Example:
    """Return the conversation up to one answer, which alone is trained on."""
    context = [m | {"weight": 0} if m["role"] == "assistant" else m for m in example.messages[:turn]]
    return replace(example, id=name, messages=(*context, example.messages[turn]))


def check_all_answers(examples: Sequence[Example], encoded: Encoded) -> None:
    """Refuse examples of which answers are left out; for `turns='all'`.

    Raises:
        InputError: naming the first such example.
    """
    if len(fewer := np.flatnonzero(encoded.left_out)):
        raise InputError(
            f"example {examples[int(fewer[0])].id!r}: turns='all' cannot train on {encoded.left_out[fewer[0]]} of its "
            "answers, since the chat template renders them otherwise when further turns follow, or does not mark them "
            "as generated: take turns='each', one sequence for each answer, or turns='last'"
        )
