"""Parameters that FSDP has spread over ranks, made whole for a computation outside the module that owns them."""

from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate


def gather_full(parameter: Tensor) -> Tensor:
    """Return all of a parameter; what is no shard is returned as it is.

    Its gradient goes back into each rank's shard as the mean over ranks, which is what FSDP does for all others.
    """
    if not isinstance(parameter, DTensor):
        return parameter
    mesh = parameter.device_mesh
    gathered = parameter.redistribute(placements=[Replicate()] * mesh.ndim)
    local = gathered.to_local(grad_placements=[Partial()] * mesh.ndim)
    if local.requires_grad:
        local.register_hook(lambda gradient: gradient / mesh.size())
    return local
