"""Sampling and drafting: against transformers' own generation, known distributions, and plain loops without a cache."""

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from studykit.errors import InputError
from studykit.generation import Answers, Sampling, draft_and_check, draw, end_tokens, left_padded, sample

V, PAD, NEVER = 85, 0, 84
PROMPTS = [[5, 9, 33], [4, 8, 15, 16, 23, 42, 7], [61], [30, 31, 32, 33, 34], [5, 9, 33, 70]]
GREEDY = Sampling(temperature=0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def make(tiny_model):
    """Make a random model in evaluation mode: Llama, one with learned absolute positions, one with a short window."""

    def make(kind="llama", seed=0, spread=10.0):
        if kind == "llama":
            return tiny_model(seed=seed, spread=spread).eval()
        fields: dict[str, Any] = {"vocab_size": V, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2}
        if kind == "gpt2":
            fields |= {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.3}
        else:
            fields |= {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
            fields |= {"num_key_value_heads": 2, "sliding_window": 6, "initializer_range": 0.3}
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields)).eval()

    return make


@pytest.fixture(scope="module")
def markov(tiny_model):
    """Make a Llama, cache and all, whose next token depends on the last one alone, by a table of probabilities."""

    def make(table):
        size = len(table)
        model: Any = tiny_model(hidden_size=size, vocab_size=size, intermediate_size=size, rms_norm_eps=1e-12).eval()
        with torch.no_grad():
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
            model.model.embed_tokens.weight.copy_(torch.eye(size))
            model.lm_head.weight.copy_(torch.as_tensor(table).log().clamp(min=-1e4).T / size**0.5)
        return model

    return make


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


# draw -----------------------------------------------------------------------------------------------------------------

DYADIC = [1 / 8, 1 / 2, 0, 1 / 4, 1 / 8]
"""Sums of these are exact; of two equal ones the first counts as likelier."""


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (1.0, {0, 1, 3, 4}),
        (0.9, {0, 1, 3, 4}),
        (0.875, {0, 1, 3}),
        (0.76, {0, 1, 3}),
        (0.75, {1, 3}),
        (0.51, {1, 3}),
        (0.5, {1}),
        (0.01, {1}),
    ],
)
def test_draws_follow_the_distribution_on_the_smallest_set_that_reaches_top_p(top_p, kept):
    expected = torch.tensor([p if token in kept else 0.0 for token, p in enumerate(DYADIC)])
    drawn = draw(torch.tensor([DYADIC] * 20000), top_p, seeded(1))
    assert set(drawn.tolist()) == kept
    assert_frequencies(torch.bincount(drawn, minlength=5), expected / expected.sum())


def test_rows_are_drawn_each_from_its_own_distribution():
    table = torch.rand(30, 7, generator=seeded(2)) ** 4
    drawn = draw(table.repeat(2000, 1), 1.0, seeded(3)).view(2000, 30)
    counts = torch.stack([torch.bincount(column, minlength=7) for column in drawn.T])
    assert_frequencies(counts, table / table.sum(dim=-1, keepdim=True))


@pytest.mark.parametrize("top_p", [1.0, 0.99])
@pytest.mark.parametrize(("number", "token"), [(0.0, 2), (1 - 2.0**-53, 4)])
def test_the_ends_of_the_line_never_give_an_impossible_token(number, token, top_p, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **keywords: torch.full(shape, number, dtype=torch.float64))
    probabilities = torch.tensor([[0.0, 0.0, 0.4, 0.0, 0.2, 0.0], [0.0, 0.0, 0.25, 0.55, 0.2, 0.0]])[:1]
    assert draw(probabilities, top_p, seeded()).tolist() == [token]


def test_one_random_number_a_row_whatever_the_vocabulary():
    small, large = seeded(4), seeded(4)
    draw(torch.ones(3, 2), 1.0, small)
    draw(torch.ones(3, 1000), 0.5, large)
    assert torch.equal(small.get_state(), large.get_state())


def test_temperature_sharpens_and_zero_takes_the_likeliest():
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    torch.testing.assert_close(Sampling(0.5).distribution(logits), (logits * 2).softmax(-1))
    assert Sampling(0).distribution(logits).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize(("options", "message"), [((-0.1, 1.0), "temperature"), ((1, 0.0), "top_p"), ((1, 1.1), "top")])
def test_sampling_out_of_range_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        Sampling(*options)


# sample ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_greedy_answers_are_those_of_transformers(kind, make):
    model = make(kind, seed=3)
    ids, mask = left_padded(PROMPTS, PAD)
    made = model.generate(
        input_ids=ids, attention_mask=mask.long(), do_sample=False, max_new_tokens=20, eos_token_id=NEVER
    )
    assert sampled(model, limits=20).tokens == made[:, ids.shape[1] :].tolist()
    assert len({token for row in made.tolist() for token in row}) > 10


def test_adapters_take_part(make):
    base = make(seed=3)
    plain = sampled(base).tokens
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    model: Any = get_peft_model(base, config).eval()
    ids, mask = left_padded(PROMPTS, PAD)
    made = model.generate(
        input_ids=ids, attention_mask=mask.long(), do_sample=False, max_new_tokens=12, eos_token_id=NEVER
    )
    assert sampled(model).tokens == made[:, ids.shape[1] :].tolist()
    assert sampled(model).tokens != plain


def test_the_wrapper_of_data_parallelism_is_seen_through(make):
    model = make(seed=3)
    wrapped = nn.DataParallel(model)
    assert sampled(wrapped).tokens == sampled(model).tokens
    assert drafted(wrapped, model)[0].tokens == sampled(model).tokens


def test_an_answer_stops_behind_its_end_token_and_at_its_own_limit(make):
    model, limits = make(seed=3), [12, 3, 9, 1, 0]
    whole = sampled(model).tokens
    ends = {whole[0][4], whole[2][2]}
    cut = [next((row[: i + 1] for i, token in enumerate(row) if token in ends), row) for row in whole]
    expected = [row[:limit] for row, limit in zip(cut, limits, strict=True)]
    answers = sampled(model, limits=limits, ends=tuple(ends))
    assert answers.tokens == expected
    assert answers.ended == [bool(row) and row[-1] in ends for row in expected]
    assert set(answers.ended) == {True, False}
    assert len({len(row) for row in expected}) > 3


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_padding_by_other_rows_changes_no_answer(kind, make):
    model = make(kind, seed=5)
    together = sampled(model).tokens
    assert together == [sampled(model, [prompt]).tokens[0] for prompt in PROMPTS]


def test_a_seed_decides_every_draw(make):
    model, sampling = make(), Sampling(1.0, 0.9)
    first, again, other = (sampled(model, sampling=sampling, seed=seed).tokens for seed in (1, 1, 2))
    assert first == again != other


def test_no_randomness_but_the_generators_is_used(make):
    model = make()
    state = torch.get_rng_state()
    sampled(model, sampling=Sampling(1.0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.8)])
def test_sampled_transitions_follow_the_model(temperature, top_p, markov):
    table = torch.rand(8, 8, generator=seeded(6)) ** 3
    table[:, 3] = 0
    table = table / table.sum(dim=-1, keepdim=True)
    answers = sampled(markov(table), [[4]] * 3000, 6, Sampling(temperature, top_p), vocabulary=8)
    assert_frequencies(transitions(answers, 4, 8), by_hand(table, temperature, top_p))


def transitions(answers: Answers, start: int, size: int) -> Tensor:
    counts = torch.zeros(size, size)
    for row in answers.tokens:
        for before, after in zip([start, *row[:-1]], row, strict=True):
            counts[before, after] += 1
    return counts


def by_hand(table: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    made = []
    for row in (table ** (1 / temperature)).tolist():
        mass, kept = 0.0, {}
        for token in sorted(range(len(row)), key=lambda token: -row[token]):
            if mass < top_p * sum(row):
                kept[token] = row[token]
            mass += row[token]
        made.append([kept.get(token, 0) / sum(kept.values()) for token in range(len(row))])
    return torch.tensor(made)


def test_padded_rows_of_the_vocabulary_are_never_drawn(markov):
    table = torch.full((8, 8), 0.01)
    table[:, 6:] = 0.47
    model, uniform = markov(table), torch.full((6, 6), 1 / 6)
    answers = sampled(model, [[1]] * 500, 6, Sampling(), vocabulary=6)
    assert_frequencies(transitions(answers, 1, 6), uniform)
    mixed, _, _ = drafted(
        model,
        model,
        [[1]] * 500,
        6,
        top_k=1,
        sampling=Sampling(),
        teacher_sampling=Sampling(),
        vocabulary=6,
    )
    assert_frequencies(transitions(mixed, 1, 6), uniform)


def test_a_mixture_of_two_models_is_drawn_from_token_by_token(markov):
    q, p = (torch.rand(8, 8, generator=seeded(seed)) ** 3 + 1e-3 for seed in (7, 8))
    q, p = q / q.sum(dim=-1, keepdim=True), p / p.sum(dim=-1, keepdim=True)
    models = [(markov(q), 0.7), (markov(p), 0.3)]
    answers = sampled(models, [[4]] * 4000, 6, Sampling(), vocabulary=8)
    counts = transitions(answers, 4, 8)
    assert_frequencies(counts, 0.7 * q + 0.3 * p)
    with pytest.raises(AssertionError, match="is not"):
        assert_frequencies(counts, 0.3 * q + 0.7 * p)


def test_tokens_drawn_and_read_are_counted(markov):
    model = markov(cycles(8))
    answers = sampled([(model, 0.5), (model, 0.5)], [[1], [7, 2, 3], [4, 5]], [9, 2, 0], ends=(5,), vocabulary=8)
    assert answers.tokens == [[2, 3, 4, 5], [4, 5], []]
    assert answers.ended == [True, True, False]
    assert answers.generated == 6
    assert answers.scored == [6 + 3 + 1] * 2  # three prompts, and of each answer all but its last token


def test_nothing_to_generate_costs_nothing(make):
    answers = sampled(make(), limits=0)
    assert (answers.tokens, answers.generated, answers.scored) == ([[]] * 5, 0, [0])


@pytest.mark.parametrize(("configured", "expected"), [(None, [2]), (7, [2, 7]), ([9, 2], [2, 9])])
def test_an_answer_ends_with_the_tokens_of_model_and_tokenizer(configured, expected, make, tokenizer):
    model = make()
    model.generation_config.eos_token_id = configured
    assert end_tokens(nn.ModuleDict({"module": model}), tokenizer) == expected
    assert end_tokens(model, SimpleNamespace(eos_token_id=None)) == [
        token for token in expected if token != 2 or configured == [9, 2]
    ]


# draft and check ------------------------------------------------------------------------------------------------------


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

    def __init__(self, student, teacher, *, top_k, draft_tokens, sampling, teacher_sampling, ends, vocabulary=V):
        self.student, self.teacher, self.top_k, self.draft_tokens = student, teacher, top_k, draft_tokens
        self.sampling, self.teacher_sampling = sampling, teacher_sampling
        self.ends, self.vocabulary = ends, vocabulary
        self.generated = self.checked = self.accepted = self.rejecting_rounds = 0

    def run(self, prompts: list[list[int]], limits: list[int], generator: torch.Generator) -> list[list[int]]:
        answers: list[list[int]] = [[] for _ in prompts]
        self.read = sum(map(len, prompts))
        while live := [r for r, a in enumerate(answers) if len(a) < limits[r] and not (a and a[-1] in self.ends)]:
            self.read += len(live) * (self.draft_tokens - 1 + (self.generated > 0))
            drafts: list[list[int]] = [[] for _ in prompts]
            for _ in range(self.draft_tokens):
                numbers = self.numbers(prompts, generator)
                for r in live:
                    logits = self.logits(self.student, prompts[r] + answers[r] + drafts[r])
                    drafts[r].append(pick(logits, self.sampling, numbers[r]))
            self.generated += len(live) * self.draft_tokens
            rejecting = [r for r in live if not self.check(prompts[r], answers[r], drafts[r], limits[r])]
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
            if len(answer) == limit or (answer and answer[-1] in self.ends):
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
        return model(input_ids=torch.tensor([tokens])).logits[0, -1, : self.vocabulary]


def pick(logits: Tensor, sampling: Sampling, number: float) -> int:
    """Return the token at a place in [0, 1) of the cumulative distribution of those that top_p keeps."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    p = (logits.double() / sampling.temperature).softmax(-1).numpy()
    order = np.argsort(-p, kind="stable") if sampling.top_p < 1 else np.arange(len(p))
    behind = np.cumsum(p[order])
    kept = int((behind - p[order] < sampling.top_p).sum()) if sampling.top_p < 1 else len(p)
    return int(order[np.searchsorted(behind[:kept], number * behind[kept - 1], side="right")])


KINDS = ["llama", "gpt2"]
LIMITS = [13, 4, 9, 0, 11]


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
        "ends": (12, 30, 41, 57),
    }
    teacher = near(student, 0.2)
    slow = ByHand(student, teacher, **settings)
    expected = slow.run(PROMPTS, LIMITS, seeded(2))
    answers, checked, accepted = drafted(student, teacher, limits=LIMITS, seed=2, **settings)
    assert answers.tokens == expected
    assert answers.ended == [bool(row) and row[-1] in settings["ends"] for row in expected]
    assert (checked, accepted, answers.generated) == (slow.checked, slow.accepted, slow.generated)
    assert answers.scored == [slow.read] * 2
    assert (slow.rejecting_rounds > 0) == (top_k < V)
    assert accepted > 0


@pytest.mark.parametrize("draft_tokens", [1, 3])
def test_models_with_a_sliding_window_draft_and_check_like_any_other(draft_tokens, make):
    """Such a cache forgets on its own, and a window is counted in columns, of which some are masked for some rows."""
    student = make("mistral", seed=3)
    teacher = near(student, 0.2)
    settings: dict[str, Any] = {"top_k": 4, "sampling": GREEDY, "teacher_sampling": GREEDY, "ends": (12, 30)}
    settings["draft_tokens"] = draft_tokens
    expected = ByHand(student, teacher, **settings).run(PROMPTS, LIMITS, seeded())
    assert drafted(student, teacher, limits=LIMITS, **settings)[0].tokens == expected


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
        markov(q), markov(p), [[4]] * 3000, 7, top_k=3, sampling=plain, teacher_sampling=plain, vocabulary=8
    )
    assert_frequencies(transitions(answers, 4, 8), expected)


@pytest.mark.parametrize("draft_tokens", [1, 4])
def test_the_drafted_token_itself_is_checked_not_another_draw(draft_tokens, markov):
    """The student always says 3: of the teacher's top two, though it would never draw it with its top_p."""
    second = torch.full((8, 8), 0.01)
    second[:, 5], second[:, 3] = 0.7, 0.24
    student, teacher = markov(cycles(8, **{f"_{token}": 3 for token in range(8)})), markov(second)
    settings: dict[str, Any] = {"draft_tokens": draft_tokens, "teacher_sampling": Sampling(1.0, 0.5), "vocabulary": 8}
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
    student, sampling, ends = make(kind, seed=3), Sampling(1.0, 0.9), (12, 30, 41, 57)
    own = sampled(student, limits=LIMITS, sampling=sampling, seed=seed, ends=ends)
    answers, checked, accepted = drafted(
        student,
        make(kind, seed=4),
        limits=LIMITS,
        seed=seed,
        top_k=V,
        draft_tokens=draft_tokens,
        sampling=sampling,
        ends=ends,
    )
    assert (answers.tokens, answers.ended) == (own.tokens, own.ended)
    assert checked == accepted == own.generated


@pytest.mark.parametrize("kind", KINDS)
def test_the_length_of_drafts_changes_no_greedy_answer(kind, make):
    student = make(kind, seed=3)
    teacher = near(student, 0.5)
    made = [drafted(student, teacher, draft_tokens=n, limits=16) for n in (1, 3, 5)]
    assert made[0][0].tokens == made[1][0].tokens == made[2][0].tokens
    assert len({(checked, accepted) for _, checked, accepted in made}) == 1
    assert 0 < made[0][2] < made[0][1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draft_tokens", [3, 5])
def test_rows_that_reject_at_different_places_answer_as_they_would_alone(draft_tokens, kind, make):
    student = make(kind, seed=3)
    teacher = near(student, 0.5)
    together, *counts = drafted(student, teacher, draft_tokens=draft_tokens, limits=16)
    alone = [drafted(student, teacher, [prompt], draft_tokens=draft_tokens, limits=16) for prompt in PROMPTS]
    assert together.tokens == [answers.tokens[0] for answers, _, _ in alone]
    assert counts == [sum(checked for _, checked, _ in alone), sum(accepted for _, _, accepted in alone)]
    assert len({accepted for _, _, accepted in alone}) > 1


def test_checked_accepted_drawn_and_read_tokens_are_counted(markov):
    """The student counts on; the teacher does as well, but starts again behind 3.

    Drafts are 2 3 4 | 2 3 4 | 2: twice the 4 is rejected, and the limit cuts the third draft behind its first token.
    """
    answers, checked, accepted = drafted(
        markov(cycles(8)), markov(cycles(8, _3=1)), [[1]], 7, top_k=1, draft_tokens=3, vocabulary=8
    )
    assert answers.tokens == [[2, 3, 1, 2, 3, 1, 2]]
    assert (checked, accepted) == (3 + 3 + 1, 2 + 2 + 1)
    assert answers.generated == 3 * 3 + 2
    assert answers.scored == [3 + 3 + 3] * 2  # what was pending, and a draft without its last token


def test_an_end_token_in_a_draft_is_checked_and_ends_the_answer(markov):
    teacher = markov(cycles(8, _3=5))
    answers, checked, accepted = drafted(
        markov(cycles(8)), teacher, [[1], [2], [6]], 9, top_k=1, draft_tokens=4, ends=(4,), vocabulary=8
    )
    # 1: 2 3 and the end, which is rejected for 5; then 6 7 0 1, 2 3 and the end again, rejected at the limit of 9
    assert answers.tokens == [[2, 3, 5, 6, 7, 0, 1, 2, 3], [3, 5, 6, 7, 0, 1, 2, 3, 5], [7, 0, 1, 2, 3, 5, 6, 7, 0]]
    assert answers.ended == [False] * 3
    same, checked, accepted = drafted(
        teacher, markov(cycles(8)), [[1], [2], [6]], 9, top_k=1, draft_tokens=4, ends=(4,), vocabulary=8
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
