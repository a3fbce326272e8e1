"""Models whose weights are divided among the processes of a run (FSDP2 or ZeRO-3), and their tensors whole again.

    shard(model)                           # in every process; the forward pass gathers one layer after the other
    student, optimizer = prepare(accelerator, model, optimizer)                    # for training, divided or not
    state = {name: whole(value) for name, value in model.state_dict(keep_vars=True).items()}     # full, on the CPU
    load_whole(model, state)               # each process takes its part

A run shards where `accelerate launch` says so (`fsdp2.yaml`, `zero3.yaml`), which it does through variables of the
environment. The kit calls torch or DeepSpeed (`studykit.models.zero`) itself, the same on GPUs and CPUs: accelerate
shards on GPUs alone, and in units that hold the head.
"""

import os
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.optimizer import Optimizer

from studykit.errors import InputError
from studykit.models import zero
from studykit.models.states import unwrap
from studykit.results.environment import SHARDING

_ASKED, _VERSION = "ACCELERATE_USE_FSDP", "FSDP_VERSION"


def take_over() -> None:
    """Note that the launcher asks for sharding, and keep other libraries from doing it, too.

    Raises:
        InputError: FSDP of version 1, whose parameters a loss on the head cannot read, or what `zero` does not do.
    """
    for asked, check in ((_ASKED, _check_fsdp), (zero.ASKED, zero.check)):
        if os.environ.get(asked, "").lower() == "true":
            check()
            os.environ[asked], os.environ[SHARDING] = "false", "1"


def _check_fsdp() -> None:
    if (version := os.environ.get(_VERSION, "1")) != "2":
        raise InputError(f"fsdp_version {version} is not supported: write 2, or take studykit/training/fsdp2.yaml")


def is_sharding() -> bool:
    """Whether models are divided among several processes."""
    return os.environ.get(SHARDING) == "1" and dist.is_initialized() and dist.get_world_size() > 1


def shard(model: nn.Module) -> None:
    """Divide the weights of a causal language model among all processes, layer by layer.

    Its layers are the longest list of modules in it. After a forward pass nothing stays gathered, so that the
    parameters of the model are always those that are trained.

    Args:
        model: with or without adapters, on any device; it ends up on that of the process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if zero.is_chosen():
        zero.shard(model)
        return
    inner = unwrap(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    lists = [module for module in inner.modules() if isinstance(module, nn.ModuleList)]
    for layer in max(lists, key=len, default=()):
        fully_shard(layer, mesh=mesh)
    fully_shard(inner, mesh=mesh, reshard_after_forward=True)


def prepare(accelerator: Accelerator, model: nn.Module, optimizer: AdamW) -> tuple[Any, Any]:
    """Return the model as training calls it, and its optimizer, both ready for the processes of the run.

    Args:
        accelerator: places what is not divided.
        model: sharded, where models are.
        optimizer: of the model's parameters, and of others in separate groups.
    """
    if not is_sharding():
        return accelerator.prepare(model, optimizer)
    return zero.prepare(model, optimizer) if zero.is_chosen() else (model, optimizer)


def clip(accelerator: Accelerator, model: nn.Module, max_norm: float) -> Any:
    """Clip the gradients of a model in training to a norm, and return the one that they had."""
    if is_sharding() and zero.is_chosen():
        return zero.clip(model, max_norm)
    return whole(accelerator.clip_grad_norm_(model.parameters(), max_norm))


def whole(value: Any) -> Any:
    """Return the full tensor of a sharded one, on the CPU, for which all processes ask at once; others as they are."""
    from torch.distributed.tensor import DTensor

    if zero.is_divided(value):
        return zero.whole(value)
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def full_size(parameter: Tensor) -> int:
    """Return the number of elements of a parameter, of which this process may have a part."""
    return zero.full_shape(parameter).numel()


@torch.no_grad()
def load_whole(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load full tensors into a model, sharded or not; its other parameters stay."""
    if not is_sharding():
        model.load_state_dict(state, strict=False)
        return
    targets = model.state_dict(keep_vars=True)
    for name, value in state.items():
        if zero.is_divided(targets[name]):
            zero.load(targets[name], value)
            continue
        targets[name].copy_(_part_of(value, targets[name]))


def whole_optimizer(optimizer: Optimizer) -> dict[str, Any]:
    """Return the state of an optimizer as if nothing were sharded."""
    plain = optimizer.state_dict()
    moments = {
        number: {name: whole(value) for name, value in state.items()} for number, state in plain["state"].items()
    }
    return plain | {"state": moments}


def load_whole_optimizer(optimizer: Optimizer, plain: dict[str, Any]) -> None:
    """Restore what `whole_optimizer` returned, with any number of processes."""
    if isinstance(optimizer, zero.DividedAdamW):
        optimizer.load_state_dict(plain)
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        number: {name: _part_of(value, parameters[number]) for name, value in state.items()}
        for number, state in plain["state"].items()
    }
    optimizer.load_state_dict(plain | {"state": moments})


def _part_of(value: Any, target: Tensor) -> Any:
    """Return this process's part of a full tensor, divided as the target is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(target, DTensor) or not isinstance(value, Tensor) or value.shape != target.shape:
        return value
    mesh = target.device_mesh
    return distribute_tensor(value.to(mesh.device_type), mesh, target.placements, src_data_rank=None)
