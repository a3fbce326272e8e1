"""How long many take, from a few: the probe ends in time, and a part of the time does not grow."""

import pytest

from studykit.study import timing


def test_parts_end_where_the_next_one_would_take_too_long(monkeypatch):
    now, taken = 0.0, []

    def step(part):
        nonlocal now
        taken.append(len(part))
        now += 1.0 * len(part)

    monkeypatch.setattr(timing.time, "monotonic", lambda: now)
    timing.take_within(step, [[0], [0], [0] * 8, [0] * 8])
    assert taken == [1, 1]
    now, taken[:] = 0.0, []
    timing.take_within(lambda part: step(part * 20) if not taken else step(part), [[0], [0], [0]])
    assert taken == [20, 1, 1]  # the first step, in which everything is made, does not count
    now, taken[:] = 0.0, []
    timing.take_within(lambda part: taken.append(len(part)), [[0]] * 50)
    assert len(taken) == 10


@pytest.mark.parametrize(("constant_s", "each_s"), [(3.0, 0.01), (0.5, 0.5), (0.0, 2.0), (4.0, 0.0)])
@pytest.mark.parametrize("sizes", [(1, 4, 16), (1, 4, 16, 64, 64)])
def test_items_of_a_slow_machine_are_not_taken_for_as_many_generations(constant_s, each_s, sizes):
    times = [(1, 60.0), *((size, constant_s + each_s * size) for size in sizes)]
    assert timing.pace_at(times, 64) == pytest.approx((constant_s + 64 * each_s) / 64)


def test_noise_makes_no_pace_negative_or_slower_than_one_at_a_time():
    assert timing.pace_at([(1, 1.0), (1, 9.0), (4, 2.0)], 64) == pytest.approx(2.0 / 64)
    assert timing.pace_at([(1, 1.0), (1, 0.0), (4, 8.0)], 64) == pytest.approx(2.0)
    assert timing.pace_at([(8, 2.0)], 8) == timing.pace_at([(8, 9.0), (8, 2.0)], 8) == pytest.approx(0.25)
