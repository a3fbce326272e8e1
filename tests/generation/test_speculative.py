"""Drafting and verifying: against plain loops without a cache, known distributions, and tokens counted by hand."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import GREEDY, PROMPTS, V, assert_frequencies, cycles, drafted, sampled, seeded, transitions

from studykit.generation import Sampling
from studykit.generation.decoder import CachedDecoder


def near(model, noise: float, seed: int = 11):
    """Return a model that mostly agrees with another."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += noise * parameter.std() * torch.randn(parameter.shape, generator=seeded(seed))
    return other


class ByHand:
    """The algorithm in plain loops: every token from a fresh pass over one unpadded row; rows share only the order in
    which random numbers are drawn."""

    def __init__(
        self, student, teacher, *, top_k, draft_tokens, sampling, teacher_sampling, eos_token_ids, vocab_size=V
    ):
        self.student, self.teacher, self.top_k, self.draft_tokens = student, teacher, top_k, draft_tokens
        self.sampling, self.teacher_sampling = sampling, teacher_sampling
        self.eos_token_ids, self.vocab_size = eos_token_ids, vocab_size
        self.generated = self.checked = self.accepted = self.rejecting_rounds = 0

    def run(self, prompts: list[list[int]], max_new_tokens: list[int], generator: torch.Generator) -> list[list[int]]:
        answers: list[list[int]] = [[] for _ in prompts]
        self.read = sum(map(len, prompts))
        while live := [
            r for r, a in enumerate(answers) if len(a) < max_new_tokens[r] and not (a and a[-1] in self.eos_token_ids)
        ]:
            self.read += len(live) * (self.draft_tokens - 1 + (self.generated > 0))
            drafts: list[list[int]] = [[] for _ in prompts]
            for _ in range(self.draft_tokens):
                numbers = self.numbers(prompts, generator)
                for r in live:
                    logits = self.logits(self.student, prompts[r] + answers[r] + drafts[r])
                    drafts[r].append(pick(logits, self.sampling, numbers[r]))
            self.generated += len(live) * self.draft_tokens
            rejecting = [r for r in live if not self.check(prompts[r], answers[r], drafts[r], max_new_tokens[r])]
            if rejecting:
                self.rejecting_rounds += 1
                self.generated += len(rejecting)
                numbers = self.numbers(prompts, generator)
                for r in rejecting:
                    logits = self.logits(self.teacher, prompts[r] + answers[r])
                    answers[r].append(pick(logits, self.teacher_sampling, numbers[r]))
        return answers

    def check(self, prompt: list[int], answer: list[int], draft: list[int], limit: int) -> bool:
        """Take over what is accepted of a draft; return False where a token was rejected."""
        for token in draft:
            if len(answer) == limit or (answer and answer[-1] in self.eos_token_ids):
                return True
            self.checked += 1
            if token not in self.logits(self.teacher, prompt + answer).topk(self.top_k).indices:
                return False
            self.accepted += 1
            answer.append(token)
        return True

    def numbers(self, prompts, generator) -> list[float]:
        return torch.rand(len(prompts), 1, generator=generator, dtype=torch.float64)[:, 0].tolist()

    @torch.no_grad()
    def logits(self, model, tokens: list[int]) -> Tensor:
        return model(input_ids=torch.tensor([tokens])).logits[0, -1, : self.vocab_size]


def pick(logits: Tensor, sampling: Sampling, number: float) -> int:
    """Return the token at a point in [0, 1) of the cumulative distribution of those that top_p keeps."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    p = (logits.double() / sampling.temperature).softmax(-1).numpy()
    order = np.argsort(-p, kind="stable") if sampling.top_p < 1 else np.arange(len(p))
    cumulative = np.cumsum(p[order])
    kept = int((cumulative - p[order] < sampling.top_p).sum()) if sampling.top_p < 1 else len(p)
    return int(order[np.searchsorted(cumulative[:kept], number * cumulative[kept - 1], side="right")])


KINDS = ["llama", "gpt2"]
LIMITS = [8, 3, 6, 0, 7]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draft_tokens", [1, 3, 5])
@pytest.mark.parametrize("top_k", [1, 4, V])
def test_answers_and_counts_are_those_of_plain_loops(top_k, draft_tokens, kind, make):
    student = make(kind, seed=3)
    settings: dict[str, Any] = {
        "top_k": top_k,
        "draft_tokens": draft_tokens,
        "sampling": Sampling(0.8, 0.9),
        "teacher_sampling": Sampling(0.7, 0.95),
        "eos_token_ids": (12, 30, 41, 57),
    }
    teacher = near(student, 0.2)
    slow = ByHand(student, teacher, **settings)
    expected = slow.run(PROMPTS, LIMITS, seeded(2))
    answers, checked, accepted = drafted(student, teacher, max_new_tokens=LIMITS, seed=2, **settings)
    assert answers.tokens == expected
    assert answers.ended == [bool(row) and row[-1] in settings["eos_token_ids"] for row in expected]
    assert (checked, accepted, answers.generated_tokens) == (slow.checked, slow.accepted, slow.generated)
    assert answers.scored_tokens == [slow.read] * 2
    assert (slow.rejecting_rounds > 0) == (top_k < V)
    assert accepted > 0


@pytest.mark.parametrize("draft_tokens", [1, 3])
def test_models_with_a_sliding_window_draft_and_check_like_any_other(draft_tokens, make):
    """Such a cache forgets on its own, and a window is counted in columns, of which some are masked for some rows."""
    student = make("mistral", seed=3)
    teacher = near(student, 0.2)
    settings: dict[str, Any] = {"top_k": 4, "sampling": GREEDY, "teacher_sampling": GREEDY, "eos_token_ids": (12, 30)}
    settings["draft_tokens"] = draft_tokens
    expected = ByHand(student, teacher, **settings).run(PROMPTS, LIMITS, seeded())
    assert drafted(student, teacher, max_new_tokens=LIMITS, **settings)[0].tokens == expected


def test_every_token_is_among_the_teachers_top_k_or_its_own_draw(make):
    """A greedy teacher draws its likeliest token, so that all of an answer lies in its top k, token by token."""
    student, top_k = make(seed=3), 4
    teacher = near(student, 0.3)
    answers, checked, accepted = drafted(student, teacher, PROMPTS * 5, top_k=top_k, sampling=Sampling())
    ranks = []
    for prompt, answer in zip(PROMPTS * 5, answers.tokens, strict=True):
        with torch.no_grad():
            logits = teacher(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        ranks += [int((row > row[token]).sum()) for row, token in zip(logits, answer, strict=True)]
    assert max(ranks) == top_k - 1
    assert 0 < accepted < checked


def test_transitions_are_accepted_drafts_and_the_teachers_draws_for_the_rest(markov):
    """P(x) = q(x) [x in the teacher's top k] + p(x) Σ q(others), after every token."""
    q, p = (torch.rand(8, 8, generator=seeded(seed)) ** 2 + 1e-3 for seed in (7, 8))
    q, p = q / q.sum(dim=-1, keepdim=True), p / p.sum(dim=-1, keepdim=True)
    inside = torch.zeros(8, 8).scatter(1, p.topk(3).indices, 1.0)
    accepted = q * inside
    expected = accepted + p * (1 - accepted.sum(dim=-1, keepdim=True))
    plain = Sampling()
    answers, _, _ = drafted(
        markov(q), markov(p), [[4]] * 3000, 7, top_k=3, sampling=plain, teacher_sampling=plain, vocab_size=8
    )
    assert_frequencies(transitions(answers, 4, 8), expected)


@pytest.mark.parametrize("draft_tokens", [1, 4])
def test_the_drafted_token_itself_is_checked_not_another_draw(draft_tokens, markov):
    """The student always says 3: of the teacher's top two, though it would never draw it with its top_p."""
    second = torch.full((8, 8), 0.01)
    second[:, 5], second[:, 3] = 0.7, 0.24
    student, teacher = markov(cycles(8, **{f"_{token}": 3 for token in range(8)})), markov(second)
    settings: dict[str, Any] = {"draft_tokens": draft_tokens, "teacher_sampling": Sampling(1.0, 0.5), "vocab_size": 8}
    within, checked, accepted = drafted(student, teacher, [[1], [2]], 6, top_k=2, **settings)
    assert within.tokens == [[3] * 6] * 2
    assert checked == accepted == 12
    outside, checked, accepted = drafted(student, teacher, [[1], [2]], 6, top_k=1, **settings)
    assert outside.tokens == [[5] * 6] * 2
    assert (checked, accepted) == (12, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draft_tokens", [1, 3, 5])
def test_top_1_with_a_greedy_teacher_is_the_teachers_answer(draft_tokens, kind, make):
    teacher = make(kind, seed=4)
    greedy = sampled(teacher).tokens
    for student, sampling in ((make(kind, seed=9), Sampling()), (near(teacher, 0.2), GREEDY), (teacher, Sampling(0.5))):
        answers, _, _ = drafted(student, teacher, top_k=1, draft_tokens=draft_tokens, sampling=sampling)
        assert answers.tokens == greedy


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draft_tokens", [1, 3, 5])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_whole_vocabulary_accepted_is_the_students_own_answer(draft_tokens, seed, kind, make):
    student, sampling, eos_token_ids = make(kind, seed=3), Sampling(1.0, 0.9), (12, 30, 41, 57)
    own = sampled(student, max_new_tokens=LIMITS, sampling=sampling, seed=seed, eos_token_ids=eos_token_ids)
    answers, checked, accepted = drafted(
        student,
        make(kind, seed=4),
        max_new_tokens=LIMITS,
        seed=seed,
        top_k=V,
        draft_tokens=draft_tokens,
        sampling=sampling,
        eos_token_ids=eos_token_ids,
    )
    assert (answers.tokens, answers.ended) == (own.tokens, own.ended)
    assert checked == accepted == own.generated_tokens


@pytest.mark.parametrize("kind", KINDS)
def test_the_length_of_drafts_changes_no_greedy_answer(kind, make):
    student = make(kind, seed=3)
    teacher = near(student, 0.5)
    made = [drafted(student, teacher, draft_tokens=n, max_new_tokens=16) for n in (1, 3, 5)]
    assert made[0][0].tokens == made[1][0].tokens == made[2][0].tokens
    assert len({(checked, accepted) for _, checked, accepted in made}) == 1
    assert 0 < made[0][2] < made[0][1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draft_tokens", [3, 5])
def test_rows_that_reject_at_different_places_answer_as_they_would_alone(draft_tokens, kind, make):
    student = make(kind, seed=3)
    teacher = near(student, 0.5)
    together, *counts = drafted(student, teacher, draft_tokens=draft_tokens, max_new_tokens=16)
    alone = [drafted(student, teacher, [prompt], draft_tokens=draft_tokens, max_new_tokens=16) for prompt in PROMPTS]
    assert together.tokens == [answers.tokens[0] for answers, _, _ in alone]
    assert counts == [sum(checked for _, checked, _ in alone), sum(accepted for _, _, accepted in alone)]
    assert len({accepted for _, _, accepted in alone}) > 1


def test_checked_accepted_drawn_and_read_tokens_are_counted(markov):
    """The student counts on; the teacher does as well, but starts again after 3.

    Drafts are 2 3 4 | 2 3 4 | 2: twice the 4 is rejected, and the limit cuts the third draft after its first token.
    """
    answers, checked, accepted = drafted(
        markov(cycles(8)), markov(cycles(8, _3=1)), [[1]], 7, top_k=1, draft_tokens=3, vocab_size=8
    )
    assert answers.tokens == [[2, 3, 1, 2, 3, 1, 2]]
    assert (checked, accepted) == (3 + 3 + 1, 2 + 2 + 1)
    assert answers.generated_tokens == 3 * 3 + 2
    assert answers.scored_tokens == [3 + 3 + 3] * 2  # what was pending, and a draft without its last token


def test_an_end_token_in_a_draft_is_checked_and_ends_the_answer(markov):
    teacher = markov(cycles(8, _3=5))
    answers, checked, accepted = drafted(
        markov(cycles(8)), teacher, [[1], [2], [6]], 9, top_k=1, draft_tokens=4, eos_token_ids=(4,), vocab_size=8
    )
    # 1: 2 3 and the end, which is rejected for 5; then 6 7 0 1, 2 3 and the end again, rejected at the limit of 9
    assert answers.tokens == [[2, 3, 5, 6, 7, 0, 1, 2, 3], [3, 5, 6, 7, 0, 1, 2, 3, 5], [7, 0, 1, 2, 3, 5, 6, 7, 0]]
    assert answers.ended == [False] * 3
    same, checked, accepted = drafted(
        teacher, markov(cycles(8)), [[1], [2], [6]], 9, top_k=1, draft_tokens=4, eos_token_ids=(4,), vocab_size=8
    )
    assert same.tokens == [[2, 3, 4], [3, 4], [7, 0, 1, 2, 3, 4]]
    assert same.ended == [True] * 3
    assert (checked, accepted) == (3 + 2 + 6, 2 + 1 + 5)


def test_drafting_twice_from_a_seed_gives_the_same(make):
    student, teacher = make(seed=3), make(seed=4)
    plain = Sampling()
    made = [drafted(student, teacher, seed=seed, sampling=plain, teacher_sampling=plain)[0] for seed in (1, 1, 2)]
    assert made[0] == made[1]
    assert made[0].tokens != made[2].tokens


@pytest.mark.parametrize("top_k", [1, 4, V])
def test_each_model_reads_each_accepted_token_once(top_k, make, monkeypatch):
    """By what is fed, token and place: read after each other, with what was rejected overwritten, it is the answer."""
    student = make(seed=3)
    teacher = near(student, 0.2)
    fed: dict[int, list[tuple[int, int]]] = {id(student): [], id(teacher): []}
    forward = CachedDecoder.forward

    def noting(self, tokens, mask, logits_to_keep=1):
        new = tokens.shape[1]
        places = mask.cumsum(dim=1)[0, -new:] - 1
        fed[id(self.model)] += zip(places.tolist(), tokens[0].tolist(), strict=True)
        return forward(self, tokens, mask, logits_to_keep)

    monkeypatch.setattr(CachedDecoder, "forward", noting)
    drafts = 0
    for prompt in PROMPTS:
        for read in fed.values():
            read.clear()
        answers, _, _ = drafted(student, teacher, [prompt], 14, top_k=top_k, sampling=Sampling(0.8))
        row = prompt + answers.tokens[0]
        for read, count in zip(fed.values(), answers.scored_tokens, strict=True):
            assert count == len(read)
            last = dict(read)
            assert [last[place] for place in range(len(row) - 1)] == row[:-1]
            # A position is read again only where what it held was no part of the answer.
            for place, token in enumerate(row[:-1]):
                held = [own for where, own in read if where == place]
                assert held[-1] == token
                drafts += len(held) - 1
                assert len(held) == 1 or top_k < V
    assert (drafts > 0) == (top_k < V)


def test_where_rows_reject_in_turns_a_full_cache_is_packed(make, monkeypatch):
    """Padding on the left grows with every shift, until the cache is full though no row is that long."""
    student = make(seed=3)
    teacher, packed = near(student, 0.4), []
    select = CachedDecoder.select

    def noting(self, rows, first_column):
        packed.append((len(rows), first_column))
        select(self, rows, first_column)

    monkeypatch.setattr(CachedDecoder, "select", noting)
    settings: dict[str, Any] = {"top_k": 2, "draft_tokens": 5, "sampling": GREEDY, "teacher_sampling": GREEDY}
    expected = ByHand(student, teacher, **settings, eos_token_ids=(84,)).run(PROMPTS, [40] * 5, seeded())
    assert drafted(student, teacher, max_new_tokens=40, **settings)[0].tokens == expected
    assert any(rows > 2 and first > 0 for rows, first in packed)
