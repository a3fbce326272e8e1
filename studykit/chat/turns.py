"""The positions of the assistant's answers in a rendered conversation.

A chat template may put words between the assistant's header and the answer (an empty thinking block, the
name of a channel), and may render an earlier turn otherwise than the last one. So nothing is guessed from headers: the
conversation is rendered a second time with a marker in place of every answer, and what surrounds the markers is found
around the answers too.

    text, answers, left_out = locate_answers([example], tokenizer, find_turn_ends(tokenizer))[0]
    text[answers[0].start : answers[0].stop]                 # the first answer that is trained on, as rendered
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from studykit.chat.ends import TurnEnds, leading_special
from studykit.chat.template import Conversation, render
from studykit.errors import InputError
from studykit.sources import Example

_MARKER = "studykit{}answer"
"""Letters and digits only, so that no template trims or splits it."""

_FOLLOWED = {"role", "content", "weight", "name"}


class Answer(NamedTuple):
    """One answer in a rendered conversation.

    Attributes:
        turn: which of the messages it is.
        start, stop: its characters.
    """

    turn: int
    start: int
    stop: int


class Located(NamedTuple):
    """A rendered conversation, up to its last answer that is trained on.

    Attributes:
        text: as the chat template renders it.
        answers: those that are trained on, in order.
        left_out: number of answers that are not, since the template renders them otherwise when further turns follow.
    """

    text: str
    answers: list[Answer]
    left_out: int


def locate_answers(examples: Sequence[Example], tokenizer: Any, ends: TurnEnds) -> list[Located]:
    """Render conversations and find the answers in them.

    All assistant turns are trained on where the template renders each as it did when the turn was the last one;
    otherwise the last one alone is, since the model would never meet the others as they are rendered. A turn with
    `weight` 0 is context.

    Raises:
        InputError: the template refuses a conversation, leaves an answer out, or changes its text; an empty answer;
            a field of a message that would be lost.
    """
    for example in examples:
        _check_messages(example)
    names = [example.id for example in examples]
    shown = [shown_messages(example) for example in examples]
    texts = render(shown, tokenizer, names=names)
    frames = render([_mark(messages, trained_turns(messages)) for messages in shown], tokenizer, names=names)
    rendered = zip(examples, shown, texts, frames, strict=True)
    return [_locate(e, messages, text, frame, tokenizer, ends) for e, messages, text, frame in rendered]


def trained_turns(messages: Conversation) -> list[int]:
    """Return which messages are answers that are trained on: the assistant's, without those of weight 0."""
    return [i for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("weight", 1)]


def shown_messages(example: Example) -> Conversation:
    """Return the messages up to the last answer that is trained on, which are rendered; all where there is none."""
    turns = trained_turns(example.messages)
    return example.messages[: turns[-1] + 1] if turns else example.messages


def _check_messages(example: Example) -> None:
    """Refuse answers without text, and fields that no template would get to see."""
    for turn, message in enumerate(example.messages):
        if lost := sorted(set(message) - _FOLLOWED):
            raise InputError(
                f"example {example.id!r}: turn {turn} has the field {lost[0]!r}, which would be lost: write its text "
                "into the content as the model should generate it, or leave it out"
            )
    for turn in trained_turns(example.messages):
        if not example.messages[turn]["content"].strip():
            raise InputError(f"example {example.id!r}: the answer in turn {turn} is empty: remove it, or give weight 0")


def _locate(example: Example, messages: Conversation, text: str, frame: str, tokenizer: Any, ends: TurnEnds) -> Located:
    turns = trained_turns(messages)
    answers = _align(messages, text, frame, turns)
    if answers is not None and _is_stable(example, frame, turns, tokenizer, ends):
        return Located(text, answers, 0)
    if len(turns) > 1:
        (frame,) = render([_mark(messages, turns[-1:])], tokenizer, names=[example.id])
    return Located(text, [_last(example, messages, text, frame, turns[-1])], len(turns) - 1)


def _mark(messages: Conversation, turns: Sequence[int]) -> list[dict[str, Any]]:
    """Put a marker in place of answers."""
    return [{**m, "content": _MARKER.format(i)} if i in turns else m for i, m in enumerate(messages)]


def _align(messages: Conversation, text: str, frame: str, turns: Sequence[int]) -> list[Answer] | None:
    """Find each answer between the words that surround its marker in the frame; None where one is not there.

    Whitespace at the ends of an answer may be gone: many templates trim it.
    """
    if not turns:
        return []
    answers, at = [], 0
    pieces = re.split("|".join(_MARKER.format(turn) for turn in turns), frame)
    if len(pieces) != len(turns) + 1:
        return None
    for turn, before, after in zip(turns, pieces, pieces[1:], strict=False):
        content, start = messages[turn]["content"], at + len(before)
        for rendered in dict.fromkeys((content, content.strip(), content.rstrip(), content.lstrip())):
            stop = start + len(rendered)
            ends = text[stop:] == after if turn == turns[-1] else text.startswith(after, stop)
            if text.startswith(before, at) and text.startswith(rendered, start) and ends:
                break
        else:
            return None
        answers.append(Answer(turn, start, stop))
        at = stop
    return answers


def _last(example: Example, messages: Conversation, text: str, frame: str, turn: int) -> Answer:
    """Find the last answer.

    One that holds its own reasoning (`<think>...</think>`) may be laid out anew by the template: it is then the same
    text, whitespace apart.

    Raises:
        InputError: the template does not render the answer, or renders another text.
    """
    if found := _align(messages, text, frame, [turn]):
        return found[0]
    content, (_, marker, after) = messages[turn]["content"], frame.partition(_MARKER.format(turn))
    if not marker:
        raise InputError(
            f"example {example.id!r}: the chat template does not render the answer in turn {turn}: change the "
            "conversation, or the template saved beside the model"
        )
    stop = len(text) - len(after)
    start = _start_of("".join(content.split()), text[:stop])
    if start is None or not text.endswith(after):
        raise InputError(
            f"example {example.id!r}: the chat template changes the text of the answer in turn {turn} "
            f"({content[:40]!r}): write the answer as the template renders it, or change the template saved beside "
            "the model"
        )
    return Answer(turn, start, stop)


def _start_of(letters: str, text: str) -> int | None:
    """Return where a text begins to end with these letters, whitespace apart; None where it ends otherwise."""
    at = len(text)
    for letter in reversed(letters):
        at = len(text[:at].rstrip()) - 1
        if at < 0 or text[at] != letter:
            return None
    return at


def _is_stable(example: Example, frame: str, turns: Sequence[int], tokenizer: Any, ends: TurnEnds) -> bool:
    """Whether each answer but the last is between the same words, and ends in the same way, as when it was the last."""
    for number, turn in enumerate(turns[:-1], 1):
        marked = _mark(example.messages[: turn + 1], turns[:number])
        (alone,) = render([marked], tokenizer, names=[example.id])
        before, marker, after = alone.partition(_MARKER.format(turn))
        end = leading_special(after, tokenizer)
        end = ends.last if end is None else end
        if not frame.startswith(before + marker) or leading_special(frame.partition(marker)[2], tokenizer) != end:
            return False
    return True
