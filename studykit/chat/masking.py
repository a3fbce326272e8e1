"""Token ids and loss mask of one conversation or raw text, each checked: what is trained on is the answer and its end.

Rendered text and mask meet at characters: every token that holds a character of the answer is trained on. In byte-level
tokenizers the first of them may hold the space before the answer too.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from studykit.chat.ends import TurnEnds, find_turn_ends, special_ids
from studykit.chat.marks import select_marked
from studykit.chat.template import has_marks
from studykit.chat.turns import Answer, Located, locate_answers
from studykit.errors import InputError
from studykit.sources import Example

Offsets = Sequence[tuple[int, int]]


class Masked(NamedTuple):
    """Token ids and loss mask of one example.

    Attributes:
        ids: of all its tokens.
        mask: whether each is trained on.
        left_out: number of its answers that are not trained on, since the template renders them otherwise when further
            turns follow, or does not mark them as generated.
    """

    ids: list[int]
    mask: list[bool]
    left_out: int = 0


def mask_conversations(examples: Sequence[Example], tokenizer: Any) -> Iterator[Masked]:
    """Yield token ids and loss mask of each conversation.

    Raises:
        InputError: the template or tokenizer loses a part of an answer, or nothing can end it.
    """
    if not examples:
        return
    ends = find_turn_ends(tokenizer)
    located = locate_answers(examples, tokenizer, ends)
    if has_marks(tokenizer):
        located = select_marked(examples, located, tokenizer)
    encoding = tokenizer([where.text for where in located], add_special_tokens=False, return_offsets_mapping=True)
    special = special_ids(tokenizer)
    rows, answers = [], []
    for example, where, ids, offsets in zip(
        examples, located, encoding["input_ids"], encoding["offset_mapping"], strict=True
    ):
        masked, ids_of_answers = _mask(where, ids, offsets, special, ends)
        _check_ends(example, masked, ids_of_answers, ends, tokenizer)
        rows.append(masked)
        answers.append(ids_of_answers)
    _check_answers(examples, located, answers, tokenizer)
    yield from rows


def mask_text(example: Example, tokenizer: Any) -> Masked:
    """Return token ids and loss mask of a raw text: all of it, and the end token after it.

    A begin or end token that the text holds already is not written twice.

    Raises:
        InputError: the tokenizer has no end token.
    """
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"tokenizer {tokenizer.name_or_path!r} has no end token, which raw texts are trained to end with: set "
            "tokenizer.eos_token and save it beside the model"
        )
    ids = tokenizer(example.answer)["input_ids"]
    if tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
        ids = ids[1:]
    while ids[-2:] == [tokenizer.eos_token_id] * 2:
        ids = ids[:-1]
    ids = ids if ids[-1:] == [tokenizer.eos_token_id] else [*ids, tokenizer.eos_token_id]
    return Masked(ids, [True] * len(ids))


def _mask(
    where: Located, ids: list[int], offsets: Offsets, special: set[int], ends: TurnEnds
) -> tuple[Masked, list[list[int]]]:
    """Return ids and loss mask, and the ids of each answer without its end."""
    mask, answers = [False] * len(ids), []
    for answer in where.answers:
        first, last = _tokens_of(answer, where.text, ids, offsets, special)
        answers.append(ids[first:last])
        end = _end_after(last, answer.stop, ids, offsets, where.text, special)
        if end is None:  # only after the last answer: others are left out by then
            ids, mask = [*ids[:last], ends.last], [*mask[:last], False]
            end = last
        mask[first : end + 1] = [True] * (end + 1 - first)
    return Masked(ids, mask, where.left_out), answers


def _tokens_of(answer: Answer, text: str, ids: Sequence[int], offsets: Offsets, special: set[int]) -> tuple[int, int]:
    """Return the first token that holds a character of the answer, and the one after the last.

    Special tokens around it that hold nothing but whitespace at its ends are none of it.
    """

    def is_around(token: int) -> bool:
        left, right = offsets[token]
        inside = text[max(left, answer.start) : min(right, answer.stop)]
        return ids[token] in special and not inside.strip() and (left < answer.start or right > answer.stop)

    holding = [i for i, (left, right) in enumerate(offsets) if left < answer.stop and right > answer.start]
    while holding and is_around(holding[0]):
        holding = holding[1:]
    while holding and is_around(holding[-1]):
        holding = holding[:-1]
    return (holding[0], holding[-1] + 1) if holding else (0, 0)


def _end_after(last: int, stop: int, ids: list[int], offsets: Offsets, text: str, special: set[int]) -> int | None:
    """Return the place of the special token after an answer, whitespace apart; None where a word or nothing follows."""
    for place in range(last, len(ids)):
        if ids[place] in special:
            return place
        if text[max(offsets[place][0], stop) : offsets[place][1]].strip():
            return None
    return None


def _check_ends(example: Example, masked: Masked, answers: Sequence[list[int]], ends: TurnEnds, tokenizer: Any) -> None:
    """Refuse an end that generation would not stop at, one inside an answer, and answers with nothing between them.

    Raises:
        InputError: naming the example.
    """
    if not all(answers):
        raise InputError(f"example {example.id!r}: the tokenizer has no token for an answer: is its text unreadable?")
    mask = masked.mask
    after = [i for i, (on, more) in enumerate(zip(mask, [*mask[1:], False], strict=True)) if on and not more]
    if len(after) != len(answers):
        raise InputError(
            f"example {example.id!r}: the chat template writes nothing between two answers that follow each other: "
            "join them in the file"
        )
    for place in after:
        if masked.ids[place] not in ends.ids:
            raise InputError(
                f"example {example.id!r}: the chat template ends an answer with "
                f"{tokenizer.decode([masked.ids[place]])!r} here, and with {tokenizer.decode(list(ends.ids))!r} in a "
                "conversation of one question: make the template end all answers alike"
            )
    for ids in answers:
        if inside := [token for token in ids if token in ends.ids]:
            raise InputError(
                f"example {example.id!r}: an answer holds {tokenizer.decode(inside[:1])!r}, which ends a turn, so that "
                "no student could generate what follows: remove it from the text"
            )


def _check_answers(
    examples: Sequence[Example], located: Sequence[Located], answers: Sequence[Sequence[list[int]]], tokenizer: Any
) -> None:
    """Refuse an example whose trained tokens decode to another text than the answer's.

    Whitespace apart, and apart from what the tokenizer itself loses (capitals, characters that it does not know).

    Raises:
        InputError: naming the example.
    """
    wanted = [where.text[a.start : a.stop] for where in located for a in where.answers]
    if not wanted:
        return
    decoded = tokenizer.batch_decode([ids for rows in answers for ids in rows], clean_up_tokenization_spaces=False)
    names = [example.id for example, where in zip(examples, located, strict=True) for _ in where.answers]
    for name, text, shown in zip(names, wanted, decoded, strict=True):
        if _squash(text) == _squash(shown):
            continue
        again = tokenizer.decode(
            tokenizer(text, add_special_tokens=False)["input_ids"], clean_up_tokenization_spaces=False
        )
        if _squash(again) != _squash(shown):
            raise InputError(
                f"example {name!r}: of the answer {text[:60]!r} the tokens are {shown[:60]!r}; the tokenizer's "
                "character offsets are wrong, so answer and prompt cannot be separated"
            )


def _squash(text: str) -> str:
    return "".join(text.split())
