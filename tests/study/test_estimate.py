"""What a run will take is known beforehand, and what cannot fit is refused with what would."""

from collections import namedtuple
from copy import deepcopy
from dataclasses import replace

import pytest

from studykit import study
from studykit.data import Inputs
from studykit.errors import InputError
from studykit.spec import RunSpec
from studykit.study import estimate, rates
from studykit.study.estimate import Estimate, Needs, Shared, check_disk, check_fits
from studykit.study.pin import pin
from studykit.study.rates import measure

GIB = 2**30


@pytest.fixture(scope="module")
def shared_plain(plain_spec, stage, data_file):
    evaluation = {"data": {"source": "jsonl", "options": {"path": str(data_file)}}, "items": 6, "max_new_tokens": 4}
    return plain_spec(stage("kd", steps=5), stage("sft", steps=2), top_k=4, evaluation=evaluation)


@pytest.fixture
def plain(shared_plain):
    return deepcopy(shared_plain)


@pytest.fixture(scope="module")
def probed(shared_plain, tmp_path_factory):
    """Measure once, in a cache that nothing was in; return the run, its rates, that cache and the results folder."""
    cache, root = (tmp_path_factory.mktemp(name) for name in ("cache", "results"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDYKIT_CACHE", str(cache))
        run = pin(RunSpec.parse(shared_plain), Inputs(root))
        return run, measure(run), cache, root


@pytest.fixture
def pinned(probed, monkeypatch):
    """Return the pinned run, where its rates are on disk already."""
    run, _, cache, _ = probed
    monkeypatch.setenv("STUDYKIT_CACHE", str(cache))
    return run


@pytest.fixture
def needs(pinned, probed, tmp_path, monkeypatch):
    """Count what the run needs where the few sequences of the probe are not stored."""
    monkeypatch.setenv("STUDYKIT_CACHE", str(tmp_path / "untouched"))
    return Needs.of(pinned, probed[1])


def test_tokens_cache_and_weights_are_those_of_the_run(plain, pinned, needs, tmp_path):
    guess = needs.estimate(Shared())
    row = study.run(plain, study="s", root=tmp_path)
    assert guess.student_tokens == row["student_tokens"] + row["padding_tokens"]
    assert guess.teacher_tokens == row["teacher_tokens"] > 0
    assert guess.cached_tokens == 0
    weights = tmp_path / "s" / "runs" / row["run_id"] / "model" / "model.safetensors"
    assert guess.weights_bytes == pytest.approx(weights.stat().st_size, rel=0.1)
    stored = sum(file.stat().st_size for file in (tmp_path / "untouched" / "teacher").rglob("*.safetensors"))
    assert 0 < guess.cache_bytes < stored < 4 * guess.cache_bytes  # short sequences: most of the file is its index
    again = Needs.of(pinned, needs.rates).estimate(Shared())
    assert (again.teacher_tokens, again.cache_bytes, again.cached_tokens) == (0, 0, guess.teacher_tokens)


def test_it_takes_time_and_memory_of_which_nothing_is_left_out(needs):
    first = needs.estimate(Shared())
    stages = tuple(replace(stage, token_s=stage.token_s + 0.5) for stage in needs.rates.stages)
    slower = replace(needs, rates=replace(needs.rates, stages=stages)).estimate(Shared())
    assert slower.seconds == pytest.approx(first.seconds + 0.5 * first.student_tokens)
    evaluations = tuple(replace(rate, item_s=rate.item_s + 5.0) for rate in needs.rates.evaluations)
    scoring = replace(needs, rates=replace(needs.rates, evaluations=evaluations)).estimate(Shared())
    assert scoring.seconds == pytest.approx(first.seconds + 6 * 5.0)
    assert first.memory_bytes >= needs.rates.static_bytes > 0  # a step may fit into what the process has anyway


def test_runs_of_a_batch_share_what_a_teacher_computes(needs):
    shared = Shared()
    first, second = needs.estimate(shared), needs.estimate(shared)
    assert first.teacher_tokens > second.teacher_tokens == 0
    assert second.cached_tokens == first.teacher_tokens + first.cached_tokens
    assert second.seconds < first.seconds
    both = first + second
    assert both.student_tokens == 2 * first.student_tokens
    assert both.memory_bytes == first.memory_bytes


def test_a_live_teacher_reads_what_the_student_reads(plain, tmp_path, empty_cache):
    live = plain | {"teacher": {"name": plain["teacher"]["name"]}}
    run = pin(RunSpec.parse(live), Inputs(tmp_path))
    guess = Needs.of(run, measure(run)).estimate(Shared())
    row = study.run(live, root=tmp_path)
    assert guess.teacher_tokens == row["teacher_tokens"] + row["teacher_padding_tokens"]
    assert guess.cache_bytes == 0


def test_of_a_mixed_step_the_teacher_reads_the_parts_that_are_compared_with_it(
    plain_spec, stage, tmp_path, empty_cache
):
    data = stage()["data"]
    mix = [{"data": data | {"budget": {"examples": 20, "seed": 1}}, "weight": 0.25, "method": "kd"}]
    plain = plain_spec(stage(mix=mix, batch_size=8))
    run = pin(RunSpec.parse(plain), Inputs(tmp_path))
    guess, row = Needs.of(run, measure(run)).estimate(Shared()), study.run(plain, root=tmp_path)
    assert guess.teacher_tokens == row["teacher_tokens"] + row["teacher_padding_tokens"]
    assert 0 < guess.teacher_tokens < guess.student_tokens / 2
    assert guess.student_tokens == row["student_tokens"] + row["padding_tokens"]


def test_scores_during_training_take_time_too(plain_spec, stage, tmp_path, empty_cache):
    validation = stage()["data"] | {"budget": {"examples": 5, "seed": 1}}
    best = {"validation": validation, "load_best_model_at_end": True, "eval_steps": 2}
    stages = stage(steps=5, **best), stage(steps=4, metric_for_best_model="exact_match", **best), stage("sft", steps=2)
    run = pin(RunSpec.parse(plain_spec(*stages)), Inputs(tmp_path))
    needs = Needs.of(run, measure(run))
    assert needs.validated == (3 * 5, 2 * 5, 0)  # after steps 2, 4 and 5; after 2 and 4
    loss, exact_match, none = needs.rates.stages
    assert min(loss.validation_item_s, exact_match.validation_item_s) > none.validation_item_s == 0
    slower = replace(loss, validation_item_s=loss.validation_item_s + 2)
    rated = replace(needs, rates=replace(needs.rates, stages=(slower, exact_match, none)))
    assert rated.estimate(Shared()).seconds == pytest.approx(needs.estimate(Shared()).seconds + 15 * 2)
    adaptive = plain_spec(stage("distillm", steps=7, validation=validation, method_options={"checks": 3}))
    run = pin(RunSpec.parse(adaptive), Inputs(tmp_path))
    assert Needs.of(run, replace(needs.rates, captures=(None,))).validated == (3 * 5,)


def test_every_stage_asks_its_own_teacher(plain_spec, stage, teacher_folder, tmp_path, empty_cache, monkeypatch):
    own = {"name": "lexicon/base-small"}
    stages = [stage("kd", steps=2), stage("kd", steps=3, teacher=own | {"top_k": 4}), stage("kd", steps=1, teacher=own)]
    plain = plain_spec(*stages, top_k=4)
    run = pin(RunSpec.parse(plain), Inputs(tmp_path))
    measured = measure(run)
    monkeypatch.setenv("STUDYKIT_CACHE", str(tmp_path / "untouched"))
    needs = Needs.of(run, measured)
    cached = [len(capture.keys) for capture in needs.captures]
    assert cached == [8, 12]
    assert needs.captures[0].rates.cache_key != needs.captures[1].rates.cache_key
    guess, row = needs.estimate(Shared()), study.run(plain, study="s", root=tmp_path)
    assert 0 <= guess.teacher_tokens - row["teacher_tokens"] <= row["teacher_padding_tokens"]
    assert row["teacher"] == f"{teacher_folder} > lexicon/base-small"
    again = Needs.of(run, measured).estimate(Shared())
    assert guess.teacher_tokens - again.teacher_tokens == again.cached_tokens > 0
    assert guess.seconds > again.seconds


def test_it_is_measured_once_for_all_budgets_and_seeds(plain, pinned, tmp_path, monkeypatch):
    first = measure(pinned)
    monkeypatch.setattr(rates, "train_step", None)
    plain["stages"][0]["data"]["budget"] = {"examples": 30, "seed": 3}
    other = pin(RunSpec.parse(plain | {"seed": 1}), Inputs(tmp_path))
    assert measure(other) == first
    plain["stages"][0]["batch_size"] = 2
    with pytest.raises(TypeError):
        measure(pin(RunSpec.parse(plain), Inputs(tmp_path)))


def test_the_probe_leaves_nothing_in_the_results(probed):
    assert list(probed[3].iterdir()) == []


@pytest.mark.parametrize(
    ("there_gib", "static_gib", "token_gib", "jobs", "setting"),
    [
        (8, 2, 0.1, 1, r"batch_size=\d with gradient_accumulation_steps=\d fits"),
        (1, 2, 0.001, 1, "lora_r=16"),
        (8, 5, 0.0001, 2, "--jobs 1 fits"),
    ],
)
def test_what_does_not_fit_into_memory_is_refused_with_what_would(
    pinned, needs, monkeypatch, there_gib, static_gib, token_gib, jobs, setting
):
    monkeypatch.setattr(estimate, "total_memory_bytes", lambda: there_gib * GIB)
    stages = tuple(replace(stage, token_bytes=token_gib * GIB) for stage in needs.rates.stages)
    needs = replace(needs, rates=replace(needs.rates, static_bytes=static_gib * GIB, evaluations=(), stages=stages))
    needs = replace(needs, items=(), teacher_files=())
    with pytest.raises(InputError, match=setting) as refused:
        check_fits(pinned, needs, needs.estimate(Shared()).memory_bytes, jobs)
    assert f"{there_gib:.1f} GiB are available" in str(refused.value)
    assert "\n" not in str(refused.value)
    check_fits(pinned, needs, 0.5 * GIB, 1)


def test_what_does_not_fit_on_the_disk_is_refused(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda folder: usage(0, 0, 5 * GIB))
    small = Estimate(weights_bytes=3 * GIB, checkpoint_bytes=GIB)
    check_disk(small, tmp_path / "new" / "results")
    with pytest.raises(InputError, match=r"checkpoints 3.0 GiB, and 5.0 GiB are free"):
        check_disk(small, tmp_path, jobs=3)
