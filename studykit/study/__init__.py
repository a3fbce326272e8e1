"""What notebooks call: tune arms equally, run each once, compare them side by side, score what is trained.

    tuned = tune(arms(["sft", "kd"], **parameters(globals())), space, **tuning(globals()))
    runs = compare(tuned, study="lexicon", ablation="data_size")

A run is its content: the second time, from whichever notebook, it is read from disk; with another evaluation, what is
trained is scored. Everything that can be wrong in a specification is refused before a model is loaded.
"""

from studykit.study.arms import arms, parameters
from studykit.study.capture import measure_signals
from studykit.study.compare import compare
from studykit.study.pin import pin
from studykit.study.run import run
from studykit.study.score import score
from studykit.study.tune import tune, tuning
from studykit.study.ways import answers_by, ways

__all__ = [
    "answers_by",
    "arms",
    "compare",
    "measure_signals",
    "parameters",
    "pin",
    "run",
    "score",
    "tune",
    "tuning",
    "ways",
]
