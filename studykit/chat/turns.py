"""The positions of the assistant's answers in a rendered conversation, and the tokens that end them.

A chat template may put words between the assistant's header and the answer (an empty thinking block, the
name of a channel), and may render an earlier turn otherwise than the last one. So nothing is guessed from headers: the
conversation is rendered a second time with a marker in place of every answer, and what surrounds the markers is found
around the answers too.

    text, answers = locate_answers([example], tokenizer)[0]
    text[answers[0].start : answers[0].stop]                 # the first answer that is trained on, as rendered
    find_turn_ends(tokenizer)                                # [32007], the ids that end an assistant's turn
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from studykit.chat.template import Conversation, render
from studykit.errors import InputError
from studykit.sources import Example

_MARKER = "studykit{}answer"
"""Letters and digits only, so that no template trims or splits it."""


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
    """A rendered conversation.

    Attributes:
        text: as the chat template renders it.
        answers: those that are trained on, in order.
        skipped: answers that are left out, since the template renders them otherwise when further turns follow.
    """

    text: str
    answers: list[Answer]
    skipped: int


def locate_answers(examples: Sequence[Example], tokenizer: Any) -> list[Located]:
    """Render conversations and find the answers in them.

    All assistant turns are trained on where the template renders each as it did when the turn was the last one;
    otherwise the last one alone is, since the model would never meet the others as they are rendered. A turn with
    `weight` 0 is context.

    Raises:
        InputError: the template refuses a conversation, leaves an answer out, or changes its text.
    """
    names = [example.id for example in examples]
    texts = render([example.messages for example in examples], tokenizer, names=names)
    marked = render([_mark(example.messages) for example in examples], tokenizer, names=names)
    return [_locate(e, text, frame, tokenizer) for e, text, frame in zip(examples, texts, marked, strict=True)]


def _locate(example: Example, text: str, frame: str, tokenizer: Any) -> Located:
    turns = assistant_turns(example.messages)
    found = _align(example, text, frame, turns, tokenizer)
    if len(turns) > 1 and not _is_stable(example, frame, turns, tokenizer):
        return Located(text, _trained(example, found[-1:]), len(turns) - 1)
    return Located(text, _trained(example, found), 0)


def assistant_turns(messages: Conversation) -> list[int]:
    """Return which messages are the assistant's."""
    return [i for i, message in enumerate(messages) if message["role"] == "assistant"]


def _trained(example: Example, answers: list[Answer]) -> list[Answer]:
    return [answer for answer in answers if example.messages[answer.turn].get("weight", 1)]


def _mark(messages: Conversation) -> list[dict[str, Any]]:
    """Put a marker in place of every answer."""
    return [
        {**message, "content": _MARKER.format(i)} if message["role"] == "assistant" else message
        for i, message in enumerate(messages)
    ]


def _align(example: Example, text: str, frame: str, turns: Sequence[int], tokenizer: Any) -> list[Answer]:
    """Find each answer between the words that surround its marker in the frame.

    Raises:
        InputError: an answer that the template does not render, or renders as another text.
    """
    answers, at = [], 0
    pieces = re.split("|".join(_MARKER.format(turn) for turn in turns), frame)
    if len(pieces) != len(turns) + 1:
        raise InputError(
            f"example {example.id!r}: the chat template renders {len(pieces) - 1} of its {len(turns)} answers: change "
            "the conversation, or the template saved beside the model"
        )
    for turn, before, after in zip(turns, pieces, pieces[1:], strict=False):
        content = example.messages[turn]["content"]
        is_last = turn == turns[-1]
        for rendered in dict.fromkeys((content, content.strip(), content.rstrip(), content.lstrip())):
            start = at + len(before)
            stop = start + len(rendered)
            ends = text[stop:] == after if is_last else text.startswith(after, stop)
            if text.startswith(before, at) and text.startswith(rendered, start) and ends:
                break
        else:
            if is_last and (reasoned := _after_header(example, text, after, tokenizer)):
                return [*answers, reasoned]
            raise InputError(
                f"example {example.id!r}: the chat template changes the text of the answer in turn {turn} "
                f"({content[:40]!r}): write the answer as the template renders it, or change the template saved beside "
                "the model"
            )
        answers.append(Answer(turn, start, stop))
        at = stop
    return answers


def _after_header(example: Example, text: str, after: str, tokenizer: Any) -> Answer | None:
    """Return the last answer where it holds its own reasoning (`<think>...</think>`), which templates lay out anew.

    It is then all that follows the generation prompt, and must be the same text, whitespace apart.
    """
    (header,) = render([example.messages[:-1]], tokenizer, add_generation_prompt=True, names=[example.id])
    start, stop = len(header), len(text) - len(after)
    same = "".join(text[start:stop].split()) == "".join(example.answer.split())
    return (
        Answer(len(example.messages) - 1, start, stop)
        if same and text.startswith(header) and text.endswith(after)
        else None
    )


def _is_stable(example: Example, frame: str, turns: Sequence[int], tokenizer: Any) -> bool:
    """Whether each answer but the last is between the same words, and ends in the same way, as when it was the last."""
    for turn in turns[:-1]:
        (alone,) = render([_mark(example.messages[: turn + 1])], tokenizer, names=[example.id])
        before, marker, after = alone.partition(_MARKER.format(turn))
        follows = frame.partition(marker)[2]
        end = leading_special(after, tokenizer)
        end = end_without_template(tokenizer) if end is None else end
        if not frame.startswith(before + marker) or leading_special(follows, tokenizer) != end:
            return False
    return True


def find_turn_ends(tokenizer: Any) -> list[int]:
    """Return the ids that end an assistant's turn, whether or not another turn follows, and the tokenizer's end token.

    Raises:
        InputError: the template puts no special token after an answer, and the tokenizer has no end token.
    """
    ends = {tokenizer.eos_token_id} - {None}
    if tokenizer.chat_template:
        last, followed = _after_answers(tokenizer)
        ends |= {end_without_template(tokenizer) if last is None else last, followed} - {None}
    if not ends:
        raise _no_end(tokenizer)
    return sorted(ends)


def end_without_template(tokenizer: Any) -> int:
    """Return the id that ends an answer where the template writes no special token after the last one.

    It is the token that opens the next turn, where that is what a chat model stops at (as in GLM 4.5), otherwise the
    tokenizer's end token.

    Raises:
        InputError: there is neither.
    """
    followed = _after_answers(tokenizer)[1]
    if followed is not None:
        return followed
    if tokenizer.eos_token_id is None:
        raise _no_end(tokenizer)
    return tokenizer.eos_token_id


def _after_answers(tokenizer: Any) -> tuple[int | None, int | None]:
    """Return the special token after an answer that is the last message, and after one that another turn follows."""
    talk: list[dict[str, Any]] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARKER.format(1)}]
    found = []
    for messages in (talk, [*talk, {"role": "user", "content": "b"}]):
        (text,) = render([messages], tokenizer, names=["of two turns"])
        found.append(leading_special(text.partition(_MARKER.format(1))[2], tokenizer))
    return found[0], found[1]


def leading_special(text: str, tokenizer: Any) -> int | None:
    """Return the special token that a text begins with, leading whitespace apart; None where it begins with a word."""
    ids = tokenizer(text.lstrip(), add_special_tokens=False)["input_ids"][:1]
    return ids[0] if ids and ids[0] in special_ids(tokenizer) else None


def special_ids(tokenizer: Any) -> set[int]:
    """Return the ids that can end a turn: special tokens, and all others that were added to the vocabulary by name."""
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}


def _no_end(tokenizer: Any) -> InputError:
    return InputError(
        f"tokenizer {tokenizer.name_or_path!r} has no end token, and its chat template writes none after an answer, so "
        "a student could never learn to stop: set tokenizer.eos_token and save it beside the model"
    )
