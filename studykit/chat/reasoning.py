"""The content of a generated answer: what follows its reasoning.

    end = reasoning_end(tokenizer)                      # "</think>"
    ids = without_reasoning(ids, end, tokenizer)        # of "<think>2 and 2</think>4" those of "4"

Models that reason write it in front of their answer, in the words of their chat template (`<think>...</think>`). It is
no part of what is scored or passed on to a student. The words are read off the template; without any, nothing is cut.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from studykit.chat.template import template_of

_REASONING, _CONTENT = "studykitreasoning", "studykitcontent"
_USUAL = {"</think>": "<think>", "[/THINK]": "[THINK]", "<channel|>": "<|channel>"}
"""What ends and opens the reasoning of models whose templates only take it out, or render it beside tool calls."""


def content_of(text: str, end: str | None) -> str:
    """Return a text after its reasoning; all of it where it holds none."""
    return text.rpartition(end)[2].strip() if end and end in text else text


def without_reasoning(ids: Sequence[int], end: str | None, tokenizer: Any) -> list[int]:
    """Return the ids of a generated answer after its reasoning; none where it was cut off before its content.

    Args:
        ids: int [n], as generated; a token that ends the answer may be among them.
        end: from `reasoning_end`.
        tokenizer: of the model that generated it.
    """
    ids = list(ids)
    if end is None:
        return ids
    text = tokenizer.decode(ids)
    if end not in text:
        return [] if text.lstrip().startswith(_USUAL.get(end, end.replace("/", ""))) else ids
    number = text.count(end)
    first = bisect_left(range(len(ids)), number, key=lambda count: tokenizer.decode(ids[:count]).count(end))
    while first < len(ids) and not tokenizer.decode(ids[first : first + 1]).strip():
        first += 1
    return ids[first:]


def reasoning_end(tokenizer: Any) -> str | None:
    """Return the words that a chat template writes between reasoning and content; None where it knows no reasoning."""
    if not (template := template_of(tokenizer)):
        return None
    answer = {"role": "assistant", "content": _CONTENT, "reasoning_content": _REASONING}
    try:
        text = tokenizer.apply_chat_template([{"role": "user", "content": "a"}, answer], tokenize=False)
    except Exception:  # a template may raise anything; whether it takes the data is tried where that is rendered
        text = ""
    between = text.partition(_REASONING)[2].partition(_CONTENT)
    if between[1] and between[0].strip():
        return between[0].strip()
    return next((end for end in _USUAL if end in template), None)
