"""What the tests of generation share: prompts, calls of what they test with short arguments, and counts of tokens."""

import torch
from torch import Tensor

from studykit.generation import Completions, Sampling, Speculation, Vocabulary, draft_and_verify, generate

V, PAD, NEVER = 85, 0, 84
PROMPTS = [[5, 9, 33], [4, 8, 15, 16, 23, 42, 7], [61], [30, 31, 32, 33, 34], [5, 9, 33, 70]]
GREEDY = Sampling(temperature=0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cycles(size: int, **following: int) -> Tensor:
    """Return a table in which t is surely followed by t + 1, or where it is named (`_3=1`), by another."""
    table = torch.eye(size).roll(1, dims=1)
    for token, after in following.items():
        table[int(token[1:])] = torch.eye(size)[after]
    return table


def sampled(
    model,
    prompts=PROMPTS,
    max_new_tokens: int | list[int] = 12,
    sampling=GREEDY,
    seed=0,
    eos_token_ids=(NEVER,),
    vocab_size=V,
) -> Completions:
    models = model if isinstance(model, list) else [(model, 1.0)]
    max_new_tokens = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    vocabulary = Vocabulary(eos_token_ids, PAD, vocab_size)
    return generate(models, prompts, max_new_tokens, sampling, seeded(seed), vocabulary)


def drafted(
    student,
    teacher,
    prompts=PROMPTS,
    max_new_tokens: int | list[int] = 12,
    seed=0,
    *,
    top_k=3,
    draft_tokens=3,
    sampling=GREEDY,
    teacher_sampling=GREEDY,
    eos_token_ids=(NEVER,),
    vocab_size=V,
) -> tuple[Completions, int, int]:
    """Return the completions, and how many drafted tokens were verified and accepted."""
    max_new_tokens = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    speculation = Speculation(top_k, draft_tokens, sampling, teacher_sampling)
    vocabulary = Vocabulary(eos_token_ids, PAD, vocab_size)
    made = draft_and_verify(student, teacher, prompts, max_new_tokens, seeded(seed), speculation, vocabulary)
    return made, made.verified_tokens, made.accepted_tokens


def assert_frequencies(counts: Tensor, expected: Tensor) -> None:
    """Hold counts per row against probabilities: within 5 standard deviations, and exactly 0 where they are 0."""
    counts, expected = counts.double(), expected.double()
    n = counts.sum(dim=-1, keepdim=True)
    bound = 5 * (n * expected * (1 - expected)).sqrt()
    assert ((counts - n * expected).abs() <= bound).all(), f"{counts / n} is not {expected}"


def transitions(answers: Completions, start: int, size: int) -> Tensor:
    counts = torch.zeros(size, size)
    for row in answers.tokens:
        for before, after in zip([start, *row[:-1]], row, strict=True):
            counts[before, after] += 1
    return counts
