"""A model made to train in many processes: copied whole (DDP) or cut into parts (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from torch_bregman.distributed.processes import size
from torch_bregman.distributed.sharded import gathered


def copied(model: nn.Module) -> nn.Module:
    """Return the module to call in training: each process has all weights, gradients are averaged (DDP).

    Parameters are those of `model`. Without other processes it is `model` itself.
    """
    if size() == 1 or not any(param.requires_grad for param in model.parameters()):
        return model
    return DistributedDataParallel(model)


def cut(model: nn.Module) -> nn.Module:
    """Cut every parameter over all processes by its first dimension (FSDP2), in place: it becomes a DTensor.

    Each module with parameters of its own is gathered for itself when it is called. Without other processes nothing is
    done.

    Raises:
        ValueError: for a PyTorch without `fully_shard`.
    """
    if size() == 1:
        return model
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
    except ImportError:
        raise ValueError("sharded training needs a PyTorch with fully_shard, 2.6 or newer: update it") from None
    device = next(model.parameters()).device.type
    mesh = init_device_mesh(device, (size(),))
    for module in list(model.modules()):
        if module is not model and list(module.parameters(recurse=False)):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def synchronised_norms(model: nn.Module) -> nn.Module:
    """Return the model with batch normalisation over all processes, where the device can do that: not on a CPU."""
    if size() == 1 or not has_batch_norm(model) or next(model.parameters()).device.type != "cuda":
        return model
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether a model normalises over the batch."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def held_back(network: nn.Module) -> AbstractContextManager[Any]:
    """Return a context in which gradients add up without being averaged over the processes: all but a step's last."""
    if isinstance(network, DistributedDataParallel):
        return network.no_sync()
    if hasattr(network, "set_requires_gradient_sync"):
        return _unsynchronised(network)
    return nullcontext()


@contextmanager
def _unsynchronised(network: Any) -> Iterator[None]:
    network.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        network.set_requires_gradient_sync(True)


@torch.no_grad()
def same_buffers(model: nn.Module) -> None:
    """Set the buffers of every process, such as running means, to those of the first."""
    if size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def full_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's `state_dict`, parts gathered; every process has to call it."""
    return {key: gathered(value).detach() for key, value in model.state_dict().items()}
