"""Parts of a step that are trained by other methods: the loss is the sum of theirs over the tokens of all."""

import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from studykit import results, study
from studykit.collate import PlannedBatches
from studykit.data import Inputs
from studykit.errors import InputError
from studykit.generation.cost import Cost
from studykit.models.loading import load_student, load_teacher
from studykit.spec import RunSpec
from studykit.study.pin import pin
from studykit.training import loop
from studykit.training.stages import open_teacher_of, prepare_teacher
from studykit.training.state import Training

KD = {"method": "kd", "method_options": {"kd_ratio": 1.0, "temperature": 1.0}}


@pytest.fixture
def mixed(plain_spec, stage, data_file, tmp_path):
    """Make the plain data of a run of sft on half of each step, and of another method on the other half."""

    def make(part=KD, method="sft", top_k=None, **changes):
        data = {"source": "jsonl", "options": {"path": str(data_file)}, "budget": {"examples": 16, "seed": 1}}
        mix = [{"data": data, "weight": 0.5} | part]
        return plain_spec(stage(method, mix=mix, **changes), top_k=top_k)

    return make


def resolve(plain, tmp_path):
    return pin(RunSpec.parse(plain), Inputs(tmp_path))


def by_hand(batch, student, teacher):
    """Return the sums of cross-entropy and of the forward KL over the supervised tokens of each row, [B] each."""
    logp, teacher_logp = (
        model(batch.input_ids, batch.attention_mask).logits.log_softmax(-1) for model in (student, teacher)
    )
    mask = batch.loss_mask[:, 1:].double()
    nll = -logp[:, :-1].gather(-1, batch.input_ids[:, 1:, None])[..., 0]
    kl = (teacher_logp.exp() * (teacher_logp - logp)).sum(-1)[:, :-1]
    return (nll * mask).sum(1), (kl * mask).sum(1), mask.sum()


def test_the_loss_is_the_sum_of_both_losses_over_all_tokens(mixed, tmp_path):
    run = resolve(mixed(steps=2), tmp_path)
    stage, tokenizer = run.stages[0], run.student.tokenizer
    student = load_student(run.spec.student, run.student, 0)
    teacher = prepare_teacher(
        open_teacher_of(run, stage, student), stage, stage.usage, Cost(), lambda done, total: None
    )
    training = Training(Accelerator(cpu=True), student, tokenizer, teacher, stage, 0, Cost(student_tokens=0))
    training.student.eval()
    batch = PlannedBatches(stage.data.encoded, stage.plan(), tokenizer.pad_token_id, methods=stage.methods)[0]
    assert sorted(batch.methods) == [0, 0, 1, 1]
    parts = batch.by_method()
    assert [part.method for part in parts] == [0, 1]
    assert [key for part in parts for key in part.keys] == [
        batch.keys[row] for row in np.argsort(batch.methods, kind="stable")
    ]
    assert run.teacher is not None
    nll, kl, tokens = by_hand(batch, student, load_teacher(run.teacher))
    is_kd = torch.tensor(batch.methods) == 1
    expected = (nll[~is_kd].sum() + kl[is_kd].sum()) / tokens
    denominator = loop.count_supervised(training, parts)
    assert denominator == tokens
    loss = torch.stack([loop.compute_loss(training, part, denominator)[0] for part in parts]).sum()
    torch.testing.assert_close(loss, expected.to(loss.dtype))
    assert abs((loss - nll.sum() / tokens).item()) > 0.01


def test_a_cached_teacher_is_captured_on_its_part_alone(mixed, tmp_path, empty_cache):
    plain = mixed(top_k=4, steps=8)
    run = resolve(plain, tmp_path)
    row = study.run(plain, study="s", root=tmp_path)
    stage = run.stages[0]
    seen = stage.captured(stage.usage.rows)
    assert set(seen) == set(stage.usage.rows[stage.usage.rows >= 24])
    assert row["cached_positions"] == stage.data.encoded.take(seen).response_tokens.sum()
    assert row["method"] == "sft + kd"
    record = results.read_record(results.find_run(tmp_path, row["run_id"]))
    assert record is not None
    assert record.teacher_is_folded
    assert sum((record.data[0].trained_on or {}).values()) == 32


@pytest.mark.parametrize("method", ["gkd", "ctkd", "seqkd", "taid"])
def test_other_methods_train_a_part_and_go_on_after_a_kill(method, mixed, tmp_path, monkeypatch):
    options = {"max_new_tokens": 4} if method in ("gkd", "minillm", "seqkd") else {}
    plain = mixed({"method": method, "method_options": options})
    whole = study.run(plain, study="whole", root=tmp_path)
    compute_loss, steps = loop.compute_loss, []

    def failing(training, batch, denominator):
        steps.append(training.step)
        if training.step == 4:
            raise KeyboardInterrupt
        return compute_loss(training, batch, denominator)

    monkeypatch.setattr(loop, "compute_loss", failing)
    monkeypatch.setattr(loop.Pace, "is_due", lambda pace: True)
    with pytest.raises(KeyboardInterrupt):
        study.run(plain, study="killed", root=tmp_path)
    monkeypatch.setattr(loop, "compute_loss", compute_loss)
    study.run(plain, study="killed", root=tmp_path)
    curves = [
        [
            {name: value for name, value in json.loads(line).items() if name != "time_s"}
            for line in (tmp_path / name / "runs" / whole["run_id"] / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "killed")
    ]
    assert curves[0] == curves[1]
    assert len(curves[0]) == 6


def test_a_part_that_names_the_stages_method_is_one_of_it(mixed, tmp_path):
    stage = resolve(mixed({"method": "sft"}), tmp_path).stages[0]
    assert (stage.recipes, stage.methods, stage.spec.label) == ([stage.recipe], None, "sft")
    assert (
        resolve(mixed({}), tmp_path).run_id == resolve(mixed({}), tmp_path).run_id != resolve(mixed(), tmp_path).run_id
    )


def test_what_cannot_be_is_refused_in_one_line(mixed, tmp_path):
    with pytest.raises(InputError, match=r"mix\.0.*method_options are those of the part's own method: give method"):
        RunSpec.parse(mixed({"method_options": {"beta": 0.1}}))
    with pytest.raises(InputError, match=r"method 'kd': unknown option 'betta'"):
        resolve(mixed({"method": "kd", "method_options": {"betta": 0.1}}), tmp_path)
    with pytest.raises(InputError, match=r"method 'gkd': .*which a cached teacher \(top_k=4\) does not know"):
        resolve(mixed({"method": "gkd"}, top_k=4), tmp_path)
    with pytest.raises(InputError, match=r"method kd needs a teacher"):
        resolve(mixed() | {"teacher": None}, tmp_path)
    listed = mixed()
    (first,) = listed["stages"]
    both = [{"data": first.pop("data"), "weight": 0.5, "method": "kd"}, *first["mix"]]
    with pytest.raises(InputError, match=r"stages\.0\.mix: the first part has the stage's method: give it there"):
        RunSpec.parse(listed | {"stages": [first | {"mix": both}]})
