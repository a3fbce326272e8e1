"""Several sources in every optimizer step, draws that are disjoint, and stages with another teacher than the run."""

import json

import numpy as np
import pytest

from studykit import results, study
from studykit.collate import plan_mixed_batches
from studykit.data import Inputs
from studykit.errors import InputError
from studykit.spec import RunSpec
from studykit.study.pin import pin


@pytest.fixture
def other_file(tmp_path):
    """Write 20 long answers of a model, with the ids of the shared conversations."""
    prompts = ["Pronounce " + " ".join("abcdefghij"[n % 10] * (1 + n)) for n in range(20)]
    answer = "K AE T D AO G R " * 2
    lines = [{"id": f"word-{n}", "prompt": prompt, "completion": answer} for n, prompt in enumerate(prompts)]
    file = tmp_path / "other.jsonl"
    file.write_text("".join(json.dumps(line | {"annotator": "gpt-x"}) + "\n" for line in lines), encoding="utf-8")
    return file


@pytest.fixture
def part(other_file):
    """Make a part of a mixture from that file."""

    def make(weight, examples=16, **changes):
        data = {"source": "jsonl", "options": {"path": str(other_file)}, "budget": {"examples": examples}}
        return {"data": data | changes, "weight": weight}

    return make


def counts_per_step(plan, per_step, first_of_second):
    rows = np.concatenate(plan).reshape(-1, per_step)
    return (rows >= first_of_second).sum(axis=1)


def test_each_step_has_the_shares_and_each_part_its_own_epochs():
    lengths = np.random.default_rng(0).integers(3, 30, size=30)
    plan = plan_mixed_batches(lengths, [(20, 0.7), (10, 0.3)], (2, 4), 50, np.random.default_rng(1))
    assert {len(batch) for batch in plan} == {4}
    seconds = counts_per_step(plan, 8, 20)
    assert set(seconds) <= {2, 3}
    assert seconds.sum() == 120  # 0.3 of 400
    seen = np.bincount(np.concatenate(plan), minlength=30)
    assert np.ptp(seen[:20]) <= 1
    assert set(seen[20:]) == {12}


def test_a_small_share_has_its_turns_too():
    plan = plan_mixed_batches(np.ones(5), [(4, 0.99), (1, 0.01)], (1, 10), 100, np.random.default_rng(0))
    assert counts_per_step(plan, 10, 4).sum() == 10


def test_a_mixture_trains_on_its_parts_and_says_so(plain_spec, stage, part, tmp_path):
    plain = plain_spec(stage(steps=8, mix=[part(0.25)]))
    run = pin(RunSpec.parse(plain), Inputs(tmp_path))
    assert len(run.stages[0].data.examples) == 24 + 16
    row = study.run(plain, study="s", root=tmp_path)
    manifest = json.loads((tmp_path / "s" / "runs" / row["run_id"] / "record.json").read_text())["data"][0]
    assert manifest["trained_on"] == {"gpt-x": 8, "human": 24}
    assert manifest["examples"] == row["budget_examples"] == 40
    first, second = manifest["mix"]
    assert (first["weight"], first["by"], first["sequences"], first["seen_examples"]) == (0.75, "examples", 24, 24)
    assert (second["weight"], second["sequences"], second["epochs"]) == (0.25, 8, 0.5)
    assert results.load(tmp_path)["mix"].notna().all()


def test_shares_of_tokens_are_shares_of_tokens(plain_spec, stage, part, tmp_path):
    plain = plain_spec(stage(steps=400, mix=[part(0.5)], mix_by="tokens"))
    resolved = pin(RunSpec.parse(plain), Inputs(tmp_path)).stages[0]
    rows, tokens = np.concatenate(resolved.plan()), resolved.data.encoded.response_tokens
    of_second = tokens[rows[rows >= 24]].sum() / tokens[rows].sum()
    assert of_second == pytest.approx(0.5, abs=0.01)
    assert (rows >= 24).mean() < 0.35  # its answers are long
    assert resolved.data.manifest["mix"][1]["by"] == "tokens"


def test_a_list_of_all_parts_is_the_same_mixture(plain_spec, stage, part):
    listed = stage(mix=[{"data": stage()["data"], "weight": 0.75}, part(0.25)])
    del listed["data"]
    specs = [RunSpec.parse(plain_spec(one)) for one in (listed, stage(mix=[part(0.25)], mix_by="examples"))]
    assert specs[0].run_id == specs[1].run_id


def test_shares_that_do_not_add_up_are_refused_in_one_line(plain_spec, stage, part):
    with pytest.raises(InputError, match=r"stages\.0: .*sum to 1.2 and leave nothing to data"):
        RunSpec.parse(plain_spec(stage(mix=[part(0.5), part(0.7)])))
    listed = {name: value for name, value in stage(mix=[part(0.5), part(0.3)]).items() if name != "data"}
    with pytest.raises(InputError, match=r"weights of a step sum to 0.8, not to 1"):
        RunSpec.parse(plain_spec(listed))


def test_epochs_of_a_mixture_are_of_all_its_examples(plain_spec, stage, part, tmp_path):
    by_epochs = {name: value for name, value in stage(mix=[part(0.4)], epochs=2).items() if name != "steps"}
    assert pin(RunSpec.parse(plain_spec(by_epochs)), Inputs(tmp_path)).spec.stages[0].steps == 20


def test_a_stage_draws_what_earlier_stages_have_not(plain_spec, stage, tmp_path):
    run = pin(RunSpec.parse(plain_spec(stage(), stage(exclude=[1], data=smaller(stage, 16)))), Inputs(tmp_path))
    first, second = ({example.id for example in one.data.examples} for one in run.stages)
    assert not first & second
    assert run.stages[1].data.manifest["dropped"] == {"exclude": 24}
    with pytest.raises(
        InputError, match=r"17 examples is larger than the pool of 16 .*left out 24 \(exclude 24\) of 40"
    ):
        pin(RunSpec.parse(plain_spec(stage(), stage(exclude=[1], data=smaller(stage, 17)))), Inputs(tmp_path))


def smaller(stage, examples):
    return stage()["data"] | {"budget": {"examples": examples}}


def test_single_examples_are_excluded_by_id(plain_spec, stage, tmp_path):
    run = pin(RunSpec.parse(plain_spec(stage(exclude=["word-3", "word-7"]))), Inputs(tmp_path))
    assert not {"word-3", "word-7"} & {example.id for example in run.stages[0].data.examples}
    assert run.stages[0].data.manifest["pool_examples"] == 38


@pytest.mark.parametrize(("number", "which"), [(1, "one of 1 to 1"), (0, "none")])
def test_only_earlier_stages_can_be_excluded(number, which, plain_spec, stage, tmp_path):
    stages = [stage(), stage()]
    stages[number] = stage(exclude=[2])
    with pytest.raises(
        InputError, match=f"stage {number + 1}: exclude: 2 is not the number of an earlier stage.*{which}"
    ):
        pin(RunSpec.parse(plain_spec(*stages)), Inputs(tmp_path))


def test_a_stage_may_name_its_own_teacher(plain_spec, stage, tmp_path):
    own = {"name": "lexicon/teacher-a", "top_k": 8}
    plain = plain_spec(stage("kd"), stage("kd", teacher=own))
    run = pin(RunSpec.parse(plain), Inputs(tmp_path))
    assert run.spec.stages[1].teacher
    assert run.spec.teacher
    assert run.spec.stages[1].teacher.sha256 != run.spec.teacher.sha256
    assert [teacher and teacher[0].name for one in run.stages for teacher in [run.teacher_of(one)]] == [
        plain["teacher"]["name"],
        own["name"],
    ]
    row = study.run(plain, root=tmp_path)
    assert row["cached_positions"] > 0  # of the second stage
    record = results.read_record(results.find_run(tmp_path, row["run_id"]))
    assert record is not None
    assert record.teacher_is_folded
    same = plain_spec(stage("kd"), stage("kd"))
    assert study.run(same, root=tmp_path)["run_id"] != row["run_id"]


def test_a_teacher_of_a_stage_that_needs_none_is_no_part_of_the_run(plain_spec, stage, tmp_path):
    specs = [
        plain_spec(stage("sft", **changes), teacher=False)
        for changes in ({}, {"teacher": {"name": "lexicon/teacher-a"}})
    ]
    assert len({pin(RunSpec.parse(plain), Inputs(tmp_path)).run_id for plain in specs}) == 1
    alone = plain_spec(stage("kd", teacher={"name": "lexicon/teacher-a"}), teacher=False)
    assert pin(RunSpec.parse(alone), Inputs(tmp_path)).spec.teacher is None
