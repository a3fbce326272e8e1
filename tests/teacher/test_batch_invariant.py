"""An entry is the same bits whichever sequences it was captured with."""

from typing import Any

import numpy as np
import pytest
import torch
from unpadding import unpadded

from studykit.chat import encode
from studykit.collate import Batch, collate, each_example_once
from studykit.models.loading import load_teacher
from studykit.models.names import Models
from studykit.sources import Example, load_examples
from studykit.teacher import batch_invariant
from studykit.teacher.batch_invariant import POSITIONS, BatchInvariantTeacher
from studykit.teacher.cached import CachedTeacher
from studykit.teacher.formats import Samples, TopK
from studykit.teacher.live import LiveTeacher
from studykit.teacher.store import as_keys
from tools.small_models import random_model, small_config

V = 85
FORMATS = {"top_k": lambda: TopK(8, V), "samples": lambda: Samples(50, V)}


@pytest.fixture(scope="module")
def pool(tokenizer):
    """Return 90 words of the lexicon, of many lengths, and one that is far longer."""
    words = load_examples("lexicon", "validation", {})[:89]
    long = [Example("long", tuple(m | {"content": m["content"] * 4} for m in words[0].messages), "words", "human", "")]
    return encode([*words, *long], tokenizer, None)


@pytest.fixture(scope="module")
def models(tiny_model):
    """Return the embedded teacher and a small random one."""
    random = tiny_model(seed=7, spread=30.0, hidden_size=32, intermediate_size=96).eval()
    return {"embedded": load_teacher(Models().find("lexicon/teacher-a")), "random": random}


def fix_shapes(monkeypatch):
    """Compute as on an accelerator, in small batches."""
    fixed = property(lambda teacher: True, lambda teacher, is_fixed: None)
    monkeypatch.setattr(BatchInvariantTeacher, "_has_fixed_shapes", fixed, raising=False)
    monkeypatch.setattr(batch_invariant, "_TOKENS_ON_ACCELERATOR", 2**11)


@pytest.fixture(params=["small", "alone", "fixed shapes"])
def batching(request, monkeypatch):
    """Compute in each of the three ways."""
    if request.param == "alone":
        monkeypatch.setattr(batch_invariant, "_SMALL", 0)
    elif request.param == "fixed shapes":
        fix_shapes(monkeypatch)


@pytest.fixture
def captured(models, tokenizer, tmp_path, monkeypatch):
    """Capture batches into a separate cache, and return the bytes of each sequence by its key."""

    def make(model, name, *rounds) -> dict[str, bytes]:
        monkeypatch.setenv("STUDYKIT_CACHE", str(tmp_path / str(len(list(tmp_path.iterdir())))))
        teacher = CachedTeacher(lambda: LiveTeacher(models[model], tokenizer, V), "a", lambda rows: FORMATS[name]())
        for batches in rounds:
            teacher.prepare(unpadded(batches))
        keys = [key for batches in rounds for batch in batches for key in batch.keys]
        return dict(zip(keys, (p.tobytes() for p in teacher.store.read(as_keys(keys))), strict=True))

    return make


def wider(batch: Batch, columns: int, pad_token_id: int) -> Batch:
    added = torch.full((len(batch.keys), columns), pad_token_id)
    ids, nothing = torch.cat([batch.input_ids, added], dim=1), torch.zeros_like(added)
    mask = torch.cat([batch.attention_mask, nothing], dim=1)
    return Batch(ids, mask, torch.cat([batch.loss_mask, nothing.bool()], dim=1), batch.keys)


def test_a_small_teacher_that_cannot_run_in_float64_takes_each_sequence_alone(pool, tokenizer):
    experts = LiveTeacher(random_model(small_config("mixtral"), 0).eval(), tokenizer, V)
    teacher = BatchInvariantTeacher(experts)
    assert teacher.plan(pool.lengths) == [[row] for row in np.argsort(pool.lengths, kind="stable")]
    [logp] = teacher.compute_logp(pool, np.array([3]))
    assert logp.isfinite().all()


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("model", ["embedded", "random"])
def test_entries_are_the_same_bits_in_any_batch(model, format_name, batching, captured, pool, tokenizer):
    pad = tokenizer.pad_token_id
    whole = captured(model, format_name, each_example_once(pool, 32, pad))
    assert len(whole) == 90
    shuffled = np.random.default_rng(0).permutation(90)
    rounds_of = {
        "alone": [[collate(pool, [i], pad)] for i in range(0, 90, 9)],
        "in small batches and another order": [[collate(pool, rows, pad) for rows in np.split(shuffled, 30)]],
        "in two halves": [[collate(pool, half, pad)] for half in np.split(shuffled, 2)],
        "wider": [[wider(collate(pool, shuffled[:50], pad), 13, pad)]],
        "with the longest": [[collate(pool, [89, 3, 4, 3], pad)]],
    }
    for name, rounds in rounds_of.items():
        for key, part in captured(model, format_name, *rounds).items():
            assert part == whole[key], name


@pytest.mark.parametrize("model", ["embedded", "random"])
def test_log_probabilities_are_the_same_bits_before_they_are_rounded(model, models, tokenizer, pool, monkeypatch):
    fix_shapes(monkeypatch)
    invariant = BatchInvariantTeacher(LiveTeacher(models[model], tokenizer, V))
    counts = pool.response_tokens
    for rows in invariant.plan(pool.lengths):
        together = torch.cat(list(invariant.compute_logp(pool, rows))).split(
            [*counts[rows], -int(counts[rows].sum()) % POSITIONS]
        )
        for row, expected in list(zip(rows, together, strict=False))[::7]:
            alone = torch.cat(list(invariant.compute_logp(pool, np.array([row]))))
            assert torch.equal(alone[: counts[row]], expected)


def test_the_live_teacher_in_other_shapes_does_differ(models, tokenizer, pool):
    """Why the shapes are needed: the bits of a plain forward pass depend on the batch."""
    live = LiveTeacher(models["embedded"], tokenizer, V)
    differ = 0
    for i in range(0, 90, 9):
        signals: list[Any] = [
            live.signal(collate(pool, rows, tokenizer.pad_token_id)) for rows in ([i], [i, *range(30)])
        ]
        differ += not torch.equal(signals[0].hidden, signals[1].hidden[: len(signals[0].hidden)])
    assert differ > 0


def test_values_are_those_of_the_live_teacher(models, tokenizer, pool, batching):
    live = LiveTeacher(models["embedded"], tokenizer, V)
    invariant = BatchInvariantTeacher(live)
    batch = collate(pool, range(90), tokenizer.pad_token_id)
    plan = invariant.plan(pool.lengths)
    assert sorted(np.concatenate(plan)) == list(range(90))
    for rows in plan:
        logits = models["embedded"](batch.input_ids[rows], attention_mask=batch.attention_mask[rows]).logits
        expected = logits[:, :-1][batch.loss_mask[rows][:, 1:]].log_softmax(-1)
        answered = torch.cat(list(invariant.compute_logp(pool, rows)))
        assert len(answered) - len(expected) in range(POSITIONS)
        torch.testing.assert_close(answered[: len(expected)], expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("budget", [1, 2, 7, 24, 90])
def test_a_capture_computes_little_more_than_the_tokens_at_any_budget(budget, models, tokenizer, pool, empty_cache):
    teacher = CachedTeacher(lambda: LiveTeacher(models["random"], tokenizer, V), "a", lambda rows: TopK(8, V))
    assert teacher.capturing  # which has tried two tokens in float64
    computed, kind = [], type(models["random"])
    forward = kind.forward

    def counting(model, input_ids, **more):
        computed.append(input_ids.numel())
        return forward(model, input_ids, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "forward", counting)
        teacher.prepare(pool.take(np.arange(budget)))
    tokens = int(pool.lengths[:budget].sum())
    assert sum(computed) == teacher.cost["teacher_tokens"] + teacher.cost["teacher_padding_tokens"]
    assert tokens == teacher.cost["teacher_tokens"]
    assert sum(computed) <= 1.2 * tokens


def test_the_rest_of_a_batch_on_an_accelerator_is_counted(models, tokenizer, pool, empty_cache, monkeypatch):
    fix_shapes(monkeypatch)
    teacher = CachedTeacher(lambda: LiveTeacher(models["random"], tokenizer, V), "a", lambda rows: TopK(8, V))
    teacher.prepare(pool.take(np.arange(1)))
    width = int(BatchInvariantTeacher(teacher.live).round_up(pool.lengths[:1])[0])
    rows = next(2**n for n in range(11, -1, -1) if 2**n * width <= 2048)
    assert teacher.cost["teacher_tokens"] + teacher.cost["teacher_padding_tokens"] == rows * width


def test_widths_hold_their_sequence_and_waste_little(models, tokenizer, monkeypatch):
    fix_shapes(monkeypatch)
    invariant = BatchInvariantTeacher(LiveTeacher(models["random"], tokenizer, V))
    invariant._max_width = 2000
    lengths = np.arange(1, 2001)
    widths = invariant.round_up(lengths)
    assert (widths >= lengths).all()
    assert (np.diff(widths) >= 0).all()
    assert (widths[33:] < 1.125 * lengths[33:]).all()
    assert len(np.unique(widths)) < 60
    assert widths[-1] == 2000  # learned positions end there
    assert all(1 <= invariant.count_rows(width) * width <= 2048 for width in np.unique(widths).tolist())


def test_a_sequence_without_supervised_positions_has_an_empty_entry(captured, pool, tokenizer):
    batch = collate(pool, [0, 1], tokenizer.pad_token_id)
    batch.loss_mask[0] = False
    batch.keys = [unpadded([batch]).key_of(i) for i in range(2)]
    parts = captured("random", "top_k", [batch])
    assert parts[batch.keys[0]] == b""
    assert len(parts[batch.keys[1]]) == 34 * int(batch.loss_mask[1, 1:].sum())
