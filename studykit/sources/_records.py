"""One record of a user's file, in any layout that the common tools write, as the messages of a conversation.

    messages                     {"messages": [{"role": ..., "content": ...}, ...]}    OpenAI, trl, Together, Mistral
    prompt and completion        texts, or lists of messages                           trl
    conversations                {"conversations": [{"from": "human", "value": ...}]}  ShareGPT, axolotl
    instruction, input, output   with `system` and `history` where they are given      Alpaca, LLaMA-Factory
    text                         a plain document

`None` and empty lists count as absent, as `datasets` writes them. Fields that change what a model is trained on are
followed or refused, never dropped: `weight: 0` leaves an answer out of the loss; tool calls and reasoning are refused.
"""

from collections.abc import Callable, Mapping
from typing import Any

from studykit.errors import InputError
from studykit.sources import PLAIN_TEXT

Message = dict[str, Any]

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant"}
_ROLES |= {"bing": "assistant", "bard": "assistant", "system": "system", "developer": "developer", "tool": "tool"}
_REFUSED = ("tool_calls", "function_call", "tools", "functions", "reasoning_content", "reasoning", "thinking")
"""Fields that change what the model learns and that a chat template alone would decide upon."""

_OF_MESSAGE = {"role", "content", "weight", "name", "from", "value"}
_OF_RECORD = {"id", "source", "annotator", "split"}


def to_messages(record: Mapping[str, Any], where: str) -> tuple[tuple[Message, ...], set[str]]:
    """Return the messages of a record, and its keys that took no part.

    Args:
        record: one JSON object.
        where: file and line, for messages.

    Raises:
        InputError: no known layout, a field that cannot be followed, an empty or malformed message, or no answer at
            the end.
    """
    given = {key: value for key, value in record.items() if value not in (None, [], {})}
    _refuse_fields(given, where)
    for needed, read in _LAYOUTS.items():
        if set(needed) <= set(given):
            messages, used = read(given, where)
            break
    else:
        raise InputError(
            f"{where}: needs `messages`, `prompt` with `completion`, `conversations`, `instruction` with `output`, or "
            f"`text`; has {sorted(record)}"
        )
    if messages[-1]["role"] not in ("assistant", PLAIN_TEXT):
        raise InputError(f"{where}: the last message must be the assistant's, received {messages[-1]['role']!r}")
    return tuple(messages), set(given) - used - _OF_RECORD


def _refuse_fields(fields: Mapping[str, Any], where: str) -> None:
    for name in _REFUSED:
        if fields.get(name):
            raise InputError(
                f"{where}: `{name}` changes what the model learns and is not supported: remove the field, or write its "
                "text into the content as the model should generate it"
            )


def _from_messages(record: Mapping[str, Any], where: str) -> tuple[list[Message], set[str]]:
    return _messages(record["messages"], where), {"messages"}


def _from_conversations(record: Mapping[str, Any], where: str) -> tuple[list[Message], set[str]]:
    opening = _system(record, where)
    return [*opening, *_messages(record["conversations"], where)], {"conversations", "system"}


def _from_prompt(record: Mapping[str, Any], where: str) -> tuple[list[Message], set[str]]:
    sides = {"prompt": "user", "completion": "assistant"}
    messages = [
        message
        for key, role in sides.items()
        for message in (
            _messages(record[key], where)
            if isinstance(record[key], list)
            else [{"role": role, "content": _text(record[key], role, where)}]
        )
    ]
    return messages, set(sides)


def _from_instruction(record: Mapping[str, Any], where: str) -> tuple[list[Message], set[str]]:
    messages = _system(record, where)
    for pair in record.get("history", ()):
        if not isinstance(pair, list) or len(pair) != 2:
            raise InputError(f"{where}: `history` is a list of [question, answer] pairs, received {pair!r:.80}")
        messages += _pair(pair[0], pair[1], where)
    asked = _text(record["instruction"], "user", where)
    if record.get("input"):
        asked = f"{asked}\n{_text(record['input'], 'user', where)}"
    return [*messages, *_pair(asked, record["output"], where)], {"instruction", "input", "output", "system", "history"}


def _from_text(record: Mapping[str, Any], where: str) -> tuple[list[Message], set[str]]:
    return [{"role": PLAIN_TEXT, "content": _text(record["text"], "text", where)}], {"text"}


_LAYOUTS: dict[tuple[str, ...], Callable[[Mapping[str, Any], str], tuple[list[Message], set[str]]]] = {
    ("messages",): _from_messages,
    ("prompt", "completion"): _from_prompt,
    ("conversations",): _from_conversations,
    ("instruction", "output"): _from_instruction,
    ("text",): _from_text,
}
"""The keys that tell a layout, the first that fits decides: a rendered `text` beside a conversation is ignored."""


def _system(record: Mapping[str, Any], where: str) -> list[Message]:
    return [{"role": "system", "content": _text(record["system"], "system", where)}] if record.get("system") else []


def _pair(asked: Any, answered: Any, where: str) -> list[Message]:
    return [
        {"role": "user", "content": _text(asked, "user", where)},
        {"role": "assistant", "content": _text(answered, "assistant", where)},
    ]


def _messages(turns: Any, where: str) -> list[Message]:
    if not isinstance(turns, list):
        raise InputError(f"{where}: a list of messages is expected, received {type(turns).__name__}")
    return [_message(turn, where) for turn in turns]


def _message(turn: Any, where: str) -> Message:
    named = turn.get("role", turn.get("from")) if isinstance(turn, dict) else None
    if not isinstance(named, str):
        raise InputError(f"{where}: every message is an object with role and content, received {turn!r:.80}")
    given = {key: value for key, value in turn.items() if value not in (None, [], {})}
    _refuse_fields(given, where)
    if unknown := sorted(set(given) - _OF_MESSAGE):
        raise InputError(
            f"{where}: a message has the field {unknown[0]!r}, which would be lost: remove it from the file"
        )
    role = _ROLES.get(named, named)
    message: Message = {"role": role, "content": _text(turn.get("content", turn.get("value")), role, where)}
    weight = given.get("weight", 1)
    if weight not in (0, 1):
        raise InputError(f"{where}: a message's weight is 0 (context only) or 1, received {weight!r:.20}")
    return message if weight else {**message, "weight": 0}


def _text(content: Any, role: str, where: str) -> str:
    """Return a content's text, given as text or as a list of text parts.

    Raises:
        InputError: no text, an empty one, a part that is no text, or half of a surrogate pair.
    """
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str) or not content.strip():
        raise InputError(f"{where}: the {role}'s content must be non-empty text, received {content!r:.80}")
    return content
