"""Answer the held-out items with a model, for the scorers to score them one by one.

    items = answer_items(model, tokenizer, evaluation, held_out(evaluation, pool))
    scores = score_items(items, evaluation.scorers)

Generation is greedy, batched with a key-value cache, and stops at the tokens that end a turn. Answer and reference are
compared by their content: reasoning in front of it, in the words of the model's chat template, is no part of either.
The likelihood of the reference answer, with all that training would teach of it, comes from one forward pass, through
the same head that training uses.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from studykit.chat import content_of, encode, encode_prompts, reasoning_end, without_reasoning
from studykit.errors import InputError
from studykit.generation import Sampling, Vocabulary, generate
from studykit.likelihood import reference_nll
from studykit.models.states import evaluating
from studykit.samplers import draw
from studykit.scorers import Item, Score, needs_generation
from studykit.sources import Example
from studykit.spec import Evaluation

_MAX_LENGTH = 2**20
"""Tokens of a held-out example; only examples without an answer are refused."""


@torch.no_grad()
def answer_items(
    model: nn.Module,
    tokenizer: Any,
    evaluation: Evaluation,
    examples: list[Example],
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> list[Item]:
    """Return the items answered, in the order of the examples: all that scorers read.

    Args:
        model: student or teacher; it is left in the mode it was in.
        tokenizer: the model's.
        evaluation: scorers, batch size and maximum number of new tokens.
        examples: the held-out examples, from `held_out`.
        watch: called with the number of items that are done, and of all of them.

    Raises:
        InputError: an unknown scorer, or an example without an answer.
    """
    encoded, end = encode(examples, tokenizer, _MAX_LENGTH), reasoning_end(tokenizer)
    answers: list[str | None] = [None] * len(examples)
    watch(0, len(examples))
    with evaluating(model):
        losses = reference_nll(model, encoded, tokenizer, evaluation.batch_size)
        if needs_generation(evaluation.scorers):
            answers = list(answer_greedily(model, tokenizer, examples, evaluation, watch))
    return [
        Item(e.id, _prompt(e), content_of(e.answer, None if e.is_text else end), answer, loss, int(tokens))
        for e, answer, loss, tokens in zip(examples, answers, losses, encoded.response_tokens, strict=True)
    ]


def line_of_item(item: Item, scores: Mapping[str, Score] | None = None) -> dict[str, Any]:
    """Return an answered item as a line of `items.jsonl`: its fields, and its scores to five digits."""
    line = asdict(item)
    line["tokens"] = line.pop("reference_tokens")
    return line | {"scores": {name: round(score.value, 5) for name, score in (scores or {}).items()}}


def item_of_line(line: Mapping[str, Any]) -> Item | None:
    """Return the item that a line was written from; None where the line lacks a field, as those of schema 2 do."""
    fields = {"reference_tokens" if name == "tokens" else name: value for name, value in line.items()}
    fields.pop("scores", None)
    try:
        return Item(**fields)
    except TypeError:
        return None


def _prompt(example: Example) -> str:
    return "\n".join(message["content"] for message in example.messages[:-1])


def held_out(evaluation: Evaluation, pool: list[Example]) -> list[Example]:
    """Return the items of an evaluation: those that its budget draws, or all of the split in its own order.

    Args:
        evaluation: budget of its data, and scorers.
        pool: all examples of the split.

    Raises:
        InputError: the split has fewer, or raw texts, which ask for no answer, are to be answered.
    """
    items, budget = evaluation.items, evaluation.data.budget
    if items is not None and items > len(pool):
        raise InputError(f"evaluation asks for {items:,} items; the split has {len(pool):,}")
    examples = pool[:items] if budget.examples is None else [pool[i] for i in draw(pool, budget).indices]
    if needs_generation(evaluation.scorers) and any(example.is_text for example in examples):
        raise InputError(
            f"evaluation.data: source {evaluation.data.source!r} holds raw texts, which ask for no answer: score them "
            "with scorers=['nll']"
        )
    return examples


def answer_greedily(
    model: nn.Module,
    tokenizer: Any,
    examples: list[Example],
    evaluation: Evaluation,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Return the content of a greedy answer to every prompt, in order; batches hold prompts of similar length."""
    prompts = encode_prompts(examples, tokenizer)
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    greedy, generator, vocabulary = Sampling(temperature=0), torch.Generator(), Vocabulary.of(model, tokenizer)
    answers, end = [""] * len(prompts), reasoning_end(tokenizer)
    for start in range(0, len(order), evaluation.batch_size):
        indices = order[start : start + evaluation.batch_size]
        limits = [evaluation.max_new_tokens] * len(indices)
        completions = generate([(model, 1.0)], [prompts[i] for i in indices], limits, greedy, generator, vocabulary)
        for index, ids in zip(indices, completions.without_end, strict=True):
            content = without_reasoning(ids, end, tokenizer)
            answers[index] = tokenizer.decode(content, skip_special_tokens=True).strip()
        watch(start + len(indices), len(order))
    return answers
