"""Answer the held-out items with a model and score them one by one.

    items, scores = evaluate(model, tokenizer, spec.evaluation)

Generation is greedy, batched with a key-value cache, and stops at the end token. The reference's likelihood is taken
by one forward pass through the same head that training uses.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import GenerationConfig

from studykit.chat import encode, encode_prompts
from studykit.errors import InputError
from studykit.generation import end_tokens, left_padded
from studykit.likelihood import reference_nll
from studykit.models import unwrapped
from studykit.scorers import Item, Score, needs_generation, score_items
from studykit.sources import Example, load_examples
from studykit.spec import Evaluation


@torch.no_grad()
def evaluate(
    model: nn.Module, tokenizer: Any, evaluation: Evaluation, max_length: int = 2**20
) -> tuple[list[Item], list[dict[str, Score]]]:
    """Return the answered items and their scores, in the order of the source.

    Raises:
        InputError: an unknown scorer, or more items asked for than the split has.
    """
    examples = held_out(evaluation)
    was_training = model.training
    model.eval()
    encoded = encode(examples, tokenizer, max_length)
    losses = reference_nll(model, encoded, tokenizer.pad_token_id, evaluation.batch_size)
    answers: list[str | None] = [None] * len(examples)
    if needs_generation(evaluation.scorers):
        answers = list(generate(model, tokenizer, examples, evaluation))
    model.train(was_training)
    items = [
        Item(e.id, "\n".join(m["content"] for m in e.messages[:-1]), e.answer, answer, loss, int(tokens))
        for e, answer, loss, tokens in zip(examples, answers, losses, encoded.response_tokens, strict=True)
    ]
    return items, score_items(items, evaluation.scorers)


def held_out(evaluation: Evaluation) -> list[Example]:
    """Return the first `items` examples of the evaluation's split.

    Raises:
        InputError: the split has fewer, or raw texts, which ask for no answer, are to be answered.
    """
    examples = load_examples(evaluation.data.source, evaluation.data.split, evaluation.data.options)
    if evaluation.items is not None and evaluation.items > len(examples):
        raise InputError(f"evaluation asks for {evaluation.items:,} items; the split has {len(examples):,}")
    if needs_generation(evaluation.scorers) and any(example.is_text for example in examples[: evaluation.items]):
        raise InputError(
            f"evaluation.data: source {evaluation.data.source!r} holds raw texts, which ask for no answer: score them "
            "with scorers=['nll']"
        )
    return examples[: evaluation.items]


def generate(model: nn.Module, tokenizer: Any, examples: list[Example], evaluation: Evaluation) -> list[str]:
    """Return a greedy answer to every prompt, in order; batches hold prompts of similar length."""
    prompts = encode_prompts(examples, tokenizer)
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    config = GenerationConfig(
        max_new_tokens=evaluation.max_new_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,  # said outright: what is left open is filled from the model's own settings
        no_repeat_ngram_size=0,
        encoder_no_repeat_ngram_size=0,
        min_length=0,
        eos_token_id=end_tokens(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )
    answers: list[str] = [""] * len(prompts)
    place = next(model.parameters()).device
    for start in range(0, len(order), evaluation.batch_size):
        chosen = order[start : start + evaluation.batch_size]
        ids, mask = left_padded([prompts[i] for i in chosen], tokenizer.pad_token_id, place)
        made = unwrapped(model).generate(input_ids=ids, attention_mask=mask.long(), generation_config=config)
        texts = tokenizer.batch_decode(made[:, ids.shape[1] :], skip_special_tokens=True)
        for index, text in zip(chosen, texts, strict=True):
            answers[index] = text.strip()
    return answers
