"""A dozen architectures, the short form of `python -m tools.architectures`: each against plain forward passes."""

import json

import pytest
import torch

from studykit.errors import InputError
from tools import architectures, families, small_models, trials
from tools.models_page import CAPABILITIES, format_page, is_right

TYPES = (
    "bart",  # positions by column, which padding on the left shifts
    "bloom",  # linear biases on attention
    "cohere",  # scaled logits
    "deepseek_v3",  # latent attention, experts
    "falcon_h1",  # a recurrent state beside attention, a factor on everything
    "gemma3_text",  # a short window in some layers
    "gpt2",  # learned positions
    "gpt_oss",  # attention sinks, experts
    "minicpm3",  # scales hidden states
    "mpt",
    "opt",  # positions with an offset
    "phi3",
    "qwen3",
    "rwkv",  # no attention, no mask
    "xlstm",  # no attention, no key-value cache
)
PARTS = ("logits", "saving", "padding", "gradients", "generation")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", TYPES)
def test_an_architecture_is_right_in_all_its_parts(model_type, tmp_path, one_thread):
    subject = trials.Subject.make(model_type, tmp_path)
    subject.load()
    for part in PARTS:
        trials.TRIALS[part](subject)


def test_a_wrong_part_is_seen(tmp_path, one_thread):
    subject = trials.Subject.make("llama", tmp_path)
    subject.load()
    with torch.no_grad():
        subject.loaded.model.layers[1].mlp.down_proj.weight.mul_(1.1)
    with pytest.raises(AssertionError, match="differ by"):
        trials.TRIALS["saving"](subject)
    with pytest.raises(AssertionError, match="prefer other tokens"):
        trials.TRIALS["generation"](subject)


def test_outcomes_are_right_refused_or_wrong(tmp_path, monkeypatch):
    def outcome_of(raised):
        def trial(subject):
            if raised is not None:
                raise raised

        monkeypatch.setattr(trials, "TRIALS", {"part": trial})
        *_, last = architectures.outcomes_of("llama", tmp_path)
        return last["part"]

    assert outcome_of(None) == "right"
    assert outcome_of(InputError(f"{tmp_path}/student: no")) == "refused: /student: no"
    assert outcome_of(RuntimeError("shapes")) == "wrong: RuntimeError: shapes"


def test_every_model_type_of_transformers_is_in_the_results():
    found = json.loads(architectures.RESULTS.read_text(encoding="utf-8"))["types"]
    assert sorted(found) == small_models.model_types()
    assert sum(is_right(outcomes) for outcomes in found.values()) > 130


def test_the_page_says_what_was_found(tmp_path):
    right = dict.fromkeys(CAPABILITIES, "right")
    types = {
        "llama": right,
        "odd": {"loading": "refused: odd logits"},
        "half": right | {"gkd": "refused: no gkd"},
        "big": {"not made": "needs timm"},
    }
    (tmp_path / "transformers.json").write_text(json.dumps({"versions": {}, "types": types}), encoding="utf-8")
    template = {"end": "<|im_end|>", "mask": "same", "turns": "yes", "system": "refused: no system"}
    content = {"versions": {}, "families": {"Qwen 2.5": template}}
    (tmp_path / "templates.json").write_text(json.dumps(content), encoding="utf-8")
    page = format_page(tmp_path)
    assert "Of 4 causal model types, 1 do all of it right" in page
    assert "| `odd` | odd logits |" in page
    assert "| `half` | gkd | no gkd |" in page
    assert "| `big` | needs timm |" in page
    assert "| Qwen 2.5 | `qwen2` | `<\\|im_end\\|>` | same | yes | refused: no system | not tried" in page
    assert "| Llama 2 | `llama` | no template at hand |  |  |  | right | right | right |" in page


def test_a_template_gives_its_end_and_what_is_trained_on():
    family = next(family for family in families.FAMILIES if family.template == "qwen2_5")
    if families.source_of("qwen2_5") is None:
        pytest.skip("trl is not installed")
    assert families.try_template(family) == {
        "end": "<|endoftext|> <|im_end|>",
        "mask": "same",
        "turns": "yes",
        "system": "yes",
    }
