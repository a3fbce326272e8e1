"""The run of the real model trains and scores the same twenty different examples."""

from benchmarks.smollm2 import specification
from studykit.sources import load_examples
from studykit.spec import RunSpec


def test_the_examples_that_are_trained_on_are_scored(tmp_path):
    spec = RunSpec.parse(specification(tmp_path, steps=3, learning_rate=0.1, lora_r=0))
    [stage], [evaluation] = spec.stages, spec.evaluation
    assert evaluation.data == stage.data
    examples = load_examples(stage.data.source, stage.data.split, stage.data.options)
    assert len({example.answer for example in examples}) == len({e.messages[0]["content"] for e in examples}) == 20
    assert spec.student.lora is None
    assert RunSpec.parse(specification(tmp_path, steps=3, learning_rate=0.1, lora_r=4)).student.lora is not None
