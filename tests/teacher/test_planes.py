"""What a format writes it reads again, for small and for very large vocabularies, in the documented number of bytes."""

import hashlib
from typing import Any

import numpy as np
import pytest
import torch

from studykit.losses import LOG_FLOOR
from studykit.teacher.formats import KeptProbs, Samples, TopK

CPU = torch.device("cpu")
VOCABULARIES = [85, 2**16, 2**16 + 1, 151_936, 2**18, 2**18 + 1, 300_000]
COUNTS = [3, 1, 0, 7]


def peaked(count: int, vocab_size: int, seed: int = 0) -> torch.Tensor:
    """Return log-probabilities [n, V] that fall like a power of the rank, in an order of each position's own."""
    generator = torch.Generator().manual_seed(seed)
    logits = -1.6 * torch.arange(1, vocab_size + 1).log().expand(count, -1)
    order = torch.stack([torch.randperm(vocab_size, generator=generator) for _ in range(count)])
    order[0, 0] = order[0].max()
    return logits.log_softmax(-1).gather(1, order)


def write(format_, logp, counts) -> list[np.ndarray]:
    names = [hashlib.sha256(str(n).encode()).hexdigest()[:32] for n in range(len(counts))]
    parts = format_.to_bytes(format_.encode(logp, format_.draw_noise(names, counts)), counts)
    return [np.frombuffer(part, dtype=np.uint8) for part in parts]


@pytest.mark.parametrize("vocab_size", VOCABULARIES)
@pytest.mark.parametrize("k", [1, 4, 14])
def test_top_k_comes_back(k, vocab_size):
    logp = peaked(11, vocab_size)
    format_ = TopK(k, vocab_size)
    parts = write(format_, logp, COUNTS)
    order = [3, 0, 1]
    signal: Any = format_.decode_signal([parts[i] for i in order], CPU)
    rows = torch.cat([torch.arange(11).split(COUNTS)[i] for i in order])
    top, ids = logp[rows].topk(k, dim=-1)
    assert torch.equal(signal.ids.long(), ids)
    torch.testing.assert_close(signal.logp, top, rtol=6e-4, atol=1e-6)
    tail = logp[rows].exp().scatter(1, ids, 0.0).sum(-1, keepdim=True)
    torch.testing.assert_close(signal.tail, tail.log(), rtol=6e-4, atol=1e-5)


@pytest.mark.parametrize("vocab_size", VOCABULARIES)
@pytest.mark.parametrize("n", [1, 50, 255])
def test_samples_come_back(n, vocab_size):
    logp = peaked(11, vocab_size)
    format_ = Samples(n, vocab_size)
    parts = write(format_, logp, COUNTS)
    names = [hashlib.sha256(str(i).encode()).hexdigest()[:32] for i in range(4)]
    (drawn,) = format_.encode(logp, format_.draw_noise(names, COUNTS))
    for order in ([0, 1, 2, 3], [3, 0, 1], [2]):
        probs = format_.decode_probs([parts[i] for i in order])
        rows = [row for i in order for row in drawn.split(COUNTS)[i].tolist()]
        assert len(probs.tokens) == len(rows)
        for row, tokens, p in zip(rows, probs.tokens.tolist(), probs.p.tolist(), strict=True):
            counted = {token: round(x * n) for token, x in zip(tokens, p, strict=True) if token >= 0}
            assert counted == {token: row.count(token) for token in set(row)}


@pytest.mark.parametrize(("vocab_size", "size"), [(85, 58), (2**16, 58), (151_936, 62), (2**18, 62), (300_000, 72)])
def test_bytes_of_a_position_of_14_tokens(vocab_size, size):
    assert [len(part) for part in write(TopK(14, vocab_size), peaked(11, vocab_size), COUNTS)] == [
        size * count for count in COUNTS
    ]


def test_fifty_samples_of_a_peaked_distribution_take_40_bytes():
    format_, logp = Samples(50, 151_936), peaked(20, 151_936)
    (part,) = write(format_, logp, [20])
    distinct = (format_.decode_probs([part]).tokens >= 0).sum().item()
    assert 10 < distinct / 20 < 25
    assert len(part) <= 3.25 * distinct + 1


def test_probabilities_of_zero_stay_zero():
    logp = torch.full((1, 85), LOG_FLOOR)
    logp[0, 5] = 0
    format_ = TopK(4, 85)
    signal: Any = format_.decode_signal(write(format_, logp, [1]), CPU)
    assert signal.ids[0, 0] == 5
    assert signal.logp[0].tolist() == [0, LOG_FLOOR, LOG_FLOOR, LOG_FLOOR]
    assert signal.tail.item() == LOG_FLOOR


def probs_of(tokens, p, max_unkept=0.0) -> KeptProbs:
    tail = 1 - torch.tensor(p).sum(-1)
    return KeptProbs(torch.tensor(tokens), torch.tensor(p), tail, torch.full((len(p),), max_unkept))


def test_the_distance_is_the_largest_difference_of_a_probability():
    one, other = (
        probs_of([[1, 2], [3, -1]], [[0.5, 0.25], [1.0, 0.0]]),
        probs_of([[2, 1], [3, 4]], [[0.3, 0.5], [0.9, 0.1]]),
    )
    assert one.distance(one) == 0
    assert one.distance(other) == pytest.approx(0.1)
    assert other.distance(one) == pytest.approx(0.1)
    assert one.distance(probs_of([[1, 2]], [[0.5, 0.25]])) == 1


def test_tokens_that_change_places_at_the_end_of_the_k_are_near():
    one, other = probs_of([[1, 2]], [[0.5, 0.1]], 0.1), probs_of([[1, 3]], [[0.5, 0.1]], 0.1)
    assert one.distance(other) == 0
    assert probs_of([[1, 2]], [[0.5, 0.2]], 0.2).distance(other) == pytest.approx(0.1)
