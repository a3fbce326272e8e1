"""The data as it is."""

from studykit.rollouts import get_rollout


def test_the_data_stays_as_it_is(batch, context):
    given, ours = batch(), context()
    assert get_rollout("dataset")(given, ours) is given
    assert get_rollout("dataset").keeps_rows
    assert ours.cost == {}
