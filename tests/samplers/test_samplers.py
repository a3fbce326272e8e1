"""Budgets: prefixes of one ranking, for every sampler in the package, and their manifests."""

import json
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from randomness import draws

from studykit import samplers
from studykit.discovery import Room
from studykit.errors import InputError
from studykit.models.names import Models
from studykit.samplers import SAMPLERS, draw, models_of, ranking, select
from studykit.sources import Example, content_hash
from studykit.spec import Budget

every_sampler = pytest.mark.parametrize("sampler", [name for name in SAMPLERS.names() if not models_of(name)])


def pool_of(*counts: int) -> list[Example]:
    """Make a pool with this many examples of each source, mixed up."""
    sources = [f"source-{s}" for s, count in enumerate(counts) for _ in range(count)]
    order = np.random.default_rng(1).permutation(len(sources))
    return [example(n, sources[i]) for n, i in enumerate(order)]


def example(number: int, source: str) -> Example:
    messages = ({"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}"})
    return Example(f"e{number}", messages, source, "model" if number % 3 == 0 else "human", "train")


POOL = pool_of(60, 30, 10)
TOKENS = np.random.default_rng(2).integers(1, 20, len(POOL))


@every_sampler
@pytest.mark.parametrize("seed", [0, 1])
def test_a_ranking_is_a_permutation(sampler, seed):
    assert sorted(ranking(POOL, Budget(sampler=sampler, seed=seed))) == list(range(len(POOL)))


@every_sampler
def test_smaller_budgets_are_contained_in_larger_ones(sampler):
    drawn = [draw(POOL, Budget(examples=n, sampler=sampler)).indices.tolist() for n in range(1, len(POOL) + 1)]
    for smaller, larger in pairwise(drawn):
        assert larger[: len(smaller)] == smaller


@every_sampler
def test_token_budgets_are_contained_in_larger_ones(sampler):
    drawn = [draw(POOL, Budget(tokens=n, sampler=sampler), TOKENS).indices.tolist() for n in range(20, 900, 7)]
    for smaller, larger in pairwise(drawn):
        assert larger[: len(smaller)] == smaller


@every_sampler
def test_a_seed_decides_everything(sampler):
    def order(seed):
        return ranking(POOL, Budget(sampler=sampler, seed=seed)).tolist()

    assert order(3) == order(3)
    assert (order(3) != order(4)) == draws(sampler, POOL)


POOLS = [(60, 30, 10), (97, 2, 1), (1,), (5, 5), (900, *[1] * 100), (17, 13, 11, 7, 5, 3, 2), (400, *[3] * 40, 50)]


@pytest.mark.parametrize("counts", POOLS, ids=lambda counts: f"{len(counts)} sources of {sum(counts)}")
def test_stratified_keeps_every_share_at_every_prefix(counts):
    pool = pool_of(*counts)
    order = ranking(pool, Budget(sampler="stratified", seed=5))
    seen: Counter[str] = Counter()
    for n, index in enumerate(order, 1):
        seen[pool[index].source] += 1
        for source, count in enumerate(counts):
            share = n * count / len(pool)
            assert abs(seen[f"source-{source}"] - share) < 1


def test_stratified_is_random_within_a_source():
    orders = [ranking(POOL, Budget(sampler="stratified", seed=seed)) for seed in range(20)]
    firsts = {next(i for i in order if POOL[i].source == "source-2") for order in orders}
    assert len(firsts) > 5


def test_stratified_favours_no_small_source():
    pool = pool_of(90, *[1] * 10)
    small = [
        {pool[i].source for i in draw(pool, Budget(examples=20, sampler="stratified", seed=s)).indices}
        for s in range(30)
    ]
    assert len(set.union(*small)) == 11


def test_uniform_gives_every_example_the_same_chance():
    counts = Counter(i for s in range(400) for i in draw(POOL, Budget(examples=25, seed=s)).indices.tolist())
    assert len(counts) == len(POOL)
    assert max(abs(count - 100) for count in counts.values()) < 44  # 5 standard deviations of Binomial(400, 1/4)


@every_sampler
@pytest.mark.parametrize("tokens", [20, 100, 555])
def test_a_token_budget_is_filled_and_never_exceeded(sampler, tokens):
    drawn = draw(POOL, Budget(tokens=tokens, sampler=sampler), TOKENS)
    used = int(TOKENS[drawn.indices].sum())
    following = ranking(POOL, Budget(sampler=sampler))[len(drawn.indices)]
    assert used <= tokens < used + TOKENS[following]
    assert drawn.manifest["response_tokens"] == used


def test_no_count_means_the_whole_pool():
    assert draw(POOL, Budget()).manifest["examples"] == len(POOL)
    assert len(draw(POOL, Budget(tokens=int(TOKENS.sum())), TOKENS).indices) == len(POOL)


@every_sampler
def test_the_manifest_says_what_was_drawn(sampler):
    drawn = draw(POOL, Budget(examples=40, sampler=sampler, seed=2), TOKENS)
    chosen = [POOL[i] for i in drawn.indices]
    assert drawn.manifest == {
        "sampler": sampler,
        "seed": 2,
        "pool_examples": 100,
        "examples": 40,
        "response_tokens": int(TOKENS[drawn.indices].sum()),
        "by_source": dict(Counter(e.source for e in chosen)),
        "budget_by_annotator": dict(Counter(e.annotator for e in chosen)),
        "examples_sha256": content_hash(chosen),
        "first_ids": [e.id for e in chosen[:5]],
    }
    assert json.loads(json.dumps(drawn.manifest, allow_nan=False)) == drawn.manifest


def test_the_hash_follows_content_and_order():
    one, two = POOL[0], POOL[1]
    changed = Example(one.id, (one.messages[0], {"role": "assistant", "content": "other"}), *("s", "human", "train"))
    hashes = [content_hash(pool) for pool in ([one, two], [two, one], [changed, two], [one], [one, two])]
    assert len(set(hashes)) == 4
    assert hashes[0] == hashes[-1]


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"examples": 101}, "101 examples is larger than the pool of 100"),
        ({"tokens": 10**6}, "1,000,000 response tokens is larger than the pool's"),
        ({"tokens": 1, "seed": 3}, "is empty: the first example has"),
        ({"examples": 1, "sampler": "stratifed"}, "did you mean 'stratified'"),
    ],
)
def test_a_budget_that_the_pool_cannot_fill_is_refused(budget, message):
    lengths = TOKENS + 1
    with pytest.raises(InputError, match=message):
        draw(POOL, Budget(**budget), lengths)


FILE = '''"""What a model finds easy, from a given example on."""

import numpy as np

MODELS = ("teacher",)


def easiest(pool, generator, teacher_logp, *, first: int = 0):
    """Return them sorted.

    Args:
        pool: all examples.
        generator: not used.
        teacher_logp: of a model.
        first: number of examples moved to the end.
    """
    return np.roll(np.argsort(-teacher_logp, kind="stable"), -first)
'''


def test_a_sampler_is_one_file(tmp_path, monkeypatch):
    folder = tmp_path / "made_up_samplers"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "easiest.py").write_text(FILE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(samplers, "SAMPLERS", Room("made_up_samplers", kind="sampler"))
    logp = np.random.default_rng(0).normal(size=len(POOL))
    ranked = np.argsort(-logp).tolist()

    def mean_logp(model, examples):
        assert (model.name, len(examples)) == ("some-model", len(POOL))
        return logp

    monkeypatch.setattr(samplers, "mean_logp", mean_logp)
    options, models = {"teacher": "some-model"}, {"teacher": Models().find("some-model")}
    assert models_of("easiest") == ("teacher",)
    drawn = draw(POOL, Budget(examples=7, sampler="easiest", options=options | {"first": 3}))
    assert drawn.indices.tolist() == ranked[3:10]
    assert select(POOL, "easiest", 0.25, 0, models).tolist() == sorted(ranked[:25])
    with pytest.raises(InputError, match="unknown option 'frist'; did you mean 'first'"):
        ranking(POOL, Budget(sampler="easiest", options=options | {"frist": 1}), models)
    with pytest.raises(InputError, match="needs a teacher"):
        draw(POOL, Budget(sampler="easiest"))
    del sys.modules["made_up_samplers.easiest"], sys.modules["made_up_samplers"]


def test_a_permutation_is_what_a_sampler_must_return(monkeypatch):
    monkeypatch.setattr(Room, "member", lambda room, name: lambda pool, generator: np.zeros(len(pool), dtype=int))
    with pytest.raises(ValueError, match="must return a permutation"):
        ranking(POOL, Budget())
