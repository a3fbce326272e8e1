"""Options of methods: those of loss, rollout and recipe, with the names and defaults that specifications rely on."""

import sys

import pytest

from studykit import methods
from studykit.discovery import Room
from studykit.errors import InputError
from studykit.methods import METHODS, MIXING, Recipe, get_method

NAMES = METHODS.names()
_MIXING = {"kd_ratio": 1.0, "temperature": 1.0, "scale_by_t2": False}
_SAMPLING = {"sampling_temperature": 1.0, "top_p": 1.0, "max_new_tokens": 128}
FORMER = {
    "abkd": {**_MIXING, "alpha": 0.2, "beta": 0.7},
    "akl": {**_MIXING, "mu": 0.5},
    "ckd": {
        "partners": 16,
        "top_k": 16,
        "clip": 10.0,
        "teacher_weight": 1.0,
        "label_weight": 1.0,
        "comparison_temperature": 2.0,
        "kd_ratio": 0.5,
    },
    "ctkd": {
        "initial": 2.0,
        "low": 1.0,
        "high": 21.0,
        "temperature_learning_rate": 0.01,
        "scale_by_t2": False,
        "kd_ratio": 1.0,
    },
    "distillm": {
        **_MIXING,
        **_SAMPLING,
        "loss": "skew_reverse_kl",
        "skew": 0.1,
        "threshold": 0.0,
        "rise": 0.1,
        "tolerance": 0.0,
        "checks": 10,
        "capacity": 1000,
    },
    "distillm2": {**_MIXING, **_SAMPLING, "skew": 0.1, "teacher_sampling_temperature": 0.0},
    "dkd": {**_MIXING, "alpha": 1.0, "beta": 0.5},
    "gkd": {**_MIXING, **_SAMPLING, "lmbda": 0.5, "beta": 0.5},
    "kd": {**_MIXING, "loss": "forward_kl", "loss_options": None},
    "minillm": {"teacher_share": 0.2, "discount": 1.0, "clip": 0.2, "whiten": True, "max_new_tokens": 128},
    "miniplm": {"reference": None, "share": 0.5, "select": "difference"},
    "on_policy_reverse_kl": {"sampling_temperature": 1.0, "max_new_tokens": 128},
    "r2kd": {
        "pruned": 0.2,
        "prompt_dropout": 0.1,
        "top_k": 32,
        "value_weight": 1.0,
        "rank_weight": 1.0,
        "softness": 1.0,
        "kd_ratio": 0.5,
        "temperature": 2.0,
        "scale_by_t2": False,
    },
    "reverse_kd": _MIXING,
    "seqkd": {"sampling_temperature": 0.0, "top_p": 1.0, "max_new_tokens": 128, "train_on_cut": False},
    "sft": {},
    "skd": {
        **_MIXING,
        "loss": "forward_kl",
        "loss_options": None,
        "top_k": 25,
        "draft_tokens": 5,
        "sampling_temperature": 0.5,
        "top_p": 0.5,
        "teacher_sampling_temperature": 0.2,
        "teacher_top_p": 0.5,
        "max_new_tokens": 128,
    },
    "taid": {**_MIXING, "schedule": "adaptive", "t_start": 0.4, "t_end": 1.0, "alpha": "auto", "beta": 0.99},
    "uld": {"weight": 1.5},
}
"""Options and defaults of the methods when each was a function with a separate list of options."""


def with_reference(name, **options):
    """Return options with the one that a method requires."""
    return ({"reference": "lexicon/reference"} if "reference" in METHODS.options(name) else {}) | options


@pytest.mark.parametrize("name", NAMES)
def test_is_described_in_one_line_with_its_paper(name):
    assert len(METHODS.describe(name)) > 20
    assert "20" in METHODS.source(name)


@pytest.mark.parametrize("name", NAMES)
def test_refuses_an_unknown_option(name):
    with pytest.raises(InputError, match="unknown option 'temprature'"):
        get_method(name, temprature=2.0)


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("kd", {"kd_ratio": 1.5}, "kd_ratio"),
        ("kd", {"temperature": 0.0}, "temperature"),
        ("kd", {"loss": "jsd", "loss_options": {"beta": 3}}, "beta"),
        ("gkd", {"lmbda": -0.1}, "lmbda"),
        ("gkd", {"top_p": 0.0}, "top_p"),
        ("seqkd", {"sampling_temperature": -1.0}, "temperature"),
        ("seqkd", {"max_new_tokens": 0}, "max_new_tokens"),
        ("skd", {"top_k": 0}, "top_k"),
        ("minillm", {"teacher_share": 1.0}, "teacher_share"),
        ("minillm", {"discount": 2.0}, "discount"),
        ("distillm", {"rise": 2.0}, "rise"),
        ("r2kd", {"prompt_dropout": 1.0}, "prompt_dropout"),
        ("ctkd", {"temperature_learning_rate": 0.0}, "learning_rate"),
        ("miniplm", {}, "needs a reference"),
    ],
)
def test_refuses_options_out_of_range(name, options, complaint):
    with pytest.raises(InputError, match=complaint):
        get_method(name, **options)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_type_default_and_documentation(name):
    for option, about in METHODS.options(name).items():
        assert about.description, option
        assert about.type_name not in ("", "Any"), option
        get_method(name, **with_reference(name, **({} if option == "reference" else {option: about.default})))


@pytest.mark.parametrize(("name", "defaults"), FORMER.items(), ids=FORMER)
def test_former_options_have_the_names_and_defaults_they_had(name, defaults):
    found = METHODS.options(name)
    assert {option: found[option].default for option in defaults} == defaults


@pytest.mark.parametrize("name", NAMES)
def test_defaults_given_explicitly_are_the_recipe_itself(name):
    given = {option: about.default for option, about in METHODS.options(name).items()}
    one, other = get_method(name, **with_reference(name)), get_method(name, **given | with_reference(name))
    assert [vars(part).keys() for part in one.parts] == [vars(part).keys() for part in other.parts]
    fields = ("loss", "rollout", *MIXING, "select", "keep_fraction", "reference", "teacher_pruned")
    assert [getattr(one, field) for field in fields] == [getattr(other, field) for field in fields]


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_rollout_agree_on_the_default_of_an_option_that_both_have(name):
    defaults = {}
    for part, inner, option in METHODS.member(name)._targets:
        assert defaults.setdefault(option.name, option.default) == option.default, (part, inner)


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS.options(name)])
def test_a_value_of_another_type_is_refused_by_name(name):
    for option in METHODS.options(name):
        with pytest.raises(InputError, match=f"method '{name}': {option} must be"):
            get_method(name, **with_reference(name) | {option: {1, 2}})


def test_a_renamed_option_reaches_its_target():
    assert get_method("ckd", comparison_temperature=3.0).parts[0].temperature == 3.0  # type: ignore[attr-defined]
    assert get_method("ctkd", temperature_learning_rate=0.5).parts[0].learning_rate == 0.5
    assert get_method("r2kd", pruned=0.3).teacher_pruned == 0.3
    assert get_method("miniplm", reference="a", share=0.25).keep_fraction == 0.25


def test_an_option_that_loss_and_rollout_have_is_given_to_both():
    loss, rollout = get_method("minillm", teacher_share=0.4).parts
    assert (loss.teacher_share, rollout.teacher_share) == (0.4, 0.4)  # type: ignore[attr-defined]


def test_hidden_options_cannot_be_set():
    for name, option in (("minillm", "one_step"), ("on_policy_reverse_kl", "discount"), ("ckd", "temperature")):
        with pytest.raises(InputError, match=f"unknown option '{option}'"):
            get_method(name, **{option: 1})


def test_another_loss_brings_its_options():
    assert get_method("distillm", loss="jsd", beta=0.1).loss_options == {"beta": 0.1}
    with pytest.raises(InputError, match="unknown option 'skew'"):
        get_method("distillm", loss="jsd", skew=0.1)
    with pytest.raises(InputError, match="unknown loss 'jds'; did you mean 'jsd'"):
        get_method("kd", loss="jds")


def test_without_dropout_r2kd_trains_on_the_data():
    assert [get_method("r2kd", prompt_dropout=p).needs_live_teacher for p in (0.0, 0.1)] == [False, True]


def test_a_sampler_without_a_reference_needs_none():
    assert get_method("miniplm", select="uniform").reference is None


def test_loss_and_rollout_are_made_once_for_their_flags(monkeypatch):
    recipe, made = get_method("gkd", beta=0.1), []
    monkeypatch.setattr(methods, "get_loss", lambda *args, **options: made.append(args))
    assert [recipe.needs_teacher, recipe.needs_live_teacher, recipe.across_tokenizers] == [True, True, False]
    assert made == []
    assert get_method("gkd") is get_method("gkd")


FILE = '''"""Another divergence.

Source: Author (2026), A Title.
"""

from studykit.methods import Recipe

mine = Recipe(loss="jsd", rollout="student", kd_ratio=0.5, rollout_options={"max_new_tokens": 7})
'''


def test_a_method_is_one_file(tmp_path, monkeypatch):
    folder = tmp_path / "made_up_methods"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "mine.py").write_text(FILE)
    monkeypatch.syspath_prepend(str(tmp_path))
    room = Room("made_up_methods", kind="method")
    monkeypatch.setattr(methods, "METHODS", room)
    assert (room.names(), room.describe("mine"), room.source("mine")) == (
        ["mine"],
        "Another divergence.",
        "Author (2026), A Title.",
    )
    recipe = get_method("mine", beta=0.1, sampling_temperature=0.5)
    assert isinstance(recipe, Recipe)
    assert recipe.loss_options == {"beta": 0.1}
    assert recipe.rollout_options == {"max_new_tokens": 7, "temperature": 0.5}
    assert room.options("mine")["kd_ratio"].default == 0.5
    with pytest.raises(InputError, match="beta must"):
        get_method("mine", beta=2.0)
    del sys.modules["made_up_methods.mine"], sys.modules["made_up_methods"]


def test_an_option_called_name_is_unknown_like_any_other():
    with pytest.raises(InputError, match="method 'kd': unknown option 'name'"):
        get_method("kd", **{"name": "sft"})
