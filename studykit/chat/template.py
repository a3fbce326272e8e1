"""Render conversations through a tokenizer's chat template: on a fixed date, and refused in one line.

    render([["user's and assistant's messages"], ...], tokenizer)

Templates such as those of Llama 3.2 and Granite write today's date. Here the date is always `DATE`, so that one
specification gives the same tokens on every day.
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import date
from typing import Any, cast

from transformers.utils.chat_template_utils import render_jinja_template

from studykit.errors import InputError

DATE = date(2024, 7, 26)
"""Today's date for templates; the default of Llama 3's own templates."""

Conversation = Sequence[dict[str, Any]]
Spans = list[tuple[int, int]]

_MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_CODES = (*"aAbBcCdDeFgGhHIjmMpRSTuUVwWxXyYZ", "-d", "-m", "-j", "-y", "-H", "-I", "-M", "-S")
"""Of all formats of a date that do not depend on a clock or time zone."""

_MESSAGE_FIELDS = ("role", "content")


def render(
    conversations: Sequence[Conversation],
    tokenizer: Any,
    *,
    add_generation_prompt: bool = False,
    names: Sequence[str] | None = None,
) -> list[str]:
    """Apply the chat template to conversations.

    Args:
        conversations: messages with `role` and `content`; other fields are not passed to the template.
        tokenizer: has the chat template.
        add_generation_prompt: end with the words that open the assistant's turn.
        names: ids of the examples, for messages.

    Raises:
        InputError: the tokenizer has no chat template, or the template refuses a conversation.
    """
    if not (written := template_of(tokenizer)):
        raise InputError(
            f"tokenizer {tokenizer.name_or_path!r} has no chat template: set tokenizer.chat_template and save it "
            "beside the model, or give raw texts instead of conversations"
        )
    template = _fixed_date() + written
    plain = [_plain(messages) for messages in conversations]
    settings = {"chat_template": template, "tokenize": False, "add_generation_prompt": add_generation_prompt}
    try:
        return tokenizer.apply_chat_template(plain, **settings)
    except Exception:  # a template may raise anything: find the conversation that it refuses
        for number, messages in enumerate(plain):
            _render_one(messages, tokenizer, settings, names[number] if names else str(number))
        raise


def template_of(tokenizer: Any) -> str:
    """Return the chat template, of several the one named "default"; "" without any.

    Raises:
        InputError: there are several, and none of that name.
    """
    if not tokenizer.chat_template:
        return ""
    try:
        return tokenizer.get_chat_template()
    except ValueError:
        names = ", ".join(sorted(map(str, tokenizer.chat_template)))
        raise InputError(
            f"tokenizer {tokenizer.name_or_path!r} has chat templates of several names ({names[:80]}) and none named "
            '"default": set tokenizer.chat_template to the one that is meant, and save it beside the model'
        ) from None


def template_hash(tokenizer: Any) -> str | None:
    """Return the sha256 of the chat template; None without one."""
    template = template_of(tokenizer)
    return hashlib.sha256(template.encode()).hexdigest() if template else None


def has_marks(tokenizer: Any) -> bool:
    """Whether the chat template marks what the assistant generates, by `{% generation %}`."""
    return bool(_MARK.search(template_of(tokenizer)))


def render_marked(messages: Conversation, tokenizer: Any) -> tuple[str, Spans]:
    """Return a rendered conversation and its characters inside marks; marks that touch each other count as one.

    The template has marks, and has been seen to take the conversation.
    """
    (text,), (marks,) = render_jinja_template(
        conversations=[_plain(messages)],
        chat_template=_fixed_date() + template_of(tokenizer),
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    spans: Spans = []
    for start, stop in cast(Spans, marks):
        if spans and spans[-1][1] == start:
            start = spans.pop()[0]
        spans.append((start, stop))
    return text, spans


def _plain(messages: Conversation) -> list[dict[str, Any]]:
    return [{name: message[name] for name in _MESSAGE_FIELDS} for message in messages]


def _render_one(messages: Conversation, tokenizer: Any, settings: dict[str, Any], name: str) -> None:
    try:
        tokenizer.apply_chat_template(messages, **settings)
    except Exception as error:
        roles = ", ".join(str(message["role"]) for message in messages)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"example {name!r}: the chat template refuses its turns ({roles}): {reason}; change the conversation, or "
            "the template saved beside the model"
        ) from None


def _fixed_date() -> str:
    """Return a macro that replaces the function by which a template reads today's date."""
    replaced = "".join(f"|replace('%{code}', '{DATE.strftime(f'%{code}')}')" for code in _CODES)
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{replaced} }}}}{{%- endmacro +%}}"
