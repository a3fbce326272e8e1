"""The `{% generation %}` marks of a template, compared with the answers that were found without them.

    located = select_marked(examples, located, tokenizer)        # of a template that has marks

Marks decide which answers are trained on: they are the template author's word. Which characters of a marked stretch are
the answer is what the markers of `studykit.chat.turns` found, since marks may also hold words of the template (a
thinking block, the end of the turn), which are no content. The end is trained on whether or not the marks hold it.
"""

from collections.abc import Sequence
from typing import Any

from studykit.chat.template import Conversation, Spans, render_marked
from studykit.chat.turns import Answer, Located, shown_messages
from studykit.errors import InputError
from studykit.sources import Example

_WORDS = "studykit{}words"
_FIX = "correct the template saved beside the model, or remove its marks"


def select_marked(examples: Sequence[Example], located: Sequence[Located], tokenizer: Any) -> list[Located]:
    """Return the answers that the template marks as generated.

    Raises:
        InputError: marks that hold a part of an answer, or words of another role.
    """
    foreign: dict[tuple[str, ...], str | None] = {}
    selected = []
    for example, where in zip(examples, located, strict=True):
        messages = shown_messages(example)
        roles = tuple(message["role"] for message in messages)
        if roles not in foreign:
            foreign[roles] = _foreign_role(messages, tokenizer)
        if foreign[roles]:
            raise InputError(
                f"example {example.id!r}: the marks {{% generation %}} of the chat template hold words of the "
                f"{foreign[roles]}: {_FIX}"
            )
        text, spans = render_marked(messages, tokenizer)
        marked = [answer for answer in where.answers if _is_marked(example, answer, text, spans)]
        left_out = where.left_out + len(where.answers) - len(marked)
        selected.append(where._replace(answers=marked, left_out=left_out))
    return selected


def _is_marked(example: Example, answer: Answer, text: str, spans: Spans) -> bool:
    touching = [span for span in spans if span[0] < answer.stop and span[1] > answer.start]
    if touching and not (touching[0][0] <= answer.start and answer.stop <= touching[0][1]):
        raise InputError(
            f"example {example.id!r}: of the answer in turn {answer.turn} the marks {{% generation %}} of the chat "
            f"template hold only {text[slice(*touching[0])][:40]!r}: {_FIX}"
        )
    return bool(touching)


def _foreign_role(messages: Conversation, tokenizer: Any) -> str | None:
    """Return the role of a message, not the assistant's, whose content the marks hold; None where there is none."""
    words = [_WORDS.format(turn) for turn in range(len(messages))]
    text, spans = render_marked(
        [{**message, "content": word} for message, word in zip(messages, words, strict=True)], tokenizer
    )
    for message, word in zip(messages, words, strict=True):
        at = text.find(word)
        if message["role"] != "assistant" and at >= 0 and any(start <= at < stop for start, stop in spans):
            return str(message["role"])
    return None
