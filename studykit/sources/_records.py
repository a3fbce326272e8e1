"""One record of a user's file, in any layout that the common tools write, as the messages of a conversation.

    messages                     {"messages": [{"role": ..., "content": ...}, ...]}    OpenAI, trl, Together, Mistral
    prompt and completion        texts, or lists of messages                           trl, Together
    conversations                {"conversations": [{"from": "human", "value": ...}]}  ShareGPT, axolotl (also `data`)
    instruction, input, output   with `system` and `history` where they are given      Alpaca, LLaMA-Factory
    text                         a plain document

`None` and empty lists count as absent, as `datasets` writes them. Fields that change what a model is trained on are
followed or refused, never dropped: `weight: 0` and `train: false` leave an answer out of the loss, as do the answers
inside a `prompt`; tool calls, reasoning, images and pairs of a better and a worse answer are refused.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from studykit.errors import InputError, unknown
from studykit.sources import PLAIN_TEXT

Message = dict[str, Any]

_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant"}
_ROLES |= {"model": "assistant", "observation": "tool", "function": "tool"}
_ROLES |= {role: role for role in ("user", "assistant", "system", "developer", "tool", "ipython")}

_OF_THE_TEMPLATE = (
    "changes what the model learns and is not supported: remove the field, or write its text into the content as the "
    "model should generate it"
)
_OF_MEDIA = "cannot be read, since models here read text alone: leave such records out"
_OF_A_PAIR = "belongs to a pair of a better and a worse answer: write the better one as the answer, without this field"
_PARTS_OF_TURNS = "tool_calls function_call tools functions documents reasoning_content reasoning thinking refusal"

_REFUSED = {
    **dict.fromkeys(_PARTS_OF_TURNS.split(), _OF_THE_TEMPLATE),
    **dict.fromkeys(("images", "image", "videos", "video", "audios", "audio"), _OF_MEDIA),
    **dict.fromkeys(("chosen", "rejected", "preferred_output", "non_preferred_output"), _OF_A_PAIR),
    "chat_template_kwargs": "changes how the template renders: set it in the template saved beside the model",
    "train_detail": "trains on parts of an answer, which is not supported: use `train` for whole answers",
    "prefix": "has an answer go on where this message ends, which is not supported: write one answer",
}
"""Fields that change what the model learns, and the reason and the fix."""

_WEIGHTS = ("weight", "train", "loss")
"""Fields of a message that say whether it is trained on: of OpenAI and Mistral, of axolotl, of ms-swift."""

_LIKE_WEIGHTS = re.compile("weight|train|loss|mask")
_OF_MESSAGE = {"role", "content", "from", "value", *_WEIGHTS}
_OF_RECORD = {"id", "source", "annotator", "split"}
_JUDGED = ("label", "kto_tag")
_ANSWER_TO = {"completion": "prompt", "output": "instruction"}
"""Answers that are empty where they are `None`, beside their prompts."""


def to_messages(record: Mapping[str, Any], where: str) -> tuple[tuple[Message, ...], set[str]]:
    """Return the messages of a record, and its keys that took no part.

    Args:
        record: one JSON object.
        where: file and line, for messages.

    Raises:
        InputError: no known layout, a field that cannot be followed, an empty or malformed message, or no answer at
            the end.
    """
    given = _given(record)
    given |= {key: "" for key, prompt in _ANSWER_TO.items() if prompt in given and key in record and key not in given}
    _refuse_fields(given, where)
    layout = next((layout for needed, layout in _LAYOUTS.items() if set(needed) <= set(given)), None)
    if layout is None:
        raise InputError(
            f"{where}: needs `messages`, `prompt` with `completion`, `conversations`, `instruction` with `output`, or "
            f"`text`; has {_shortened(sorted(map(str, record)))}"
        )
    used, read = layout
    messages = read(given, where)
    if messages[-1]["role"] not in ("assistant", PLAIN_TEXT):
        raise InputError(f"{where}: the last message must be the assistant's, received {messages[-1]['role']!r}")
    if all(message.get("weight", 1) == 0 for message in messages if message["role"] in ("assistant", PLAIN_TEXT)):
        raise InputError(f"{where}: no answer is trained on: each has weight 0 (or train false); leave the record out")
    turns = [(key, turn) for key in used for turn in _list(given.get(key)) if isinstance(turn, dict)]
    unread = {f"{key}[].{name}" for key, turn in turns for name in _given(turn) if name not in _OF_MESSAGE}
    return tuple(messages), unread | (set(given) - set(used) - _OF_RECORD)


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if not _is_missing(value)}


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, list | dict) and not value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _shortened(names: list[str]) -> str:
    return str([name[:40] for name in names[:8]]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def to_choices(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the answers to choose from that a record names as a list of texts; none where it names none."""
    choices = _list(record.get("choices"))
    return tuple(choices) if all(isinstance(choice, str) and choice.strip() for choice in choices) else ()


def _refuse_fields(fields: Mapping[str, Any], where: str) -> None:
    for name, why in _REFUSED.items():
        if fields.get(name) and not _is_empty_json(fields[name]):
            raise InputError(f"{where}: `{name}` {why}")
    for name in _JUDGED:
        if fields.get(name) is False:
            raise InputError(
                f"{where}: `{name}: false` marks a bad answer, which would be trained on: leave the record out"
            )


def _is_empty_json(value: Any) -> bool:
    """Whether a text is an empty list or object, as tables hold a column of tools."""
    if not isinstance(value, str) or len(value) > 8:
        return False
    try:
        return not json.loads(value)
    except ValueError:
        return not value.strip()


def _from_messages(key: str) -> Callable[[Mapping[str, Any], str], list[Message]]:
    return lambda record, where: _with_system(record, _messages(record[key], where), where)


def _from_prompt(record: Mapping[str, Any], where: str) -> list[Message]:
    """Return prompt and completion; only the completion's answers are trained on."""
    prompt, completion = (
        _messages(record[key], where)
        if isinstance(record[key], list)
        else [{"role": role, "content": _text(record[key], role, where)}]
        for key, role in (("prompt", "user"), ("completion", "assistant"))
    )
    context = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in prompt]
    return _with_system(record, [*context, *completion], where)


def _from_instruction(record: Mapping[str, Any], where: str) -> list[Message]:
    messages: list[Message] = []
    for pair in _list(record.get("history")):
        if not isinstance(pair, list) or len(pair) != 2:
            raise InputError(f"{where}: `history` is a list of [question, answer] pairs, received {pair!r:.80}")
        messages += _pair(pair[0], pair[1], where)
    parts = [record[key] for key in ("instruction", "input") if record.get(key) not in (None, "")]
    asked = "\n".join(_text(part, "user", where) for part in parts)
    return _with_system(record, [*messages, *_pair(asked, record["output"], where)], where)


def _from_text(record: Mapping[str, Any], where: str) -> list[Message]:
    return [{"role": PLAIN_TEXT, "content": _text(record["text"], "text", where)}]


Read = Callable[[Mapping[str, Any], str], list[Message]]

_LAYOUTS: dict[tuple[str, ...], tuple[tuple[str, ...], Read]] = {
    ("messages",): (("messages", "system"), _from_messages("messages")),
    ("prompt", "completion"): (("prompt", "completion", "system"), _from_prompt),
    ("conversations",): (("conversations", "system"), _from_messages("conversations")),
    ("instruction", "output"): (("instruction", "input", "output", "system", "history"), _from_instruction),
    ("text",): (("text",), _from_text),
    ("data",): (("data", "system"), _from_messages("data")),
}
"""The keys that tell a layout, all that it reads, and how. The first that fits decides: a rendered `text` beside a
conversation is ignored."""


def _with_system(record: Mapping[str, Any], messages: list[Message], where: str) -> list[Message]:
    """Return the messages after the record's `system` text, where it has one.

    Raises:
        InputError: the messages open with another one.
    """
    if not record.get("system"):
        return messages
    content = _text(record["system"], "system", where)
    if messages[0]["role"] not in ("system", "developer"):
        return [{"role": "system", "content": content}, *messages]
    if messages[0]["content"] != content:
        raise InputError(f"{where}: `system` and the first message are two system prompts: keep one of them")
    return messages


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
    given = _given(turn)
    _refuse_fields(given | {"tool_calls": given.get("tool_calls") or named == "function_call"}, where)
    if named not in _ROLES:
        raise InputError(f"{where}: {unknown('role', named[:40], _ROLES)}")
    if {"content", "value"} <= given.keys() and given["content"] != given["value"]:
        raise InputError(f"{where}: a message has `content` and another `value`: keep one of them")
    role, content = _ROLES[named], turn.get("content", turn.get("value"))
    message: Message = {"role": role, "content": _text(content, role, where)}
    return message if _is_trained_on(given, role, where) else {**message, "weight": 0}


def _is_trained_on(given: Mapping[str, Any], role: str, where: str) -> bool:
    """Whether a message may be trained on; only the assistant's are.

    Raises:
        InputError: a weight between 0 and 1, fields that contradict each other, or another role that is to be trained.
    """
    for key in given:
        if key not in _OF_MESSAGE and _LIKE_WEIGHTS.search(str(key)):
            raise InputError(
                f"{where}: a message's {key!r:.40} is not known: write `weight: 0` where it is context only"
            )
    marks = {key: given[key] for key in _WEIGHTS if key in given}
    for key, value in marks.items():
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise InputError(f"{where}: a message's {key} is 0 (context only) or 1, received {value!r:.20}")
        if value and role != "assistant" and key != "weight":
            raise InputError(f"{where}: `{key}: true` on the {role}'s message: only the assistant's are trained on")
    if role != "assistant":
        return True
    if len({bool(value) for value in marks.values()}) > 1:
        raise InputError(f"{where}: a message's {' and '.join(marks)} contradict each other")
    return all(marks.values())


def _text(content: Any, role: str, where: str) -> str:
    """Return a content's text, given as text or as a list of text parts.

    An answer may be empty: the data's filters refuse or drop all examples with such an answer together.

    Raises:
        InputError: no text, a part that is no text, or an empty text that is no answer.
    """
    if isinstance(content, list):
        content = "".join(_text_parts(content, role, where))
    if not isinstance(content, str) or not (content.strip() or role == "assistant"):
        raise InputError(f"{where}: the {role}'s content must be non-empty text, received {content!r:.80}")
    return content


def _text_parts(parts: list[Any], role: str, where: str) -> Iterable[str]:
    for part in parts:
        text = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else None
        if not isinstance(text, str):
            raise InputError(f"{where}: a part of the {role}'s content is no text, received {part!r:.80}")
        yield text
