"""The key-value cache: against plain copies and transformers' sliding window; what is written, seen and shifted."""

import pytest
import torch
from toys import GREEDY, PAD, PROMPTS, V, cycles, drafted, sampled, seeded
from transformers.cache_utils import DynamicSlidingWindowLayer

from studykit.generation import Sampling, Vocabulary, generate, pad_prompts
from studykit.generation.decoder import CachedDecoder
from studykit.generation.kv_cache import InPlaceLayer, Shift


def states(columns, rows=3, heads=2, size=4, seed=0):
    return torch.randn(2, rows, heads, columns, size, generator=seeded(seed)).unbind()


@pytest.fixture
def used(monkeypatch):
    """Record the positions of keys at every update of a layer, its shifts, and the rows that are selected."""
    seen = {"allocated": [], "updates": [], "shifted": [], "selected": []}

    def wrap(name, note):
        original = getattr(InPlaceLayer, name)

        def wrapped(self, *arguments):
            made = original(self, *arguments)
            note(self, arguments, made)
            return made

        monkeypatch.setattr(InPlaceLayer, name, wrapped)

    wrap("lazy_initialization", lambda layer, _, made: seen["allocated"].append(layer))
    wrap("update", lambda layer, _, made: seen["updates"].append((layer, layer.keys.data_ptr(), made[0].shape)))
    wrap("shift", lambda layer, shifted, made: seen["shifted"].append(shifted[0]))
    wrap("select", lambda layer, selected, made: seen["selected"].append((selected[0], len(layer.keys))))
    return seen


@pytest.mark.parametrize("window", [2, 3, 5, 30])
def test_a_window_shows_what_transformers_own_layer_shows(window):
    ours, theirs = InPlaceLayer(20, window), DynamicSlidingWindowLayer(window)
    for seed, columns in enumerate((4, 1, 1, 3, 1, 5)):
        keys, values = states(columns, seed=seed)
        assert ours.get_mask_sizes(columns) == theirs.get_mask_sizes(columns)
        assert ours.get_seq_length() == theirs.get_seq_length()
        for mine, other in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(mine, other)


def test_what_was_written_is_seen_whatever_was_cropped_shifted_and_selected():
    """Against lists of single tokens."""
    layer = InPlaceLayer(12)
    keys, values = states(6)
    layer.update(keys, values)
    plain = [[(keys[r, :, c], values[r, :, c]) for c in range(6)] for r in range(3)]
    layer.crop(-1)
    layer.shift(Shift(torch.tensor([0, 0, 2]), torch.tensor([2, 3, 1]), torch.tensor([1, 1, 3])))
    moved = [list(row[:5]) for row in plain]
    moved[0][3], moved[0][4], moved[2][4] = plain[0][2], plain[0][3], plain[2][1]
    layer.select(torch.tensor([0, 2]), 2)
    expected = [moved[0][2:], moved[2][2:]]
    more_keys, more_values = states(2, rows=2, seed=1)
    seen_keys, seen_values = layer.update(more_keys, more_values)
    assert seen_keys.shape == seen_values.shape == (2, 2, 5, 4)
    for r, row in enumerate(expected):
        row += [(more_keys[r, :, c], more_values[r, :, c]) for c in range(2)]
        for c, (key, value) in enumerate(row):
            assert torch.equal(seen_keys[r, :, c], key)
            assert torch.equal(seen_values[r, :, c], value)


def test_the_capacity_cannot_be_exceeded():
    layer = InPlaceLayer(5)
    layer.update(*states(5))
    assert layer.get_max_length() == layer.get_seq_length() == 5
    with pytest.raises(RuntimeError):
        layer.update(*states(1))


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_memory_is_allocated_once_and_attention_sees_what_is_filled(kind, make, used):
    sampled(make(kind, seed=3), max_new_tokens=[12, 3, 3, 3, 12])
    layers = used["allocated"]
    assert len(layers) == 2
    assert len({(id(layer), pointer) for layer, pointer, _ in used["updates"]}) == 2
    widths = [shape[2] for layer, _, shape in used["updates"] if layer is layers[0]]
    batches = [shape[0] for layer, _, shape in used["updates"] if layer is layers[0]]
    assert batches == [5] * 3 + [2] * 9
    if kind == "llama":  # without the longest prompt, whose row has ended, the columns before the next are gone
        assert widths == [7, 8, 9, *range(7, 16)]
    else:
        assert set(widths[1:]) == {6}


def test_drafts_of_which_nothing_is_rejected_shift_nothing(make, used):
    student = make(seed=3)
    drafted(student, make(seed=4), max_new_tokens=11, top_k=V, sampling=Sampling())
    assert used["shifted"] == used["selected"] == []
    assert len(used["allocated"]) == 4
    assert len({(id(layer), pointer) for layer, pointer, _ in used["updates"]}) == 4


def test_only_rows_with_fewer_tokens_are_shifted(markov, used):
    """The teacher rejects every 3: of three rows, one meets it in its first draft."""
    answers, _, _ = drafted(
        markov(cycles(16)), markov(cycles(16, _2=9)), [[4], [1], [9, 8]], 6, top_k=1, draft_tokens=4, vocab_size=16
    )
    assert answers.tokens == [[5, 6, 7, 8, 9, 10], [2, 9, 10, 11, 12, 13], [9, 10, 11, 12, 13, 14]]
    assert {int(row) for shift in used["shifted"] for row in shift.rows} == {1}
    assert {int(distance) for shift in used["shifted"] for distance in shift.distances} == {2}
    assert len(used["shifted"]) == 4  # once for each layer of both models


@pytest.mark.parametrize("sampling", [Sampling(0.8, 0.9), GREEDY])
def test_rows_that_have_ended_leave_the_batch_and_change_no_draw(sampling, make, used):
    """Against a plain loop without cache, padding or batch, in which every row of the beginning gets its number."""
    model, max_new_tokens, generator = make(seed=3), [14, 2, 5, 1, 9], seeded(6)
    answers = sampled(model, max_new_tokens=max_new_tokens, sampling=sampling, seed=6)
    expected = [[] for _ in PROMPTS]
    for step in range(max(max_new_tokens)):
        numbers = torch.rand(len(PROMPTS), 1, generator=generator, dtype=torch.float64)
        for row, prompt in enumerate(PROMPTS):
            if step < max_new_tokens[row]:
                with torch.no_grad():
                    logits = model(input_ids=torch.tensor([prompt + expected[row]])).logits[0, -1]
                expected[row].append(at(logits, sampling, float(numbers[row])))
    assert answers.tokens == expected
    assert answers.generated_tokens == sum(max_new_tokens)
    assert answers.scored_tokens == [sum(len(p) + n - 1 for p, n in zip(PROMPTS, max_new_tokens, strict=True))]
    assert [left for _, left in used["selected"]] == [2, 2, 1, 1]


def at(logits, sampling, number: float) -> int:
    if sampling.temperature == 0:
        return int(logits.argmax())
    shares = sorted(((p, -i) for i, p in enumerate((logits.double() / 0.8).softmax(-1).tolist())), reverse=True)
    kept, mass = [], 0.0
    for share, i in shares:
        if mass < sampling.top_p:
            kept.append((share, -i))
        mass += share
    place = number * sum(share for share, _ in kept)
    for share, i in kept:
        place -= share
        if place < 0:
            return i
    return kept[-1][1]


def test_the_generator_is_left_in_the_same_state_whatever_the_temperature(make):
    states = []
    for sampling in (GREEDY, Sampling(), Sampling(0.5, 0.5)):
        generator = seeded(1)
        generate([(make(), 1.0)], PROMPTS, [6] * 5, sampling, generator, Vocabulary([84], PAD, V))
        states.append(generator.get_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def test_what_was_rolled_back_can_be_read_anew(make):
    model = make(seed=3)
    ids, mask = pad_prompts(PROMPTS, PAD)
    decoder, straight = (CachedDecoder(model, V, 20) for _ in range(2))
    with torch.no_grad():
        wrong, right = torch.full((5, 2), 8), torch.full((5, 1), 9)
        decoder.forward(ids, mask)
        decoder.forward(wrong, torch.cat([mask, mask[:, -1:], mask[:, -1:]], dim=1))
        decoder.rollback(2)
        longer = torch.cat([mask, mask[:, -1:]], dim=1)
        again = decoder.forward(right, longer)
        straight.forward(ids, mask)
        torch.testing.assert_close(again, straight.forward(right, longer), rtol=0, atol=0)
    assert decoder.tokens_read == sum(map(len, PROMPTS)) + 10 + 5
