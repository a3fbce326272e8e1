"""Answers in a language that the student's tokenizer does not know are refused, and a few unknown tokens are logged."""

import json
import logging

import pytest

from studykit.errors import InputError
from studykit.spec import RunSpec
from studykit.study import pin


@pytest.fixture
def spec(tmp_path, stage, plain_spec):
    """Make a run on examples with these answers."""

    def make(*answers):
        file = tmp_path / "answers.jsonl"
        lines = [json.dumps({"prompt": f"Spell {n}", "completion": answer}) for n, answer in enumerate(answers)]
        file.write_text("\n".join(lines), encoding="utf-8")
        data = {"source": "jsonl", "options": {"path": str(file)}}
        return RunSpec.parse(plain_spec(stage(data=data), teacher=False, evaluation={"data": data}))

    return make


def test_answers_of_another_language_are_refused(spec):
    with pytest.raises(
        InputError, match=r"stage 1: 57\.1% of the answers' tokens are '<\|unknown\|>'.*reads this language"
    ):
        pin(spec("card arrival", "K lost card"))


def test_a_few_unknown_tokens_are_logged_and_none_is_silent(spec, caplog):
    with caplog.at_level(logging.WARNING):
        pin(spec("K AE T", "D AO G", "K AE T lost"))
    assert "stage 1: 7.7% of the answers' tokens" in caplog.text
    caplog.clear()
    pin(spec("K AE T", "D AO G"))
    assert "unknown" not in caplog.text
