"""The chunked head against the plain computation: logits in full, float64, autograd, no chunk."""

from types import ModuleType

import pytest
import torch
from one_loss import loss_and_sums
from torch import Tensor

from studykit.collate import Batch
from studykit.errors import InputError
from studykit.losses import LOG_FLOOR, LOSSES, FunctionLoss, Loss, LossInputs, get_loss
from studykit.teacher import TeacherSignal

N, V, H = 7, 11, 5
POSITIONS_COUPLED = [name for name in LOSSES.names() if get_loss(name).couples_rows]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def student(seed: int = 1, bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
    parts = normal(N, H, seed=seed), normal(V, H, seed=seed + 1), normal(V, seed=seed + 2) if bias else None
    hidden, weight, offset = (None if part is None else part.requires_grad_() for part in parts)
    assert hidden is not None
    assert weight is not None
    return hidden, weight, offset


def labels(vocab_size: int = V) -> Tensor:
    return torch.randint(vocab_size, (N,), generator=torch.Generator().manual_seed(9))


def capped(logits: Tensor, scale: float, cap: float | None) -> Tensor:
    logits = logits * scale
    return logits if cap is None else cap * torch.tanh(logits / cap)


def plain_loss(
    parts: tuple[Tensor, Tensor, Tensor | None],
    teacher_logits: Tensor,
    target: Tensor,
    loss: Loss,
    kd_ratio: float = 1.0,
    temperature: float = 1.0,
    scale_by_t2: bool = False,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    vocab_size: int = V,
    progress: float = 0.0,
) -> Tensor:
    """Sum over positions, all at once, straight from the definition."""
    hidden, weight, bias = parts
    logits = hidden @ weight.T + (0 if bias is None else bias)
    z = capped(logits[:, :vocab_size], logit_scale, softcap)
    ce = torch.nn.functional.cross_entropy(z, target, reduction="sum")
    if not loss.needs_teacher:
        return ce
    sides = [(side[:, :vocab_size] / temperature).log_softmax(-1) for side in (z, teacher_logits)]
    kd = loss.per_token(LossInputs(sides[0], sides[1].clamp(min=LOG_FLOOR), target, progress)).sum()
    return (1 - kd_ratio) * ce + kd_ratio * kd * (temperature**2 if scale_by_t2 else 1)


def assert_equal_gradients(actual: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    pairs = [torch.autograd.grad(value, inputs, allow_unused=True) for value in (actual, expected)]
    for ours, plain in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 3, N])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", LOSSES.names())
def test_value_and_every_gradient_equal_the_plain_computation(name, bias, chunk):
    parts, target, teacher_logits = student(bias=bias), labels(), normal(N, V, seed=5)
    loss = get_loss(name)
    teacher = TeacherSignal.from_logits(teacher_logits) if loss.needs_teacher else None
    value, _ = loss_and_sums(parts, teacher, target, loss, N, progress=0.5, size=chunk)
    expected = plain_loss(parts, teacher_logits, target, get_loss(name), progress=0.5) / N
    assert_equal_gradients(value, expected, [part for part in parts if part is not None])


SETTINGS = [
    {"kd_ratio": 0.3},
    {"temperature": 2.5},
    {"temperature": 2.5, "scale_by_t2": True, "kd_ratio": 0.6},
    {"logit_scale": 0.25},
    {"softcap": 1.5},
    {"logit_scale": 0.5, "softcap": 2.0, "kd_ratio": 0.5, "temperature": 0.7},
    {"vocab_size": V - 3},
    {"vocab_size": V - 3, "softcap": 1.5, "kd_ratio": 0.5, "temperature": 2.0},
]


@pytest.mark.parametrize("chunk", [1, 3, N])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd"])
def test_settings_equal_the_plain_computation(name, settings, chunk):
    parts, target = student(), labels(settings.get("vocab_size", V))
    teacher_logits, loss = normal(N, V + 5, seed=5), get_loss(name)  # the teacher is padded to another size
    signal = TeacherSignal.from_logits(teacher_logits)
    value, _ = loss_and_sums(parts, signal, target, loss, 3.5, size=chunk, **settings)
    expected = plain_loss(parts, teacher_logits[:, :V], target, loss, **settings) / 3.5
    assert_equal_gradients(value, expected, [part for part in parts if part is not None])


@pytest.mark.parametrize("vocab_size", [V - 3, V])
def test_a_teacher_given_by_hidden_states_equals_its_logits(vocab_size):
    hidden, weight, bias = normal(N, 3, seed=11), normal(V + 5, 3, seed=12), normal(V + 5, seed=13)
    logits = capped(hidden @ weight.T + bias, 0.5, 4.0)
    signals = TeacherSignal.from_hidden(hidden, weight, bias, logit_scale=0.5, softcap=4.0), logits[:, :vocab_size]
    parts, target = student(), labels(vocab_size)
    values = [
        loss_and_sums(parts, signal, target, get_loss("jsd"), N, vocab_size=vocab_size, size=3)[0]
        for signal in (signals[0], TeacherSignal.from_logits(signals[1]))
    ]
    assert_equal_gradients(values[0], values[1], [part for part in parts if part is not None])


def test_rows_past_the_shared_vocabulary_hold_no_mass_and_get_no_gradient():
    hidden, weight, bias = student()
    assert bias is not None
    with torch.no_grad():
        weight[V - 3 :] *= 100
    value, _ = loss_and_sums(
        (hidden, weight, bias), None, labels(V - 3), get_loss("cross_entropy"), N, vocab_size=V - 3
    )
    value.backward()
    for gradient in (weight.grad, bias.grad):
        assert gradient is not None
        assert gradient[V - 3 :].abs().max() == 0
        assert gradient[: V - 3].abs().min() > 0


@pytest.mark.parametrize("name", ["cross_entropy", "forward_kl"])
def test_a_frozen_head_costs_no_weight_gradient_and_changes_no_other(name):
    (hidden, weight, bias), loss = student(), get_loss(name)
    assert bias is not None
    signal = TeacherSignal.from_logits(normal(N, V, seed=5))
    learned, _ = loss_and_sums((hidden, weight, bias), signal, labels(), loss, N, size=3)
    frozen, _ = loss_and_sums((hidden, weight.detach(), bias.detach()), signal, labels(), loss, N, size=3)
    shapes = saved_shapes(frozen)
    assert (V, H) not in shapes
    assert (N, H) in shapes
    expected = torch.autograd.grad(learned, hidden)[0]
    torch.testing.assert_close(torch.autograd.grad(frozen, hidden)[0], expected, rtol=0, atol=0)


def saved_shapes(value: Tensor) -> list[tuple[int, ...]]:
    """List what a value keeps for its backward pass."""
    node, found = value.grad_fn, []
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        found += [tuple(kept.shape) for kept in getattr(node, "saved_tensors", ()) if kept is not None]
        waiting += [following for following, _ in node.next_functions]
    return found


def test_nothing_of_the_size_of_all_logits_is_ever_made():
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            for tensor in made if isinstance(made, (tuple, list)) else (made,):
                if isinstance(tensor, Tensor):
                    largest[0] = max(largest[0], tensor.numel())
            return made

    n, v, h = 64, 500, 4
    hidden, weight = normal(n, h).requires_grad_(), normal(v, h).requires_grad_()
    signal = TeacherSignal.from_hidden(normal(n, 3, seed=4), normal(v, 3, seed=5))
    target = torch.zeros(n, dtype=torch.long)
    with Watch():
        value, _ = loss_and_sums((hidden, weight, None), signal, target, get_loss("jsd"), n, size=4)
        kept = saved_shapes(value)
        value.backward()
    assert sorted(kept) == [(n, h), (v, h)]
    assert 4 * v <= largest[0] < n * v // 4


def test_without_a_supervised_token_the_loss_is_zero_with_a_graph():
    _, weight, bias = student()
    hidden = torch.zeros(0, H, dtype=torch.float64, requires_grad=True)
    value, sums = loss_and_sums(
        (hidden, weight, bias), None, torch.zeros(0, dtype=torch.long), get_loss("cross_entropy"), 5
    )
    value.backward()
    assert value.item() == 0
    assert sums == {}
    assert weight.grad is not None
    assert weight.grad.abs().max() == 0


def test_masked_positions_may_hold_anything():
    torch.manual_seed(0)
    loss_mask = torch.tensor([[False, False, True, True], [True, False, True, False]])
    batch = Batch(torch.randint(V, (2, 4)), torch.ones(2, 4, dtype=torch.long), loss_mask)
    assert batch.target.tolist() == [*batch.input_ids[0, 2:].tolist(), batch.input_ids[1, 2].item()]
    hidden, weight = normal(2, 4, H), normal(V, H, seed=2)
    spoiled = hidden.clone()
    spoiled[0, 0], spoiled[0, 3], spoiled[1, 0], spoiled[1, 2:] = torch.nan, torch.inf, torch.nan, torch.nan
    results = []
    for states in (hidden, spoiled):
        states.requires_grad_()
        value, _ = loss_and_sums(
            (batch.predicting(states), weight, None), None, batch.target, get_loss("cross_entropy"), 3
        )
        results.append((value, torch.autograd.grad(value, states)[0]))
    for clean, other in zip(*results, strict=True):
        torch.testing.assert_close(clean, other, rtol=0, atol=0)
    assert results[0][1][0, 1].abs().max() > 0


def test_bf16_hidden_states_give_a_float32_loss_near_the_exact_one():
    parts, target = student(bias=False), labels()
    hidden, weight = (part.detach().bfloat16().requires_grad_() for part in parts[:2])
    logits = normal(N, V, seed=5)
    value, sums = loss_and_sums(
        (hidden, weight, None), TeacherSignal.from_logits(logits), target, get_loss("forward_kl"), N
    )
    value.backward()
    assert value.dtype == sums["ce_loss"].dtype == torch.float32
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16
    exact = plain_loss(parts, logits, target, get_loss("forward_kl")) / N
    assert value.item() == pytest.approx(exact.item(), rel=0.02)  # bf16 keeps 8 bits


@pytest.mark.parametrize("chunk", [1, N])
def test_a_learned_temperature_receives_its_gradient(chunk):
    parts, target, logits = student(), labels(), normal(N, V, seed=5)
    ours, plain = get_loss("curriculum_temperature"), get_loss("curriculum_temperature")
    value, _ = loss_and_sums(parts, TeacherSignal.from_logits(logits), target, ours, N, progress=0.7, size=chunk)
    value.backward()
    (plain_loss(parts, logits, target, plain, progress=0.7) / N).backward()
    gradients = [loss.parameters()[0].grad for loss in (ours, plain)]
    assert gradients[1] is not None
    assert gradients[1].abs() > 1e-4
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=0)  # the parameter is float32


def test_a_loss_with_state_uses_its_state():
    parts, target, logits = student(), labels(), normal(N, V, seed=5)
    taid = get_loss("taid", schedule="linear", t_start=0.0)
    for t in (0.0, 0.5, 1.0):
        if t:
            taid.step(1.0, t)
        value, _ = loss_and_sums(parts, TeacherSignal.from_logits(logits), target, taid, N, size=3)
        hidden, weight, bias = parts
        assert bias is not None
        z = hidden @ weight.T + bias
        mixed = ((1 - t) * z.detach() + t * logits).softmax(-1)
        expected = -(mixed * z.log_softmax(-1)).sum(-1).mean()
        assert_equal_gradients(value, expected, [hidden, weight, bias])


def test_rows_that_see_each_other_are_not_split():
    assert POSITIONS_COUPLED == ["comparative"]
    parts, target, logits = student(), labels(), normal(N, V, seed=5)
    values = [
        loss_and_sums(parts, TeacherSignal.from_logits(logits), target, get_loss("comparative"), N, size=chunk)[0]
        for chunk in (1, N)
    ]
    torch.testing.assert_close(*values, rtol=0, atol=0)


def test_a_function_whose_file_says_that_rows_are_coupled_is_not_split():
    def centred(x: LossInputs) -> Tensor:
        return (x.student_logp[:, 0] - x.student_logp[:, 0].mean()).square()

    module = ModuleType("centred")
    vars(module).update(centred=centred, COUPLES_ROWS=True, NEEDS_TEACHER=False)
    loss = FunctionLoss(centred, module, {})
    parts, target = student(), labels()
    value, _ = loss_and_sums(parts, None, target, loss, N, size=2)
    assert_equal_gradients(
        value, plain_loss_of_the_student(parts, target, loss) / N, [p for p in parts if p is not None]
    )


def plain_loss_of_the_student(parts, target: Tensor, loss: Loss) -> Tensor:
    hidden, weight, bias = parts
    return loss.per_token(LossInputs((hidden @ weight.T + bias).log_softmax(-1), None, target)).sum()


def test_metrics_are_sums_over_positions():
    parts, target, logits = student(), labels(), normal(N, V, seed=5)
    _, sums = loss_and_sums(
        parts, TeacherSignal.from_logits(logits), target, get_loss("forward_kl"), 99, kd_ratio=0.5, size=3
    )
    hidden, weight, bias = parts
    assert bias is not None
    logp = (hidden @ weight.T + bias).log_softmax(-1)
    assert sums["ce_loss"].item() == pytest.approx(-logp[range(N), target].sum().item())
    assert sums["kd_loss"].item() == pytest.approx(plain_loss(parts, logits, target, get_loss("forward_kl")).item())
    assert sums["entropy"].item() == pytest.approx(-(logp.exp() * logp).sum().item())
    assert sums["correct"].item() == (logp.argmax(-1) == target).sum().item()
    assert sums["tokens"].item() == N


def test_a_teacher_that_is_missing_is_named():
    with pytest.raises(ValueError, match="compares with a teacher"):
        loss_and_sums(student(), None, labels(), get_loss("forward_kl"), N)
    with pytest.raises(InputError, match="did you mean 'forward_kl'"):
        get_loss("forward_k")


@pytest.mark.parametrize("chunk", [1, 3, N])
@pytest.mark.parametrize(("name", "options"), [("contrastive_skew", {}), ("policy_gradient", {"discount": 1.0})])
def test_the_sequence_and_the_origin_of_a_position_stay_with_it_in_every_chunk(name, options, chunk):
    parts, target, logits, loss = student(), labels(), normal(N, V, seed=5), get_loss(name, **options)
    sequence, author = torch.tensor([0, 0, 0, 1, 1, 2, 2]), torch.tensor([0, 2, 1, 2, 2, 1, 0])

    def value(sequence: Tensor | None = None, author: Tensor | None = None) -> Tensor:
        signal = TeacherSignal.from_logits(logits)
        return loss_and_sums(parts, signal, target, loss, N, sequence=sequence, author=author, size=chunk)[0]

    hidden, weight, bias = parts
    assert bias is not None
    sides = [side.log_softmax(-1) for side in (hidden @ weight.T + bias, logits)]
    expected = loss.per_token(LossInputs(sides[0], sides[1], target, sequence=sequence, author=author)).mean()
    assert_equal_gradients(value(sequence, author), expected, [hidden, weight, bias])
    assert (value() - expected).abs() > 1e-4
