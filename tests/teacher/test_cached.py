"""The teacher's distributions on disk: equal to the live ones, computed once, and never wrong in silence."""

import gc
import weakref
from functools import partial
from pathlib import Path

import pytest
import torch
from one_loss import loss_and_sums
from unpadding import unpadded

from studykit.chat import encode
from studykit.collate import collate, each_example_once
from studykit.losses import get_loss
from studykit.teacher import cached
from studykit.teacher.cached import CachedTeacher
from studykit.teacher.formats import TopK
from studykit.teacher.live import LiveTeacher
from studykit.teacher.store import as_keys

V, K = 85, 8


@pytest.fixture
def open_cached(tiny_model, tokenizer, empty_cache):
    """Open the cached teacher, as a separate process would."""

    def make(top_k=K, content="a", seed=7):
        def load():
            return LiveTeacher(tiny_model(seed=seed, spread=30.0).eval(), tokenizer, V)

        return CachedTeacher(load, content, partial(TopK, top_k))

    return make


@pytest.fixture
def batches(examples, tokenizer):
    """Make the batches in which a teacher reads the first `count` examples."""

    def make(count=12, size=4):
        return each_example_once(encode(examples[:count], tokenizer, 64), size, tokenizer.pad_token_id)

    return make


def loss_of(teacher, batch, name="forward_kl") -> float:
    hidden, weight = (torch.randn(*shape, generator=torch.Generator().manual_seed(3)) for shape in (HIDDEN, (V, 16)))
    chosen = hidden[: len(batch.target)]
    value, _ = loss_and_sums((chosen, weight, None), teacher.signal(batch), batch.target, get_loss(name), 1)
    return value.item() / len(batch.target)


HIDDEN = (400, 16)


def folded(logits, k):
    """Fold by hand, in probabilities: k likeliest, then the rest."""
    p, order = logits.softmax(-1).sort(-1, descending=True)
    return order[:, :k], torch.cat([p[:, :k], p[:, k:].sum(-1, keepdim=True)], -1)


def test_stored_signals_are_the_live_ones_folded(open_cached, batches):
    teacher = open_cached()
    teacher.prepare(unpadded(batches()))
    for batch in batches():
        logits = teacher.live.model(batch.input_ids, attention_mask=batch.attention_mask).logits
        ids, expected = folded(logits[:, :-1][batch.loss_mask[:, 1:]], K)
        stored = teacher.signal(batch)
        assert torch.equal(stored.ids.long(), ids)
        both = torch.cat([stored.logp, stored.tail], -1)
        # float16 keeps 11 bits of a log-probability: 1 part in 2,048
        torch.testing.assert_close(both, expected.log(), rtol=6e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd", "taid", "correlation"])
def test_the_loss_is_that_of_the_live_teacher_folded(name, open_cached, batches):
    teacher = open_cached()
    teacher.prepare(unpadded(batches()))
    for batch in batches():
        logits = teacher.live.model(batch.input_ids, attention_mask=batch.attention_mask).logits
        ids, p = folded(logits[:, :-1][batch.loss_mask[:, 1:]], K)

        class Live:
            def signal(self, batch, ids=ids, p=p):
                return cached.TeacherSignal.from_top_k(ids, p[:, :-1].log(), p[:, -1:].log())

        assert loss_of(teacher, batch, name) == pytest.approx(loss_of(Live(), batch, name), rel=2e-3)


def test_all_tokens_kept_is_the_live_teacher_itself(open_cached, batches):
    teacher = open_cached(top_k=1000)
    teacher.prepare(unpadded(batches()))
    for batch in batches():
        assert loss_of(teacher, batch) == pytest.approx(loss_of(teacher.live, batch), rel=2e-3)


def test_rows_come_in_the_order_of_the_batch(open_cached, batches, examples, tokenizer):
    teacher = open_cached()
    teacher.prepare(unpadded(batches()))
    encoded = encode(examples[:12], tokenizer, 64)
    forth, back = (teacher.signal(collate(encoded, rows, tokenizer.pad_token_id)) for rows in ([2, 5, 11], [11, 5, 2]))
    counts = encoded.response_tokens[[2, 5, 11]].tolist()
    assert torch.equal(torch.cat(forth.logp.split(counts)[::-1]), back.logp)


def test_a_second_instance_runs_no_teacher(open_cached, batches, monkeypatch):
    first = open_cached()
    first.prepare(unpadded(batches()))
    assert first.cost["teacher_tokens"] == sum(int(batch.attention_mask.sum()) for batch in batches())
    second = open_cached()
    second.prepare(unpadded(batches()))
    assert second.cost["teacher_tokens"] == 0
    assert 0 < second.cost["teacher_check_tokens"] <= first.cost["teacher_tokens"]
    values = [loss_of(teacher, batches()[0]) for teacher in (first, second)]
    assert values[0] == values[1]


def test_a_larger_budget_computes_only_what_the_smaller_had_not(open_cached, batches):
    small, large = batches(8, size=1), batches(16, size=1)
    open_cached().prepare(unpadded(small))
    second = open_cached()
    second.prepare(unpadded(large))
    known = {batch.keys[0] for batch in small}
    assert second.cost["teacher_tokens"] == sum(int(b.attention_mask.sum()) for b in large if b.keys[0] not in known)
    assert second.cost["teacher_tokens"] < sum(int(b.attention_mask.sum()) for b in large)


def test_entries_do_not_depend_on_the_batches_they_were_captured_in(open_cached, batches):
    open_cached().prepare(unpadded(batches(12, size=5)))
    teacher = open_cached()
    teacher.prepare(unpadded(batches(12, size=1)))
    assert teacher.cost["teacher_tokens"] == 0


@pytest.mark.parametrize("change", [{"content": "b"}, {"top_k": K + 1}])
def test_another_teacher_or_k_shares_nothing(change, open_cached, batches):
    open_cached().prepare(unpadded(batches()))
    other = open_cached(**change)
    other.prepare(unpadded(batches()))
    assert other.cost["teacher_tokens"] > 0


def test_large_data_is_put_into_several_shards(open_cached, batches, monkeypatch):
    monkeypatch.setattr(cached, "_SHARD_POSITIONS", 10)
    teacher = open_cached()
    teacher.prepare(unpadded(batches()))
    assert len(list(teacher.store.folder.glob("*.safetensors"))) > 1
    again = open_cached()
    again.prepare(unpadded(batches()))
    assert again.cost["teacher_tokens"] == 0


def only_shard(teacher) -> Path:
    (file,) = teacher.store.folder.glob("*.safetensors")
    return file


def use(teacher, batches):
    teacher.prepare(unpadded(batches))
    for batch in batches:
        teacher.signal(batch)


@pytest.mark.parametrize("damage", ["torn", "garbled data", "garbled keys", "garbled header", "empty"])
def test_a_damaged_shard_is_refused_by_name(damage, open_cached, batches):
    teacher = open_cached()
    teacher.prepare(unpadded(batches()))
    file = only_shard(teacher)
    whole = file.read_bytes()
    garbled = bytearray(whole)
    # The keys of 12 entries are the last 192 bytes of the file, their data lies before.
    garbled[{"garbled data": -300, "garbled header": 3}.get(damage, -20)] ^= 0x40
    file.write_bytes({"torn": whole[:-50], "empty": b""}.get(damage, bytes(garbled)))
    with pytest.raises(RuntimeError, match=rf"{file.name} is damaged.*delete that file"):
        use(open_cached(), batches())
    file.unlink()
    again = open_cached()
    again.prepare(unpadded(batches()))
    assert again.cost["teacher_tokens"] == teacher.cost["teacher_tokens"]


def test_a_stored_value_that_is_not_the_teachers_is_refused(open_cached, batches):
    """A whole shard, but of another teacher: only asking the live one can tell."""
    teacher = open_cached()
    teacher.prepare(unpadded(batches()))
    keys = as_keys(sorted({key for batch in batches() for key in batch.keys}))
    rows = [part.reshape(-1, 4 * K + 2).copy() for part in teacher.store.read(keys)]
    for row in rows:
        row[:, 2 * K :].view("<f2")[:, 0] -= 0.5
    only_shard(teacher).unlink()
    teacher.store.write(keys, [row.tobytes() for row in rows])
    with pytest.raises(RuntimeError, match="disagrees with the live teacher"):
        open_cached().prepare(unpadded(batches()))


def test_a_released_teacher_leaves_memory_and_is_loaded_again_on_demand(open_cached, batches):
    teacher = open_cached()
    teacher.prepare(unpadded(batches()))
    loaded = weakref.ref(teacher.model)
    before = loss_of(teacher, batches()[0])
    teacher.release()
    gc.collect()
    assert loaded() is None
    assert loss_of(teacher, batches()[0]) == before  # from the cache alone
    assert teacher._live is None
    teacher.prepare(unpadded(batches(12)))
    assert teacher.cost["teacher_check_tokens"] > 0
    assert teacher.model is not None
