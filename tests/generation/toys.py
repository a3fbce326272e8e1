"""What the tests of generation share: prompts, calls of what they test with short arguments, and counts of tokens."""

import torch
from torch import Tensor

from studykit.generation import Answers, Sampling, draft_and_check, sample

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
    model, prompts=PROMPTS, limits: int | list[int] = 12, sampling=GREEDY, seed=0, ends=(NEVER,), vocabulary=V
) -> Answers:
    models = model if isinstance(model, list) else [(model, 1.0)]
    limits = [limits] * len(prompts) if isinstance(limits, int) else limits
    return sample(models, prompts, limits, sampling, seeded(seed), ends=ends, pad=PAD, vocabulary=vocabulary)


def drafted(
    student,
    teacher,
    prompts=PROMPTS,
    limits: int | list[int] = 12,
    seed=0,
    *,
    top_k=3,
    draft_tokens=3,
    sampling=GREEDY,
    teacher_sampling=GREEDY,
    ends=(NEVER,),
    vocabulary=V,
) -> tuple[Answers, int, int]:
    return draft_and_check(
        student,
        teacher,
        prompts,
        [limits] * len(prompts) if isinstance(limits, int) else limits,
        seeded(seed),
        top_k=top_k,
        draft_tokens=draft_tokens,
        student_sampling=sampling,
        teacher_sampling=teacher_sampling,
        ends=ends,
        pad=PAD,
        vocabulary=vocabulary,
    )


def assert_frequencies(counts: Tensor, expected: Tensor) -> None:
    """Hold counts per row against probabilities: within 5 standard deviations, and exactly 0 where they are 0."""
    counts, expected = counts.double(), expected.double()
    n = counts.sum(dim=-1, keepdim=True)
    bound = 5 * (n * expected * (1 - expected)).sqrt()
    assert ((counts - n * expected).abs() <= bound).all(), f"{counts / n} is not {expected}"


def transitions(answers: Answers, start: int, size: int) -> Tensor:
    counts = torch.zeros(size, size)
    for row in answers.tokens:
        for before, after in zip([start, *row[:-1]], row, strict=True):
            counts[before, after] += 1
    return counts
