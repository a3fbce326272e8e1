"""Sampling of answers: against transformers' own generation, and against known distributions."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from toys import NEVER, PAD, PROMPTS, assert_frequencies, cycles, drafted, sampled, seeded, transitions

from studykit.generation import Sampling, find_eos_token_ids, pad_prompts


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_greedy_answers_are_those_of_transformers(kind, make):
    model = make(kind, seed=3)
    ids, mask = pad_prompts(PROMPTS, PAD)
    made = model.generate(
        input_ids=ids, attention_mask=mask.long(), do_sample=False, max_new_tokens=20, eos_token_id=NEVER
    )
    assert sampled(model, max_new_tokens=20).tokens == made[:, ids.shape[1] :].tolist()
    assert len({token for row in made.tolist() for token in row}) > 10


def test_adapters_take_part(make):
    base = make(seed=3)
    plain = sampled(base).tokens
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    model: Any = get_peft_model(base, config).eval()
    ids, mask = pad_prompts(PROMPTS, PAD)
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


def test_an_answer_stops_after_its_end_token_and_at_its_own_limit(make):
    model, max_new_tokens = make(seed=3), [12, 3, 9, 1, 0]
    whole = sampled(model).tokens
    eos_token_ids = {whole[0][4], whole[2][2]}
    cut = [next((row[: i + 1] for i, token in enumerate(row) if token in eos_token_ids), row) for row in whole]
    expected = [row[:limit] for row, limit in zip(cut, max_new_tokens, strict=True)]
    answers = sampled(model, max_new_tokens=max_new_tokens, eos_token_ids=tuple(eos_token_ids))
    assert answers.tokens == expected
    assert answers.ended == [bool(row) and row[-1] in eos_token_ids for row in expected]
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
    answers = sampled(markov(table), [[4]] * 3000, 6, Sampling(temperature, top_p), vocab_size=8)
    assert_frequencies(transitions(answers, 4, 8), by_hand(table, temperature, top_p))


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
    answers = sampled(model, [[1]] * 500, 6, Sampling(), vocab_size=6)
    assert_frequencies(transitions(answers, 1, 6), uniform)
    mixed, _, _ = drafted(
        model,
        model,
        [[1]] * 500,
        6,
        top_k=1,
        sampling=Sampling(),
        teacher_sampling=Sampling(),
        vocab_size=6,
    )
    assert_frequencies(transitions(mixed, 1, 6), uniform)


def test_a_mixture_of_two_models_is_drawn_from_token_by_token(markov):
    q, p = (torch.rand(8, 8, generator=seeded(seed)) ** 3 + 1e-3 for seed in (7, 8))
    q, p = q / q.sum(dim=-1, keepdim=True), p / p.sum(dim=-1, keepdim=True)
    models = [(markov(q), 0.7), (markov(p), 0.3)]
    answers = sampled(models, [[4]] * 4000, 6, Sampling(), vocab_size=8)
    counts = transitions(answers, 4, 8)
    assert_frequencies(counts, 0.7 * q + 0.3 * p)
    with pytest.raises(AssertionError, match="is not"):
        assert_frequencies(counts, 0.3 * q + 0.7 * p)


def test_tokens_drawn_and_read_are_counted(markov):
    model = markov(cycles(8))
    answers = sampled(
        [(model, 0.5), (model, 0.5)], [[1], [7, 2, 3], [4, 5]], [9, 2, 0], eos_token_ids=(5,), vocab_size=8
    )
    assert answers.tokens == [[2, 3, 4, 5], [4, 5], []]
    assert answers.ended == [True, True, False]
    assert answers.generated_tokens == 6
    assert answers.scored_tokens == [6 + 3 + 1] * 2  # three prompts, and of each answer all but its last token


def test_nothing_to_generate_costs_nothing(make):
    answers = sampled(make(), max_new_tokens=0)
    assert (answers.tokens, answers.generated_tokens, answers.scored_tokens) == ([[]] * 5, 0, [0])


@pytest.mark.parametrize(("configured", "expected"), [(None, [2]), (7, [2, 7]), ([9, 2], [2, 9])])
def test_an_answer_ends_with_the_tokens_of_model_and_tokenizer(configured, expected, make, tokenizer):
    model = make()
    model.generation_config.eos_token_id = configured
    assert find_eos_token_ids(nn.ModuleDict({"module": model}), tokenizer) == expected
