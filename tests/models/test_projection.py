"""A head that FSDP has sharded over two processes, against one process that sees all the data."""

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.multiprocessing.spawn import start_processes
from transformers import LlamaConfig, LlamaForCausalLM

from studykit.head import Labels, Objective, head_loss
from studykit.losses import get_loss
from studykit.models.projection import output_head
from studykit.models.states import hidden_states
from studykit.teacher import TeacherSignal

RANKS, ROWS, T, V, H = 2, 4, 6, 51, 16  # 51 rows do not divide evenly
CASES = [  # tied, resharded after the forward pass, the head a separate unit, gradient checkpointing
    (False, True, False, False),
    (True, True, False, True),
    (False, False, False, False),
    (False, True, True, False),
]


def student(tied: bool, checkpointed: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=H,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=V,
        tie_word_embeddings=tied,
    )
    model: Any = LlamaForCausalLM(config).double().train()
    if checkpointed:
        model.activation_checkpointing_enable()
    return model


def loss_of(model: LlamaForCausalLM, rows: slice, ranks: int) -> Tensor:
    """Compute forward KL and cross-entropy over some rows, scaled as the trainer does for data parallelism."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(V, (ROWS, T), generator=generator)[rows]
    teacher = torch.randn(ROWS, T - 1, V, generator=generator, dtype=torch.float64)[rows].flatten(0, 1)
    hidden = hidden_states(model, ids, torch.ones_like(ids))[:, :-1].flatten(0, 1)
    head = output_head(model)
    signal, target = TeacherSignal.from_logits(teacher), ids[:, 1:].flatten()
    everything = ROWS * (T - 1)
    objective = Objective(get_loss("forward_kl"), kd_ratio=0.7)
    value, _ = head_loss(hidden, head, signal, Labels(target), objective, denominator=everything)
    return value * ranks


def gradients(model: LlamaForCausalLM) -> dict[str, Tensor]:
    return {
        name: (p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad).clone()
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def work(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    mesh = init_device_mesh("cpu", (RANKS,))
    for number, (tied, reshard, own_unit, checkpointed) in enumerate(CASES):
        model = student(tied, checkpointed)
        units = [*model.model.layers, *([model.lm_head] if own_unit else [])]
        for unit in units:
            fully_shard(unit, mesh=mesh)
        fully_shard(model, mesh=mesh, reshard_after_forward=reshard)
        share = ROWS // RANKS
        for _ in range(2):  # gradients of two micro-batches are added up
            loss_of(model, slice(rank * share, (rank + 1) * share), RANKS).backward()
        found = gradients(model)
        if rank == 0:
            torch.save(found, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> list[dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("sharded")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(work, (port, str(folder)), nprocs=RANKS, start_method="forkserver")
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(len(CASES))]


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: str(CASES[number]))
def test_gradients_of_a_sharded_model_equal_those_of_a_whole_one(sharded, number):
    tied, _, _, _ = CASES[number]
    model = student(tied, checkpointed=False)
    for _ in range(2):
        loss_of(model, slice(None), 1).backward()
    expected = gradients(model)
    assert set(sharded[number]) == set(expected)
    assert ("lm_head.weight" in expected) != tied
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(sharded[number][name], gradient, rtol=1e-9, atol=1e-12)
