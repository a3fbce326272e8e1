"""Every fast path of the head against the plain one: blocks, memory budget, low precision, compiled kernels."""

import shutil

import pytest
import torch
from one_loss import loss_and_sums
from torch import Tensor

from studykit import head
from studykit.head import block
from studykit.losses import LOSSES, Loss, get_loss
from studykit.teacher import TeacherSignal

N, V, H = 23, 64, 8
SETTINGS = [
    {},
    {"kd_ratio": 0.3, "temperature": 2.0, "scale_by_t2": True},
    {"logit_scale": 0.5, "softcap": 3.0, "kd_ratio": 0.6},
    {"vocab_size": V - 7, "temperature": 0.5},
]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def signal(kind: str) -> TeacherSignal:
    logits = normal(N, V, seed=5) * 2
    top, ids = logits[:, : V - 7].log_softmax(-1).topk(6)
    if kind == "top_k":
        return TeacherSignal.from_top_k(ids, top)
    if kind == "samples":
        counts = torch.arange(6).expand(N, 6).flip(1)  # the last place of each row is unused
        return TeacherSignal.from_samples(ids, counts)
    return TeacherSignal.from_logits(logits)


def everything(loss: Loss, kind: str = "dense", dtype: torch.dtype = torch.float64, **options) -> list[Tensor]:
    """Return value, gradients and sums."""
    hidden, weight, bias = [
        normal(*shape, seed=i, dtype=dtype).requires_grad_() for i, shape in enumerate(((N, H), (V, H), (V,)))
    ]
    target = torch.randint(V - 7, (N,), generator=torch.Generator().manual_seed(9))
    about = {"sequence": torch.arange(N) // 4, "author": torch.arange(N) % 3}
    teacher = signal(kind) if loss.needs_teacher else None
    value, sums = loss_and_sums(
        (hidden, weight, bias), teacher, target, loss, torch.tensor(7), progress=0.5, **about, **options
    )
    gradients = torch.autograd.grad(value * 1.5, (hidden, weight, bias))
    return [value.detach(), *gradients, *(sums[name] for name in sorted(sums))]


def assert_same(actual: list[Tensor], expected: list[Tensor], rtol: float = 1e-10, atol: float = 1e-12) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)


@pytest.mark.parametrize("kind", ["dense", "top_k", "samples"])
@pytest.mark.parametrize("name", [name for name in LOSSES.names() if not get_loss(name).couples_rows])
def test_blocks_within_a_chunk_change_nothing(name, kind, monkeypatch):
    expected = everything(get_loss(name), kind)
    monkeypatch.setitem(head.BLOCK_BYTES, "cpu", 4 * V * 5)
    for chunk in (None, 11):
        # A learned parameter is float32, and so is its share of the sum.
        rounding = {"rtol": 1e-6, "atol": 1e-9} if get_loss(name).parameters() else {}
        assert_same(everything(get_loss(name), kind, size=chunk), expected, **rounding)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", ["dense", "top_k", "samples"])
@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd", "taid", "contrastive_skew"])
def test_a_closed_form_equals_autograd_through_the_whole_head(name, kind, settings):
    closed = everything(get_loss(name), kind, **settings)
    plain = get_loss(name)
    plain.closed_form = False
    assert_same(closed, everything(plain, kind, **settings), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["dense", "top_k", "samples"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_way_back_from_categories_equals_autograd(kind, temperature):
    logits = normal(N, V, seed=8).requires_grad_()
    target = torch.zeros(N, dtype=torch.long)
    student_logp, *_ = signal(kind).inputs(slice(3, 9), logits[3:9], target[3:9], temperature)
    above = normal(*student_logp.shape, seed=3)
    (expected,) = torch.autograd.grad((student_logp * above).sum(), logits)
    here = signal(kind).at(slice(3, 9), V)
    rows = logits.detach()[3:9]
    compared = here.compare(slice(None), rows, rows.log_softmax(-1), target[3:9], temperature)
    torch.testing.assert_close(compared.vjp(above), expected[3:9], rtol=1e-10, atol=1e-12)


def test_what_is_kept_of_all_tokens_gets_the_dense_gradient():
    top, ids = (normal(N, V, seed=5) * 2).log_softmax(-1).topk(V)
    logits, target = normal(N, V, seed=8), torch.zeros(N, dtype=torch.long)
    gradients = []
    for made in (TeacherSignal.from_top_k(ids, top), signal("dense")):
        here = made.at(slice(None), V)
        compared = here.compare(slice(None), logits, logits.log_softmax(-1), target, 1.0)
        gradients.append(compared.vjp(-compared.teacher_logp.exp()))
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-7)  # what is kept is float32


def test_what_cannot_be_compiled_is_computed_as_it_is_and_said_once(monkeypatch):
    from torch._dynamo.exc import BackendCompilerFailed

    def broken(*inputs):
        raise BackendCompilerFailed("inductor", RuntimeError("no compiler"), None)

    monkeypatch.setattr(torch, "compile", lambda *work, **options: broken)
    block.compiled_block.cache_clear()
    try:
        expected = everything(get_loss("forward_kl"), fused=False)
        with pytest.warns(UserWarning, match="the head is not compiled"):
            assert_same(everything(get_loss("forward_kl"), fused=True), expected)
        assert_same(everything(get_loss("forward_kl"), fused=True), expected)  # a warning would be an error here
    finally:
        block.compiled_block.cache_clear()


def test_where_no_gradient_is_taken_none_is_computed(monkeypatch):
    asked = []
    plain = head.run_block
    monkeypatch.setattr(head, "run_block", lambda *inputs: asked.append(inputs[-2]) or plain(*inputs))
    hidden, weight = normal(N, H).requires_grad_(), normal(V, H, seed=1).requires_grad_()
    inputs = (hidden, weight, None), None, torch.arange(N), get_loss("cross_entropy"), 1
    value, _ = loss_and_sums(*inputs)
    with torch.no_grad():
        same, _ = loss_and_sums(*inputs)
    assert asked == [True, False]
    assert same == value.detach()
    assert not same.requires_grad


def test_a_chunk_keeps_to_its_memory():
    seen = []

    class Watched(type(get_loss("forward_kl"))):
        def value_and_grad(self, x):
            seen.append(len(x.target))
            return super().value_and_grad(x)

    loss = get_loss("forward_kl")
    loss.__class__ = Watched
    everything(loss, target_bytes=2 * 8 * V * 10)  # two sides of float64 at ten positions
    assert seen == [8, 8, 7]  # at most ten, and no small rest


def test_autocast_computes_the_products_in_its_dtype_and_the_loss_in_float32():
    exact = everything(get_loss("jsd"), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = everything(get_loss("jsd"), dtype=torch.float32)
    assert [t.dtype for t in low] == [t.dtype for t in exact]
    assert_same(low[:4], exact[:4], rtol=0.1, atol=0.02)
    assert (low[1] - exact[1]).abs().max() > 1e-6
    bare = [part.bfloat16().float() for part in exact[1:2]]
    assert not torch.equal(low[1], bare[0])


def test_half_precision_does_not_lose_small_derivatives():
    parts = [normal(N, H, dtype=torch.float16), normal(V, H, seed=1, dtype=torch.float16)]
    hidden, weight = (part.requires_grad_() for part in parts)
    target = torch.zeros(N, dtype=torch.long)
    tiny = 1e-7  # of float16 nothing smaller than 6e-8 is left
    value, _ = loss_and_sums((hidden, weight, None), None, target, get_loss("cross_entropy"), 1 / tiny)
    (value * 2**16).backward()  # as a loss scale does
    exact = torch.nn.functional.cross_entropy(parts[0].double() @ parts[1].double().T, target, reduction="sum")
    assert value.item() == pytest.approx(exact.item() * tiny, rel=1e-2)
    assert hidden.grad is not None
    assert (hidden.grad != 0).float().mean() > 0.9


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.filterwarnings("ignore")
def test_compiled_blocks_equal_plain_ones_and_are_compiled_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # kernels kept by runs on other threads may not fit
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # here, not in as many processes as cores
    monkeypatch.setattr("torch._inductor.config.cpp.vec_isa_ok", True)  # else a process imports torch to try each set
    monkeypatch.setattr("torch._inductor.config.cpp_cache_precompile_headers", False)  # dear for a few kernels
    counters = torch._dynamo.utils.counters
    counters.clear()
    for kind in ("dense", "top_k"):
        settings = {"kd_ratio": 0.5, "temperature": 2.0, "dtype": torch.float32}
        expected = everything(get_loss("forward_kl"), kind, **settings)
        assert_same(everything(get_loss("forward_kl"), kind, fused=True, **settings), expected, rtol=1e-4, atol=1e-6)
    assert counters["stats"]["unique_graphs"] >= 2
    assert not counters["graph_break"]
