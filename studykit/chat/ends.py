"""The tokens that end an assistant's turn: one definition for training, generation and likelihood.

    ends = find_turn_ends(tokenizer)
    ends.last, ends.ids                    # 151645, (151643, 151645): taught after an answer, and all that stop one

They are read off the chat template: the special token after an answer, as the last message and with another turn after
it. A base model's end token is often another one (Qwen2.5: `<|endoftext|>`, while its turns end with `<|im_end|>`).
"""

from dataclasses import dataclass
from typing import Any

from studykit.chat.template import render, template_of
from studykit.errors import InputError

_ANSWER = "studykitanswer"


@dataclass(frozen=True)
class TurnEnds:
    """The tokens that end an assistant's turn.

    Attributes:
        last: taught after the last answer of a conversation.
        ids: all ids that end an answer, sorted: also those after earlier answers, and the tokenizer's end token.
    """

    last: int
    ids: tuple[int, ...]


def find_turn_ends(tokenizer: Any) -> TurnEnds:
    """Return the tokens that end an assistant's turn, whether or not another turn follows.

    Where the template writes no special token after the last answer, that is the token which opens the next turn if a
    chat model stops at it (as in GLM 4.5), otherwise the tokenizer's end token; which also ends raw texts.

    Raises:
        InputError: the template puts no special token after an answer, and the tokenizer has no end token; or there
            are templates of several names, and no default.
    """
    last, followed = _after_answers(tokenizer) if template_of(tokenizer) else (None, None)
    known = [end for end in (last, followed, tokenizer.eos_token_id) if end is not None]
    if not known:
        raise InputError(
            f"tokenizer {tokenizer.name_or_path!r} has no end token, and its chat template writes none after an "
            "answer, so a student could never learn to stop: set tokenizer.eos_token and save it beside the model"
        )
    return TurnEnds(known[0], tuple(sorted(set(known))))


def leading_special(text: str, tokenizer: Any) -> int | None:
    """Return the special token that a text begins with, leading whitespace apart; None where it begins with a word."""
    ids = tokenizer(text.lstrip(), add_special_tokens=False)["input_ids"][:1]
    return ids[0] if ids and ids[0] in special_ids(tokenizer) else None


def special_ids(tokenizer: Any) -> set[int]:
    """Return the ids that can end a turn: special tokens, and all others that were added to the vocabulary by name."""
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}


def _after_answers(tokenizer: Any) -> tuple[int | None, int | None]:
    """Return the special token after an answer that is the last message, and after one that another turn follows.

    Neither where the template takes no short conversation, with or without a system message.
    """
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _ANSWER}]
    for opening in ([], [{"role": "system", "content": "c"}]):
        whole = [*opening, *talk, {"role": "user", "content": "b"}]
        try:
            last, followed = render([whole[:-1], whole], tokenizer)
        except InputError:
            continue
        return _special_after(last, tokenizer), _special_after(followed, tokenizer)
    return None, None


def _special_after(text: str, tokenizer: Any) -> int | None:
    return leading_special(text.partition(_ANSWER)[2], tokenizer)
