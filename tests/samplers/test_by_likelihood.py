"""Samplers that rank by models: the same ranking as sorting by hand what plain forward passes say, one at a time."""

from collections import Counter

import numpy as np
import pytest
import torch
from randomness import draws
from transformers import AutoModelForCausalLM, AutoTokenizer

from studykit import likelihood
from studykit.chat import encode
from studykit.data import Inputs, Selection
from studykit.errors import InputError
from studykit.likelihood import mean_logp
from studykit.models.names import Models
from studykit.samplers import SAMPLERS, draw, models_of
from studykit.sources import Example, content_hash, load_examples
from studykit.spec import Budget, Stage
from tools.embed import build_letter_tokenizer, shape

BY_LIKELIHOOD = [name for name in SAMPLERS.names() if models_of(name)]
WITH_SHARE = [name for name in BY_LIKELIHOOD if "share" in SAMPLERS.options(name)]
every_one = pytest.mark.parametrize("sampler", BY_LIKELIHOOD)
every_one_with_share = pytest.mark.parametrize("sampler", WITH_SHARE)


def ranked(pool: list[Example], budget: Budget) -> np.ndarray:
    """Return the ranking of a whole pool."""
    return draw(pool, budget).indices


@pytest.fixture(scope="module")
def reference_folder(tmp_path_factory, tiny_model):
    """Save a random reference whose tokenizer is not the student's: a phoneme is as many tokens as it has letters."""
    folder, letters = tmp_path_factory.mktemp("reference"), build_letter_tokenizer()
    tiny_model(seed=3, spread=30.0, **shape(16, 2, 2, letters)).save_pretrained(folder)
    letters.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(teacher_folder, reference_folder):
    return {"teacher": str(teacher_folder), "reference": str(reference_folder)}


@pytest.fixture
def options(models):
    """Return the models that a sampler ranks by."""

    def of(sampler):
        return {role: models[role] for role in models_of(sampler)}

    return of


@torch.no_grad()
def by_hand(folder: str, examples: list[Example]) -> np.ndarray:
    """Return mean log p of the answer's tokens and its end token, from a pass over each conversation alone."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    means = []
    for example in examples:
        messages = list(example.messages)
        ids = tokenizer.apply_chat_template(messages, return_dict=False)
        prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
        assert ids[: len(prompt)] == prompt
        assert ids[-1] == tokenizer.eos_token_id
        logp = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        values = [logp[place - 1, ids[place]].item() for place in range(len(prompt), len(ids))]
        means.append(sum(values) / len(values))
    return np.array(means)


@pytest.fixture(scope="module")
def scores(models, examples):
    teacher, reference = (by_hand(models[role], examples) for role in ("teacher", "reference"))
    return {"difference": teacher - reference, "teacher_nll": teacher, "reference_nll": -reference}


def test_a_mean_is_that_of_a_plain_pass_whatever_the_tokenizer(models, examples):
    for folder in models.values():
        np.testing.assert_allclose(mean_logp(Models().find(folder), examples), by_hand(folder, examples), rtol=1e-4)


def test_the_scores_rank_differently_and_without_ties(scores):
    orders = {tuple(np.argsort(-values)[:20]) for values in scores.values()}
    assert len(orders) == 3
    assert min(np.diff(np.sort(values)).min() for values in scores.values()) > 1e-4


@pytest.mark.parametrize("sampler", ["difference", "teacher_nll", "reference_nll"])
@pytest.mark.parametrize("share", [0.5, 0.3, 0.026, 1.0])
def test_what_is_kept_is_the_best_share_of_a_sort_by_hand(sampler, share, scores, options, examples):
    kept = {0.5: 20, 0.3: 12, 0.026: 1, 1.0: 40}[share]
    best = sorted(range(40), key=lambda i: -scores[sampler][i])
    for seed in (0, 2):
        order = ranked(examples, Budget(sampler=sampler, options=options(sampler) | {"share": share}, seed=seed))
        assert set(order[:kept].tolist()) == set(best[:kept])


@every_one
@pytest.mark.parametrize("seed", [0, 1])
def test_a_ranking_is_a_permutation_that_its_seed_decides(sampler, seed, options, examples):
    def order(seed):
        return ranked(examples, Budget(sampler=sampler, options=options(sampler), seed=seed)).tolist()

    assert sorted(order(seed)) == list(range(40))
    assert order(seed) == order(seed)
    assert (order(seed) != order(seed + 2)) == draws(sampler, examples)


@every_one
def test_budgets_are_nested_and_random_samples_of_what_is_kept(sampler, options, examples):
    drawn = {n: draw(examples, Budget(examples=n, sampler=sampler, options=options(sampler))) for n in (5, 10, 20, 30)}
    for smaller, larger in ((5, 10), (10, 20), (20, 30)):
        assert drawn[larger].indices[:smaller].tolist() == drawn[smaller].indices.tolist()
    assert drawn[10].manifest["sampler"] == sampler
    assert drawn[10].manifest["examples_sha256"] == content_hash([examples[i] for i in drawn[10].indices])


def test_a_small_budget_does_not_consist_of_the_extremes(scores, options, examples):
    best = np.argsort(-scores["difference"])[:5].tolist()
    firsts = [
        draw(examples, Budget(examples=5, sampler="difference", options=options("difference"), seed=seed)).indices
        for seed in range(20)
    ]
    assert len(set(np.concatenate(firsts).tolist())) == 20
    assert not any(set(first.tolist()) == set(best) for first in firsts)


def test_budgets_in_tokens_take_options_too(options, examples, tokenizer):
    tokens = encode(examples, tokenizer, None).response_tokens
    drawn = draw(examples, Budget(tokens=50, sampler="difference", options=options("difference")), tokens)
    whole = ranked(examples, Budget(sampler="difference", options=options("difference")))
    assert drawn.indices.tolist() == whole[: len(drawn.indices)].tolist()
    assert tokens[drawn.indices].sum() <= 50 < tokens[whole[: len(drawn.indices) + 1]].sum()


@pytest.mark.parametrize("share", [0.5, 0.25])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_matched_lengths_are_exactly_those_of_what_difference_keeps(share, seed, scores, options, examples):
    kept = round(share * 40)
    best = np.argsort(-scores["difference"])[:kept]
    budget = Budget(sampler="length_matched", options=options("difference") | {"share": share}, seed=seed)
    matched = ranked(examples, budget)[:kept]
    histograms = [Counter(len(examples[i].answer.split()) for i in chosen) for chosen in (best, matched)]
    assert histograms[0] == histograms[1]
    assert set(best.tolist()) != set(matched.tolist())


def test_matched_examples_of_a_length_are_chosen_at_random(scores, options, examples):
    words = np.array([len(e.answer.split()) for e in examples])
    possible = np.flatnonzero(np.isin(words, words[np.argsort(-scores["difference"])[:20]]))
    chosen = [
        ranked(examples, Budget(sampler="length_matched", options=options("difference"), seed=seed))[:20]
        for seed in range(30)
    ]
    assert set(np.concatenate(chosen).tolist()) == set(possible.tolist())
    assert len(possible) > 20


@every_one
def test_a_missing_model_is_refused_with_its_role(sampler, options, examples):
    for role in models_of(sampler):
        others = {name: folder for name, folder in options(sampler).items() if name != role}
        with pytest.raises(InputError, match=f"needs a {role}: name a model in its options, as {role}="):
            ranked(examples, Budget(sampler=sampler, options=others))


@every_one
def test_an_unknown_model_is_refused(sampler, options, examples):
    wrong = dict.fromkeys(options(sampler), "lexicon/teacher-z")
    with pytest.raises(InputError, match="unknown embedded model 'lexicon/teacher-z'"):
        ranked(examples, Budget(sampler=sampler, options=wrong))


@every_one_with_share
@pytest.mark.parametrize("share", [0.0, -0.5, 1.1])
def test_a_share_out_of_range_is_refused(sampler, share, options, examples):
    with pytest.raises(InputError, match="share must"):
        ranked(examples, Budget(sampler=sampler, options=options(sampler) | {"share": share}))


@every_one
def test_an_option_it_does_not_have_is_refused(sampler, options, examples):
    with pytest.raises(InputError, match="unknown option 'lambada'"):
        ranked(examples, Budget(sampler=sampler, options=options(sampler) | {"lambada": 0.5}))


def test_a_model_runs_over_examples_once(models, examples, empty_cache, monkeypatch):
    first = mean_logp(Models().find(models["teacher"]), examples)

    def refuse(*arguments):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(likelihood, "load_teacher", refuse)
    assert mean_logp(Models().find(models["teacher"]), examples).tolist() == first.tolist()
    for name, others in ((models["reference"], examples), (models["teacher"], examples[::-1])):
        with pytest.raises(AssertionError, match="was loaded"):
            mean_logp(Models().find(name), others)


# MiniPLM --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "kept"), [(0.5, 12), (0.25, 6)])
def test_miniplm_keeps_the_top_share_of_its_budget_in_their_order(share, kept, models, stage, examples):
    inputs, plain = Inputs(), Stage.model_validate(stage("sft"))
    student = inputs.models.find("lexicon/tokenizer")
    selection = Selection("difference", share, {name: inputs.models.find(folder) for name, folder in models.items()})
    drawn, data = inputs.stage_data(plain, student), inputs.stage_data(plain, student, selection)
    values = by_hand(models["teacher"], drawn.examples) - by_hand(models["reference"], drawn.examples)
    places = sorted(sorted(range(24), key=lambda i: -values[i])[:kept])
    assert [e.id for e in data.examples] == [drawn.examples[i].id for i in places]
    for place, i in enumerate(places):
        assert data.encoded.ids_of(place).tolist() == drawn.encoded.ids_of(i).tolist()
        assert data.encoded.supervised_of(place).tolist() == drawn.encoded.supervised_of(i).tolist()
    kept_hash = content_hash([drawn.examples[i] for i in places])
    assert data.selected_sha256 == kept_hash
    about_selection = {
        "kept_by": "difference",
        "kept_examples": kept,
        "kept_sha256": kept_hash,
        "scored_tokens": int(drawn.encoded.lengths.sum()),
    }
    assert data.manifest == drawn.manifest | about_selection


def test_a_budget_chosen_by_models_says_so(models, stage, data_file):
    budget = {"examples": 10, "sampler": "difference", "options": models}
    data = {"source": "jsonl", "options": {"path": str(data_file)}, "budget": budget}
    inputs = Inputs()
    student = inputs.models.find("lexicon/tokenizer")
    made = inputs.stage_data(Stage.model_validate(stage("sft", data=data)), student)
    pool = load_examples("jsonl", "train", {"path": str(data_file)})
    best = np.argsort(-(by_hand(models["teacher"], pool) - by_hand(models["reference"], pool)))[:20]
    assert made.selected_sha256 == made.manifest["examples_sha256"]
    assert {e.id for e in made.examples} <= {pool[i].id for i in best}
    assert inputs.stage_data(Stage.model_validate(stage("sft")), student).selected_sha256 is None
