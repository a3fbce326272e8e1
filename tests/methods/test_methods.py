"""Every method found by discovery learns, learns the same again, and gets the kind of teacher and data it needs."""

from functools import cache

import pytest
import torch
from safetensors.torch import load_file

from studykit import results, study
from studykit.data import Inputs
from studykit.errors import InputError
from studykit.methods import METHODS, get_method
from studykit.models.loading import load_teacher
from studykit.spec import RunSpec
from studykit.study.pin import pin

NAMES = METHODS.names()
NEEDED = {
    *("sft", "seqkd", "kd", "reverse_kd", "gkd", "on_policy_reverse_kl", "minillm", "distillm", "distillm2"),
    *("taid", "akl", "abkd", "dkd", "ctkd", "skd", "miniplm", "r2kd", "ckd", "uld"),
}
PARTS = {name: METHODS.member(name).parts for name in NAMES}  # loss and rollout
GENERATES = [name for name in NAMES if "max_new_tokens" in METHODS.options(name)]
FIXED_ROWS = [name for name in NAMES if name not in GENERATES]
LEARNS, GENERATES_IN = (16, 12), (4, 8)  # steps and sequences in each: until a loss goes down, and to generate at all
ALWAYS_GENERATES = [name for name in GENERATES if not PARTS[name][1].needs_validation]  # or only where validation calls


@pytest.fixture(scope="module")
def spec_of(plain_spec, stage, data_file, teacher_folder):
    """Make the specification of one short stage of a method, with all that the method requires."""

    def make(name, teacher_changes=None, **options):
        chosen = {"max_new_tokens": 6, "train_on_cut": True, "reference": "lexicon/reference"}
        options = {option: value for option, value in chosen.items() if option in METHODS.options(name)} | options
        held_out = {"source": "jsonl", "options": {"path": str(data_file)}, "budget": {"examples": 8, "seed": 1}}
        steps, batch_size = LEARNS if name in FIXED_ROWS else GENERATES_IN
        one = stage(method=name, method_options=options, validation=held_out, steps=steps, batch_size=batch_size)
        return plain_spec(one) | {"teacher": {"name": str(teacher_folder)} | (teacher_changes or {})}

    return make


def trained(spec, root):
    """Return the row of a run, its weights and its curve."""
    run = study.run(spec, study="methods", root=root)
    folder = results.find_run(root, run["run_id"])
    return run, load_file(folder / "model" / "model.safetensors"), results.read_metrics(folder)[0]


@pytest.fixture(scope="module")
def first_run(spec_of, tmp_path_factory):
    """Train a method with its defaults once for all tests that look at it."""

    @cache
    def run(name):
        return trained(spec_of(name), tmp_path_factory.mktemp(name))

    return run


def test_all_methods_of_the_study_and_its_relatives_are_there():
    assert set(NAMES) >= NEEDED


@pytest.mark.parametrize("name", NAMES)
def test_gives_the_same_weights_again(name, first_run, tmp_path, spec_of):
    first, again = first_run(name), trained(spec_of(name), tmp_path)
    assert first[0]["status"] == "done"
    assert all(first[1][tensor].equal(again[1][tensor]) for tensor in first[1])
    assert first[0].get("generated_tokens") == again[0].get("generated_tokens")


@pytest.mark.parametrize("name", FIXED_ROWS)
def test_on_fixed_data_it_lowers_its_own_loss(name, first_run):
    _, _, curve = first_run(name)
    column = "kd_loss" if PARTS[name][0].needs_teacher else "ce_loss"
    assert curve[column].iloc[-3:].mean() < curve[column].iloc[:3].mean()


@pytest.mark.parametrize("name", ALWAYS_GENERATES)
def test_a_method_that_generates_counts_its_tokens(name, first_run):
    run, _, curve = first_run(name)
    assert run["generated_tokens"] > 0
    assert (run.get("scored_tokens") or 0) > 0 or not PARTS[name][1].needs_teacher
    assert curve["ended"].dropna().between(0, 1).all()


def test_the_learned_temperature_moves_from_its_start(tmp_path, spec_of):
    _, _, curve = trained(spec_of("ctkd", initial=2.0, temperature_learning_rate=0.1), tmp_path)
    assert abs(curve["temperature"].iloc[-1] - 2.0) > 0.1


def test_the_walk_of_taid_is_logged(tmp_path, spec_of):
    _, _, curve = trained(spec_of("taid", schedule="linear"), tmp_path)
    assert curve["taid_t"].iloc[0] == pytest.approx(0.4 + 0.6 / LEARNS[0])
    assert curve["taid_t"].iloc[-1] == pytest.approx(1.0)
    assert curve["taid_t"].is_monotonic_increasing


@pytest.mark.parametrize("options", [{"schedule": "linear"}, {"schedule": "fixed"}])
def test_schedules_of_taid_are_other_methods(options, tmp_path, spec_of):
    adaptive, other = (trained(spec_of("taid", **o), tmp_path)[1] for o in ({"alpha": 0.9, "beta": 0.5}, options))
    assert not all(adaptive[tensor].equal(other[tensor]) for tensor in adaptive)


def test_r2kd_prunes_its_teacher_and_says_so_in_its_specification(tmp_path, spec_of):
    asked, other = (pin(RunSpec.parse(spec_of("r2kd", **o)), Inputs(tmp_path)) for o in ({}, {"pruned": 0.3}))
    assert asked.teacher is not None
    assert asked.spec.teacher is not None
    assert asked.spec.teacher.pruned == 0.2
    assert asked.run_id != other.run_id
    weights = load_teacher(asked.teacher, asked.spec.teacher).state_dict()["model.layers.0.mlp.up_proj.weight"]
    assert (weights == 0).float().mean().item() == pytest.approx(0.2, abs=0.005)
    whole = load_teacher(asked.teacher).state_dict()
    assert (whole["model.layers.0.mlp.up_proj.weight"] == 0).sum() == 0


def test_more_examples_give_ckd_more_pairs():
    counts = [get_method("ckd", partners=None).make_parts()[0].pair_count(n) for n in (2, 20, 200)]  # type: ignore[attr-defined]
    assert counts == [n * (n - 1) for n in (2, 20, 200)]


def test_sft_drops_the_teacher_so_that_it_is_one_run_beside_any(tmp_path, plain_spec):
    with_teacher, without = (pin(RunSpec.parse(plain_spec(teacher=t)), Inputs(tmp_path)) for t in (True, False))
    assert with_teacher.run_id == without.run_id


def test_validation_data_that_no_method_looks_at_is_dropped(tmp_path, spec_of):
    looks, looks_not = (pin(RunSpec.parse(spec_of(name)), Inputs(tmp_path)).spec for name in ("distillm", "kd"))
    assert looks.stages[0].validation is not None
    assert looks.stages[0].validation.sha256 is not None
    assert looks_not.stages[0].validation is None


CACHED = [
    ("gkd", {"top_k": 4}, "does not know"),
    ("skd", {"top_k": 4}, "does not know"),
    ("r2kd", {"top_k": 4}, "does not know"),
    ("ckd", {"top_k": 4}, "full distribution"),
    ("uld", {"samples": 4}, "full distribution"),
    ("reverse_kd", {"samples": 4}, "not right on average"),
    ("taid", {"samples": 4}, "not right on average"),
]


@pytest.mark.parametrize(("name", "changes", "complaint"), CACHED, ids=lambda x: str(x))
def test_a_cached_teacher_is_refused_where_it_cannot_answer(name, changes, complaint, tmp_path, spec_of):
    with pytest.raises(InputError, match=complaint):
        pin(RunSpec.parse(spec_of(name, teacher_changes=changes)), Inputs(tmp_path))


def test_a_sampled_teacher_wants_temperature_one(tmp_path, spec_of):
    with pytest.raises(InputError, match="temperature 1"):
        pin(RunSpec.parse(spec_of("kd", teacher_changes={"samples": 4}, temperature=2.0)), Inputs(tmp_path))


@pytest.mark.parametrize(
    ("name", "changes"),
    [("kd", {"samples": 24}), ("kd", {"top_k": 4}), ("seqkd", {"top_k": 4}), ("miniplm", {"top_k": 4})],
)
def test_a_cached_teacher_serves_where_it_can(name, changes, tmp_path, spec_of):
    run, weights, _ = trained(spec_of(name, teacher_changes=changes), tmp_path)
    assert run["status"] == "done"
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_distillm_asks_for_validation_data(tmp_path, spec_of):
    spec = spec_of("distillm")
    spec["stages"][0]["validation"] = None
    with pytest.raises(InputError, match="validation"):
        pin(RunSpec.parse(spec), Inputs(tmp_path))


@pytest.mark.parametrize("name", ["gkd", "seqkd", "skd", "r2kd"])
def test_raw_texts_are_refused_where_prompts_are_needed(name, tmp_path, spec_of):
    spec = spec_of(name)
    text = {"source": "lexicon", "options": {"tasks": ["text"]}, "split": "validation", "budget": {"examples": 20}}
    spec["stages"][0]["data"] = text
    with pytest.raises(InputError, match="raw texts"):
        pin(RunSpec.parse(spec), Inputs(tmp_path))


def test_a_choice_that_models_make_is_part_of_what_a_run_is(tmp_path, spec_of):
    pinned = pin(RunSpec.parse(spec_of("miniplm")), Inputs(tmp_path)).spec
    assert pinned.stages[0].selected_sha256 is not None
    assert pin(pinned, Inputs(tmp_path)).spec == pinned
    stages = (pinned.stages[0].model_copy(update={"selected_sha256": "0" * 64}),)
    with pytest.raises(InputError, match="models select other examples"):
        pin(pinned.model_copy(update={"stages": stages}), Inputs(tmp_path))


@pytest.mark.parametrize(("select", "scored"), [("difference", True), ("reference_nll", False), ("uniform", False)])
def test_tokens_that_the_teacher_scores_for_a_selection_are_counted(select, scored, tmp_path, spec_of):
    run, _, _ = trained(spec_of("miniplm", select=select), tmp_path)
    assert bool(run.get("scored_tokens")) == scored
