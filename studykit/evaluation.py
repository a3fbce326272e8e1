"""Answer the held-out items with a model, for the scorers to score them one by one.

    items = answer_items(model, tokenizer, evaluation, held_out(evaluation, pool))
    scores = score_items(items, evaluation.scorers)

Generation is greedy, batched with a key-value cache, and stops at the tokens that end a turn. Answer and reference are
compared by their content: reasoning in front of it, in the words of the model's chat template, is no part of either.
The likelihood of the reference answer, with all that training would teach of it, comes from one forward pass, through
the same head that training uses.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from studykit.chat import content_of, encode, encode_prompts, reasoning_end, without_reasoning
from studykit.errors import InputError
from studykit.generation import Sampling, Vocabulary, generate
from studykit.likelihood import Prediction, likeliest_tokens, predict, reference_nll
from studykit.models.names import ModelRef
from studykit.models.states import evaluating
from studykit.samplers import draw
from studykit.scorers import Item, Predictions, Score, check_scorers, needs_generation, needs_of
from studykit.sources import PLAIN_TEXT, Example
from studykit.spec import Evaluation

_MAX_LENGTH = 2**20
"""Tokens of a held-out example; only examples without an answer are refused."""


class Answer(NamedTuple):
    """What a model generated, and whether it reached the limit of new tokens before it ended."""

    text: str
    is_cut: bool


@torch.no_grad()
def answer_items(
    model: nn.Module,
    tokenizer: Any,
    evaluation: Evaluation,
    examples: list[Example],
    watch: Callable[[int, int], None] = lambda done, total: None,
    teacher: ModelRef | None = None,
) -> list[Item]:
    """Return the items answered, in the order of the examples: all that scorers read.

    Args:
        model: student or teacher; it is left in the mode it was in.
        tokenizer: the model's.
        evaluation: scorers, batch size and maximum number of new tokens.
        examples: the held-out examples, from `held_out`.
        watch: called with the number of items that are done, and of all of them.
        teacher: that of the evaluation, which scorers may compare with.

    Raises:
        InputError: an unknown scorer, or an example without an answer.
    """
    needs, size, end = needs_of(evaluation.scorers), evaluation.batch_size, reasoning_end(tokenizer)
    encoded = encode(examples, tokenizer, _MAX_LENGTH)
    watch(0, len(examples))
    items = [
        replace(item_of(example, end), reference_tokens=int(tokens))
        for example, tokens in zip(examples, encoded.response_tokens, strict=True)
    ]
    with evaluating(model):
        if "predictions" in needs:
            found = predict(model, encoded, tokenizer, size)
            theirs = [None] * len(items) if teacher is None else likeliest_tokens(teacher, encoded, tokenizer)
            items = [_with_predictions(*parts) for parts in zip(items, found, theirs, strict=True)]
        else:
            losses = reference_nll(model, encoded, tokenizer, size)
            items = [replace(item, reference_nll=loss) for item, loss in zip(items, losses, strict=True)]
        if "choices" in needs:
            items = _with_choices(items, examples, model, tokenizer, size)
        if "generation" in needs:
            answers = answer_greedily(model, tokenizer, examples, evaluation, watch)
            items = [replace(item, answer=a.text, cut=a.is_cut) for item, a in zip(items, answers, strict=True)]
    return items


def item_of(example: Example, end: str | None = None) -> Item:
    """Return a held-out example as an item that no model has seen yet.

    Args:
        example: held out.
        end: from `reasoning_end`; text before it is no part of the reference.
    """
    prompt = "\n".join(message["content"] for message in example.messages[:-1])
    learned = [m for m in example.messages if m["role"] in ("assistant", PLAIN_TEXT) and m.get("weight", 1)]
    size = sum(len(message["content"].encode()) for message in learned)
    reference = content_of(example.answer, None if example.is_text else end)
    return Item(example.id, prompt, reference, None, 0.0, 0, reference_bytes=size, choices=example.choices)


def _with_predictions(item: Item, found: Prediction, theirs: np.ndarray | None) -> Item:
    agrees = None if theirs is None else (found.likeliest == theirs).tolist()
    is_right = (found.likeliest == found.target).tolist()
    return replace(item, reference_nll=found.nll, predictions=Predictions(found.confidence.tolist(), is_right, agrees))


def _with_choices(
    items: list[Item], examples: list[Example], model: nn.Module, tokenizer: Any, batch_size: int
) -> list[Item]:
    """Return the items with the likelihood of each of their choices, read as the last answer."""
    encoded = encode(with_each_choice(examples), tokenizer, _MAX_LENGTH)
    nll, tokens = reference_nll(model, encoded, tokenizer, batch_size), encoded.response_tokens.tolist()
    ends = np.cumsum([len(example.choices) for example in examples])
    slices = [slice(end - len(example.choices), end) for example, end in zip(examples, ends.tolist(), strict=True)]
    return [
        replace(item, choice_nll=tuple(nll[part]), choice_tokens=tuple(tokens[part]))
        for item, part in zip(items, slices, strict=True)
    ]


def with_each_choice(examples: Sequence[Example]) -> list[Example]:
    """Return every example once for each of its choices, with it as the answer; earlier answers are context."""
    read = []
    for example in examples:
        earlier = [m | {"weight": 0} if m["role"] == "assistant" else m for m in example.messages[:-1]]
        for choice in example.choices:
            messages = (*earlier, {"role": "assistant", "content": choice})
            read.append(replace(example, messages=messages, choices=()))
    return read


def line_of_item(item: Item, scores: Mapping[str, Score] | None = None) -> dict[str, Any]:
    """Return an answered item as a line of `items.jsonl`: its fields, and its scores to five digits."""
    line = {name: value for name, value in asdict(item).items() if value not in ((), None) or name == "answer"}
    line["tokens"] = line.pop("reference_tokens")
    return line | {"scores": {name: round(score.value, 5) for name, score in (scores or {}).items()}}


def item_of_line(line: Mapping[str, Any]) -> Item | None:
    """Return the item that a line was written from; None where the line lacks a field, as those of schema 2 do."""
    fields = {"reference_tokens" if name == "tokens" else name: _frozen(value) for name, value in line.items()}
    fields.pop("scores", None)
    try:
        if "predictions" in fields:
            fields["predictions"] = Predictions(**fields["predictions"])
        return Item(**fields) if "reference_bytes" in fields else None
    except TypeError:
        return None


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def held_out(evaluation: Evaluation, pool: Sequence[Example]) -> list[Example]:
    """Return the items of an evaluation: those that its budget draws, or all of the split in its own order.

    The choices of the evaluation are those of each item that names none.

    Args:
        evaluation: budget of its data, and scorers.
        pool: all examples of the split.

    Raises:
        InputError: the split has fewer, raw texts, which ask for no answer, are to be answered, or a scorer, an option
            of one or an item that it cannot score.
    """
    items, budget = evaluation.items, evaluation.data.budget
    if items is not None and items > len(pool):
        raise InputError(f"evaluation asks for {items:,} items; the split has {len(pool):,}")
    examples = list(pool[:items]) if budget.examples is None else draw(pool, budget).examples
    if needs_generation(evaluation.scorers) and any(example.is_text for example in examples):
        raise InputError(
            f"evaluation.data: source {evaluation.data.source!r} holds raw texts, which ask for no answer: score them "
            "with scorers=['nll']"
        )
    choices = evaluation.choices or ()
    if choices == "references":
        choices = tuple(sorted({example.answer for example in pool}))
    examples = [example if example.choices else replace(example, choices=choices) for example in examples]
    check_scorers(evaluation.scorers, [item_of(example) for example in examples], evaluation.teacher is not None)
    return examples


def answer_greedily(
    model: nn.Module,
    tokenizer: Any,
    examples: list[Example],
    evaluation: Evaluation,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> list[Answer]:
    """Return the content of a greedy answer to every prompt, in order; batches hold prompts of similar length."""
    prompts = encode_prompts(examples, tokenizer)
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    greedy, generator, vocabulary = Sampling(temperature=0), torch.Generator(), Vocabulary.of(model, tokenizer)
    answers, end = [Answer("", False)] * len(prompts), reasoning_end(tokenizer)
    for start in range(0, len(order), evaluation.batch_size):
        indices = order[start : start + evaluation.batch_size]
        limits = [evaluation.max_new_tokens] * len(indices)
        completions = generate([(model, 1.0)], [prompts[i] for i in indices], limits, greedy, generator, vocabulary)
        for index, ids, ended in zip(indices, completions.without_end, completions.ended, strict=True):
            content = without_reasoning(ids, end, tokenizer)
            answers[index] = Answer(tokenizer.decode(content, skip_special_tokens=True).strip(), not ended)
        watch(start + len(indices), len(order))
    return answers
