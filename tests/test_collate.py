"""Planned micro-batches: every example equally often, the same plan for the same seed, padding that says nothing."""

from collections import Counter

import numpy as np
import pytest
import torch

from studykit.collate import PlannedBatches, collate, each_example_once, plan_batches

LENGTHS = np.random.default_rng(0).integers(3, 40, 50)


def plan(batch_size=4, count=30, seed=0, lengths=LENGTHS):
    return plan_batches(lengths, batch_size, count, np.random.default_rng(seed))


@pytest.mark.parametrize(("batch_size", "count"), [(4, 30), (7, 3), (64, 5), (1, 60), (50, 1)])
def test_batches_are_full_and_examples_come_equally_often(batch_size, count):
    batches = plan(batch_size, count)
    assert [len(batch) for batch in batches] == [batch_size] * count
    seen = Counter(int(i) for batch in batches for i in batch)
    often = batch_size * count // len(LENGTHS)
    assert {seen[i] - often for i in range(len(LENGTHS))} <= {0, 1}


def test_a_seed_decides_the_plan():
    same, again, other = plan(seed=1), plan(seed=1), plan(seed=2)
    assert all(np.array_equal(a, b) for a, b in zip(same, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(same, other, strict=True))


def test_sequences_of_similar_length_meet_and_batches_are_not_sorted():
    batches = plan(batch_size=4, count=100)
    padded = sum(len(batch) * LENGTHS[batch].max() for batch in batches)
    dealt = np.concatenate(batches).reshape(-1, 4)
    shuffled = np.random.default_rng(9).permutation(dealt.ravel()).reshape(-1, 4)
    assert padded < 0.9 * sum(len(batch) * LENGTHS[batch].max() for batch in shuffled)
    longest = [LENGTHS[batch].max() for batch in batches[:8]]
    assert longest != sorted(longest)


def test_a_small_budget_fills_large_batches():
    assert Counter(np.concatenate(plan(batch_size=8, count=2, lengths=np.array([3, 4]))).tolist()) == {0: 8, 1: 8}


def test_collated_rows_are_the_examples_padded_on_the_right(encoded, tokenizer):
    batch = collate(encoded, [6, 0], tokenizer.pad_token_id)
    assert batch.input_ids.shape == (2, int(encoded.lengths[[6, 0]].max()))
    for row, index in enumerate((6, 0)):
        length = int(encoded.lengths[index])
        assert batch.input_ids[row, :length].tolist() == encoded.ids_of(index).tolist()
        assert batch.loss_mask[row, :length].tolist() == encoded.supervised_of(index).tolist()
        assert batch.attention_mask[row].tolist() == [1] * length + [0] * (batch.input_ids.shape[1] - length)
        assert set(batch.input_ids[row, length:].tolist()) <= {tokenizer.pad_token_id}
        assert not batch.loss_mask[row, length:].any()
        assert batch.keys[row] == encoded.key_of(index)
    assert len(batch.target) == encoded.response_tokens[[6, 0]].sum()


def test_position_i_predicts_the_token_after_it(encoded, tokenizer):
    batch = collate(encoded, [6, 0], tokenizer.pad_token_id)
    places = torch.arange(batch.input_ids.numel(), dtype=torch.float).reshape(*batch.input_ids.shape, 1)
    following = batch.predicting(places)[:, 0].long() + 1
    assert batch.input_ids.flatten()[following].tolist() == batch.target.tolist()
    first = encoded.ids_of(0)[encoded.supervised_of(0)][0]
    assert batch.target[int(encoded.response_tokens[6])] == first  # the first response token is supervised


def test_items_are_ready_micro_batches(encoded, tokenizer):
    batches = PlannedBatches(encoded, [np.array([1, 2]), np.array([3, 4])], tokenizer.pad_token_id)
    assert len(batches) == 2
    expected = collate(encoded, [3, 4], tokenizer.pad_token_id)
    assert batches[1].keys == expected.keys
    assert torch.equal(batches[1].input_ids, expected.input_ids)


def test_processes_share_the_rows_of_a_batch_and_one_without_any_learns_nothing(encoded, tokenizer):
    batch = collate(encoded, [0, 1, 2, 3, 4], tokenizer.pad_token_id)
    assert batch.share(0, 1) is batch
    shares = [batch.share(index, 2) for index in range(2)]
    assert [share.keys for share in shares] == [batch.keys[0::2], batch.keys[1::2]]
    assert sum(int(share.target_count) for share in shares) == int(batch.target_count)
    assert shares[1].input_ids.shape[1] == max(encoded.lengths[1], encoded.lengths[3])
    assert [int(batch.share(index, 7).target_count > 0) for index in range(7)] == [1, 1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_a_teacher_reads_every_example_once(batch_size, encoded, tokenizer):
    batches = each_example_once(encoded, batch_size, tokenizer.pad_token_id)
    keys = [key for batch in batches for key in batch.keys]
    assert sorted(keys) == sorted(encoded.key_of(i) for i in range(len(encoded)))
