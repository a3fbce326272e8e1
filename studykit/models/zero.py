"""Models that DeepSpeed divides among the processes of a run (ZeRO stage 3); `sharding` is what others call.

    shard(model)                                     # forward passes gather the weights of one module after the other
    student, optimizer = prepare(model, adamw)       # gradients and optimizer are divided, too

A parameter of a divided model is an empty tensor but while its module computes. For the backward pass DeepSpeed gathers
it again once a gradient reaches its module's output, and divides the gradient when it is accumulated.
"""

import logging
import os
import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import chain, count
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.optimizer import Optimizer

from studykit.errors import InputError

SETTINGS: dict[str, Any] = {
    "stage": 3,
    "overlap_comm": False,
    "memory_efficient_linear": False,  # or torch's own function is replaced, for all models
    "reduce_bucket_size": 50_000_000,
    "stage3_prefetch_bucket_size": 50_000_000,
    "stage3_max_reuse_distance": 0,  # or models below a billion parameters stay whole after a forward pass
    "stage3_param_persistence_threshold": 10_000,  # norms and biases stay whole
}
"""DeepSpeed's settings; sizes are numbers of parameters."""

_ENGINE, _OWNER = "zero_engine", "_z3_optimizer"
_MOMENTS = ("exp_avg", "exp_avg_sq")

ASKED = "ACCELERATE_USE_DEEPSPEED"
"""The variable by which `accelerate launch` asks for DeepSpeed."""

_OPTIONS = "ACCELERATE_DEEPSPEED_"


def check() -> None:
    """Refuse what the launcher asks for and the kit does not do.

    Raises:
        InputError: another stage, offloading, settings of DeepSpeed's own, or no DeepSpeed.
    """
    take = "take studykit/training/zero3.yaml"
    if file := os.environ.get(_OPTIONS + "CONFIG_FILE"):
        raise InputError(
            f"deepspeed_config_file {file} is not supported, since the specification says all of it: {take}"
        )
    if (stage := os.environ.get(_OPTIONS + "ZERO_STAGE", "None")) != "3":
        raise InputError(f"zero_stage {stage} is not supported: write 3, or {take}")
    for option in ("offload_optimizer_device", "offload_param_device"):
        if (device := os.environ.get(_OPTIONS + option.upper(), "none")) != "none":
            raise InputError(f"{option} {device} is not supported: write none, or {take}")
    if find_spec("deepspeed") is None:
        raise InputError("DeepSpeed is not installed: pip install 'studykit[deepspeed]'")


def is_chosen() -> bool:
    """Whether models that are divided are so by DeepSpeed."""
    return os.environ.get(_OPTIONS + "ZERO_STAGE") == "3"


def is_divided(tensor: Any) -> bool:
    """Whether this is a parameter that DeepSpeed has divided."""
    return hasattr(tensor, "ds_id")


def full_shape(tensor: Tensor) -> torch.Size:
    """Return the shape of a tensor, or of the whole parameter where it is divided."""
    return getattr(tensor, "ds_shape", tensor.shape)


def shard(model: nn.Module) -> None:
    """Divide the weights of a causal language model among all processes; it ends up on their devices."""
    library().zero.Init(module=model, config_dict_or_path=_settings(), mem_efficient_linear=False)
    _start(model)


def prepare(model: nn.Module, optimizer: AdamW) -> tuple[nn.Module, "DividedAdamW"]:
    """Divide gradients and optimizer of a model as its weights are.

    Args:
        model: divided, with or without adapters.
        optimizer: of its parameters, and of others in separate groups, which stay whole.

    Returns:
        What is called in training instead of the model, and the optimizer.
    """
    divided = DividedAdamW(model, optimizer)
    return _Engine(divided.engine, model), divided


class _Engine(nn.Module):
    """DeepSpeed's engine as a plain module: gradients are divided after every backward pass, in accumulation, too."""

    def __init__(self, engine: Any, model: nn.Module):
        super().__init__()
        self.module = model
        self._call = engine.__call__  # the engine itself would become a part of this module

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self._call(*arguments, **options)


class DividedAdamW(Optimizer):
    """AdamW with divided moments, whose state is that of an AdamW where nothing is divided.

    Args:
        model: divided.
        optimizer: new; of the model's parameters and of others.
    """

    def __init__(self, model: nn.Module, optimizer: AdamW):
        self.param_groups = optimizer.param_groups
        self._members = [list(group["params"]) for group in self.param_groups]
        self._divided = AdamW([group for group in self.param_groups if any(map(is_divided, group["params"]))])
        others = [group for group in self.param_groups if group["params"] and not is_divided(group["params"][0])]
        self._whole = AdamW(others) if others else None
        self.engine = _start(model, self._divided)

    def step(self, closure: Any = None) -> Any:
        """Take a step with the gradients of all backward passes since the last one."""
        self.engine.step()
        if self._whole is not None:
            self._whole.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients: DeepSpeed keeps those of parameters that the next step does not reach."""
        for parameter in filter(is_divided, chain(*self._members)):
            library().utils.safe_set_local_grad(parameter, torch.zeros_like(parameter.ds_tensor))
        if self._whole is not None:
            self._whole.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return full tensors, on the CPU, for which all processes ask at once."""
        numbers = count()
        groups = [
            {name: value for name, value in group.items() if name != "params"}
            | {"params": [next(numbers) for _ in members]}
            for group, members in zip(self.param_groups, self._members, strict=True)
        ]
        moments = {number: self._state(parameter) for number, parameter in enumerate(chain(*self._members))}
        return {"state": {number: state for number, state in moments.items() if state}, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, or that of an AdamW where nothing was divided."""
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({name: value for name, value in saved.items() if name != "params"})
        for number, parameter in enumerate(chain(*self._members)):
            if number in state_dict["state"]:
                self._load(parameter, state_dict["state"][number])

    def _state(self, parameter: nn.Parameter) -> dict[str, Any]:
        if not is_divided(parameter):
            return {} if self._whole is None else dict(self._whole.state.get(parameter, {}))
        if not self._divided.state:
            return {}
        full, step = library().utils.safe_get_full_optimizer_state, next(iter(self._divided.state.values()))["step"]
        return {"step": step.cpu().clone()} | {name: full(parameter, name).cpu() for name in _MOMENTS}

    def _load(self, parameter: nn.Parameter, state: dict[str, Any]) -> None:
        if not is_divided(parameter):
            assert self._whole is not None
            self._whole.state[parameter] = {
                name: value.to(parameter.device, copy=True) for name, value in state.items()
            }
            return
        for part in self.engine.optimizer.fp32_partitioned_groups_flat:
            if part not in self._divided.state:
                self._divided.state[part] = {name: torch.zeros_like(part) for name in _MOMENTS}
            self._divided.state[part]["step"] = state["step"].to(part.device, copy=True)
        for name in _MOMENTS:
            library().utils.safe_set_local_optimizer_state(parameter, _part_of(state[name], parameter), name)


@torch.no_grad()
def clip(model: nn.Module, max_norm: float) -> Tensor:
    """Scale the gradients so that their norm, over all processes, is at most so large; return what it was."""
    utils = library().utils
    parts = {p: utils.safe_get_local_grad(p) for p in model.parameters() if p.requires_grad}
    square = torch.stack([part.norm().square() for part in parts.values()]).sum()
    dist.all_reduce(square)
    norm = square.sqrt()
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
    for parameter, part in parts.items():
        utils.safe_set_local_grad(parameter, part * scale)
    return norm


def gather(parameter: Tensor) -> Tensor:
    """Return a full copy of a parameter; its gradient is added to that of the module which holds the parameter.

    That module must take part in the same forward pass: the parameter is not there for its gradient otherwise.
    """
    with library().zero.GatheredParameters([parameter]):
        return parameter.clone()


def whole(parameter: Tensor) -> Tensor:
    """Return the full tensor, on the CPU, for which all processes ask at once."""
    with torch.no_grad():
        return gather(parameter).cpu()


def load(parameter: nn.Parameter, value: Tensor) -> None:
    """Give a parameter the values of a full tensor, also in the optimizer, which has a copy of what it trains."""
    with library().zero.GatheredParameters([parameter], modifier_rank=0):
        parameter.data.copy_(value)
    if hasattr(parameter, _OWNER):
        library().utils.safe_set_local_fp32_param(parameter, _part_of(value, parameter))


def _part_of(value: Tensor, parameter: Any) -> Tensor:
    """Return this process's part of a full tensor, padded to the size of all parts."""
    size = parameter.ds_tensor.numel()
    part = value.flatten()[dist.get_rank() * size :][:size]
    return nn.functional.pad(part, (0, size - len(part))).to(parameter.ds_tensor.device)


def _start(model: nn.Module, optimizer: AdamW | None = None) -> Any:
    """Return a new engine of a model, which ends the one before."""
    if (before := vars(model).pop(_ENGINE, None)) is not None:
        before.destroy()
        for parameter in model.parameters():
            vars(parameter).pop(_OWNER, None)
    engine = library().initialize(model=model, optimizer=optimizer, config=_settings())[0]
    vars(model)[_ENGINE] = engine  # an attribute would make it a part of the model
    return engine


def _settings() -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,  # not used
        "managed_gradient_accumulation": False,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": dict(SETTINGS),
    }


@cache
def library() -> Any:
    """Return DeepSpeed, which only a run that asks for it imports."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    deepspeed = import_module("deepspeed")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # or it is compiled, on processors, for nothing
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    return deepspeed
