"""What a table of runs says of a tuning."""

import pandas as pd

from studykit.results.tuning import TuningRecord


def test_values_of_stages_that_differ_are_one_text():
    chosen = {"learning_rate": [0.004, 0.0004], "steps": 400}
    record = TuningRecord.model_construct(tuning="0a1b", chosen=chosen, trials=())
    columns = record.columns()
    assert (columns["tuned.learning_rate"], columns["tuned.steps"]) == ("0.004 > 0.0004", 400)
    assert pd.DataFrame([columns]).drop_duplicates().shape[0] == 1  # a list could not be grouped by
