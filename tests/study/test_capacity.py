"""What a model cannot read or generate is refused when a run is pinned, with one line that says the fix."""

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from studykit.errors import InputError
from studykit.spec import RunSpec
from studykit.study import pin

FIELDS = {
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 24},
    "llama": {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 24,
    },
    "mamba2": {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_heads": 8,
        "head_dim": 8,
        "state_size": 8,
        "n_groups": 2,
        "chunk_size": 8,
    },
}


@pytest.fixture
def folder(tmp_path, tokenizer):
    """Save a model of some architecture with the lexicon's tokenizer, and return its folder."""

    def make(kind, rows=None):
        fields = {"vocab_size": rows or len(tokenizer), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields, **FIELDS[kind]))
        model.save_pretrained(tmp_path / kind)
        tokenizer.save_pretrained(tmp_path / kind)
        return str(tmp_path / kind)

    return make


@pytest.fixture
def spec(stage, data_file):
    """Make the plain data of a run of a student, scored on other items than it is trained on."""

    def make(student, method="sft", new_tokens=4, scorers=("nll",), **options):
        data = {"source": "jsonl", "options": {"path": str(data_file)}}
        evaluation = {"data": data, "max_new_tokens": new_tokens, "scorers": list(scorers)}
        stages = [stage(method, method_options=options)]
        return RunSpec.parse(
            {"student": {"name": student}, "teacher": {"name": student}, "stages": stages, "evaluation": evaluation}
        )

    return make


def test_a_run_that_fits_is_pinned(folder, spec, caplog):
    assert pin(spec(folder("gpt2"), scorers=["exact_match"])).run_id
    assert "positions" not in caplog.text
    assert pin(spec(folder("llama"), new_tokens=500, scorers=["exact_match"])).run_id  # positions are computed
    assert "a sequence may have 511 tokens" in caplog.text
    assert "is made for 24 positions: it reads longer ones, but often badly; lower evaluation.max_new" in caplog.text
    assert pin(spec(folder("mamba2"))).run_id


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (
            "gpt2",
            {"new_tokens": 50, "scorers": ["exact_match"]},
            "the evaluation, example .* has a table of 24 positions: lower eval",
        ),
        (
            "gpt2",
            {"method": "gkd", "max_new_tokens": 50},
            "stage 1, example 'word-.*': .* has a table of 24 positions: lower max_length",
        ),
    ],
)
def test_what_a_model_cannot_do_is_refused(kind, settings, message, folder, spec):
    with pytest.raises(InputError, match=message) as caught:
        pin(spec(folder(kind), **settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [{"scorers": ["exact_match"]}, {"method": "gkd"}])
def test_a_model_without_a_key_value_cache_generates_slowly_and_says_so(settings, folder, spec, caplog):
    pin(spec(folder("mamba2"), **settings))
    assert (
        caplog.text.count("generates without a key-value cache: for every new token the whole text is read again") == 1
    )


def test_more_tokens_than_rows_are_refused_by_the_largest_token(folder, spec, tokenizer):
    with pytest.raises(
        InputError,
        match=r"stage 1, example 'word-\d+': .* gives token id \d\d .*, and the model's embedding has 20 rows: call",
    ):
        pin(spec(folder("llama", rows=20)))
