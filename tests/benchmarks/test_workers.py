"""The batch that workers are measured on is one that they finish."""

import pytest

from benchmarks import workers


@pytest.mark.slow
def test_every_cell_is_done_by_a_worker():
    found = workers.time_commands(2, workers._WORKER)
    assert found["seconds_per_cell"] == found["seconds"] / 2


def test_a_command_that_fails_is_no_measurement():
    with pytest.raises(RuntimeError, match="unknown batch"):
        workers.time_commands(1, (*workers._CLI, "work", "other"))
