"""One optimizer step, exactly: the same as written by hand, in one batch or in several, and as the plain Trainer's."""

import copy
import shutil
from typing import Any

import pytest
import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments

from studykit.collate import collate
from studykit.data import Inputs
from studykit.models.states import hidden_states
from studykit.spec import RunSpec
from studykit.study.pin import pin
from studykit.teacher.live import LiveTeacher
from studykit.training import loop, train

RAGGED = [[0, 6, 13, 3, 20, 5, 7, 1], [2, 9, 12, 33, 21, 15, 8, 6]]
"""Two steps of eight examples whose answers hold 1 to 7 words."""


def in_steps_of(width: int) -> list[torch.Tensor]:
    return [torch.tensor(step[i : i + width]) for step in RAGGED for i in range(0, 8, width)]


def gradients_of_first_step(training) -> dict[str, torch.Tensor]:
    """Return a dictionary that the training fills with the gradients of its first optimizer step."""
    gradients: dict[str, torch.Tensor] = {}

    def record(*arguments):
        if not gradients:
            named = training.context.student.named_parameters()
            gradients.update({name: p.grad.clone() for name, p in named if p.grad is not None})

    training.optimizer.optimizer.register_step_pre_hook(record)
    return gradients


METHODS = {
    "sft": ("sft", {}),
    "kd": ("kd", {"kd_ratio": 0.7, "temperature": 2.0}),
    "taid": ("kd", {"loss": "taid"}),
    "learned temperature": ("kd", {"loss": "curriculum_temperature"}),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("width", [1, 2, 4])
def test_ragged_micro_batches_equal_one_batch(name, width, tiny_model, make_training, take_steps, tokenizer):
    method, options = METHODS[name]
    results = []
    for wide in (8, width):
        model, teacher = tiny_model(seed=3).double(), tiny_model(seed=7, spread=20.0).double().eval()
        training, planned = make_training(
            model,
            in_steps_of(wide),
            method=method,
            options=options,
            teacher=LiveTeacher(teacher, tokenizer, 85) if method == "kd" else None,
            accumulation=8 // wide,
            max_grad_norm=1e9,  # clipping would hide a wrong scale
        )
        gradients = gradients_of_first_step(training)
        losses = [line["loss"] for line in take_steps(training, planned)]
        learned = {f"loss {i}": p.detach() for i, p in enumerate(training.learners[0].loss.parameters())}
        results.append((losses, gradients, {**model.state_dict(), **learned}))
    whole, parts = results
    assert parts[0] == pytest.approx(whole[0], rel=1e-6)  # the log is summed in float32
    assert whole[1].keys() == parts[1].keys()
    for place in (1, 2):
        for key, expected in whole[place].items():
            # Adam divides by gradients that may be small: weights keep fewer digits than gradients do. What a loss
            # learns is float32.
            tolerance = (1e-14, 1e-9)[place - 1] if expected.dtype == torch.float64 else 1e-6
            torch.testing.assert_close(parts[place][key], expected, rtol=max(1e-9, tolerance), atol=tolerance)


def test_micro_batches_are_ragged_enough_to_matter(encoded):
    """A mean of micro-batch means would differ here, so that the test above can fail."""
    counts = [int(encoded.response_tokens[list(map(int, batch))].sum()) for batch in in_steps_of(2)]
    assert max(counts[:4]) > 2 * min(counts[:4])


def test_a_kd_step_equals_one_written_by_hand(tiny_model, make_training, take_steps, encoded, tokenizer):
    model, teacher = tiny_model(seed=3), tiny_model(seed=7, spread=20.0).eval()
    by_hand = copy.deepcopy(model)
    training, planned = make_training(
        model,
        in_steps_of(8)[:1],
        method="kd",
        options={"kd_ratio": 0.25, "temperature": 2.0, "scale_by_t2": True},
        teacher=LiveTeacher(teacher, tokenizer, 85),
        weight_decay=0.1,
        warmup_ratio=0.0,
        max_grad_norm=1e9,
    )
    gradients = gradients_of_first_step(training)
    (line,) = take_steps(training, planned)

    batch = collate(encoded, RAGGED[0], tokenizer.pad_token_id)
    mask = batch.loss_mask[:, 1:]
    with torch.no_grad():
        p = (teacher(batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1][mask] / 2).log_softmax(-1)
    logits = by_hand(batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1][mask]
    ce = torch.nn.functional.cross_entropy(logits, batch.input_ids[:, 1:][mask])
    kl = (p.exp() * (p - (logits / 2).log_softmax(-1))).sum() / len(logits)
    (0.75 * ce + 0.25 * 4 * kl).backward()
    for name, parameter in by_hand.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)
    decayed = [p for name, p in by_hand.named_parameters() if "norm" not in name]
    others = [p for name, p in by_hand.named_parameters() if "norm" in name]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    torch.optim.AdamW(groups, lr=0.01).step()
    # Adam's first step is lr * sign(gradient) nearly: a float32 gradient near its eps (1e-8) may move by 1% of lr.
    for ours, plain in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-4)
    assert line["kd_loss"] == pytest.approx(4 * kl.item(), rel=1e-5)
    assert line["ce_loss"] == pytest.approx(ce.item(), rel=1e-5)


class PlainTrainer(Trainer):
    """The Trainer of transformers with its own cross-entropy, fed with ready batches in order."""

    def _get_train_sampler(self, *arguments, **keywords):
        dataset = self.train_dataset
        assert dataset is not None
        return SequentialSampler(dataset)  # pyright: ignore[reportArgumentType]


def test_sft_equals_the_plain_trainer(tiny_model, make_training, take_steps, encoded, tokenizer, tmp_path):
    ours, plain = tiny_model(seed=3), tiny_model(seed=3)
    generator = torch.Generator().manual_seed(0)
    plan = [torch.randint(len(encoded), (4,), generator=generator) for _ in range(20)]
    lines = take_steps(*make_training(ours, plan, accumulation=2))

    batches = []
    for indices in plan:
        batch = collate(encoded, [int(i) for i in indices], tokenizer.pad_token_id)
        labels = batch.input_ids.masked_fill(~batch.loss_mask, -100)
        batches.append({"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels})
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "plain"),
        max_steps=10,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        learning_rate=0.01,
        lr_scheduler_type="cosine",
        warmup_steps=0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        logging_steps=1,
    )
    ready: Any = batches
    other = PlainTrainer(plain, arguments, train_dataset=ready, data_collator=lambda rows: rows[0])
    other.train()
    losses = [[line["loss"] for line in history if "loss" in line] for history in (lines, other.state.log_history)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for left, right in zip(ours.parameters(), plain.parameters(), strict=True):
        # Ten Adam steps of float32 from sums in another order; the weights moved by up to 0.1.
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4)


def test_gradient_checkpointing_changes_nothing(plain_spec, stage, tmp_path):
    weights = []
    for checkpointing in (False, True):
        spec = RunSpec.parse(plain_spec(stage(gradient_checkpointing=checkpointing)))
        trained = train(pin(spec, Inputs(tmp_path / f"results-{checkpointing}")), tmp_path)
        weights.append(torch.cat([p.detach().flatten() for p in trained.model.parameters()]))
        shutil.rmtree(tmp_path / "checkpoints")
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)


def test_each_stage_checkpoints_activations_as_it_asks(plain_spec, stage, tmp_path, monkeypatch):
    seen = []
    step = loop.train_step

    def record(training, batches):
        seen.append(training.student.is_activation_checkpointing)
        return step(training, batches)

    monkeypatch.setattr(loop, "train_step", record)
    stages = [stage(steps=1, gradient_checkpointing=asked) for asked in (False, True, False)]
    train(pin(RunSpec.parse(plain_spec(*stages)), Inputs(tmp_path / "results")), tmp_path)
    assert seen == [False, True, False]


def test_what_the_loss_learns_moves(tiny_model, make_training, take_steps, tokenizer):
    training, planned = make_training(
        tiny_model(seed=3),
        in_steps_of(2),
        method="kd",
        options={"loss": "curriculum_temperature"},
        teacher=LiveTeacher(tiny_model(seed=7, spread=20.0).eval(), tokenizer, 85),
    )
    before = training.learners[0].loss.temperature
    take_steps(training, planned)
    assert abs(training.learners[0].loss.temperature - before) > 1e-3


def test_a_teacher_gets_no_gradient_and_does_not_move(tiny_model, make_training, take_steps, tokenizer):
    teacher = tiny_model(seed=7).eval()
    before = copy.deepcopy(teacher.state_dict())
    live = LiveTeacher(teacher, tokenizer, 85)
    take_steps(*make_training(tiny_model(seed=3), in_steps_of(4), method="kd", teacher=live))
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    assert not teacher.training


def test_padding_changes_nothing(tiny_model, encoded, tokenizer):
    """Right padding after a short sequence does not reach its hidden states."""
    model = tiny_model(seed=3).eval()
    alone, padded = (collate(encoded, rows, tokenizer.pad_token_id) for rows in ([0], [0, 6]))
    states = [
        batch.predicting(hidden_states(model, batch.input_ids, batch.attention_mask)) for batch in (alone, padded)
    ]
    torch.testing.assert_close(states[0], states[1][: len(states[0])], rtol=1e-5, atol=1e-6)
