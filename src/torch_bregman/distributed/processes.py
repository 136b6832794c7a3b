"""Which of how many processes this is, and what they tell each other."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Result = TypeVar("Result")


class AgreedError(ValueError):
    """An error of which every process knows, so that one of them says it for all."""

    agreed = True


def rank() -> int:
    """Return the number of this process, 0 where there is one only."""
    return dist.get_rank() if is_joined() else 0


def size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if is_joined() else 1


def is_joined() -> bool:
    """Return whether this process belongs to a group."""
    return dist.is_available() and dist.is_initialized()


def is_launched() -> bool:
    """Return whether torchrun, or another launcher that sets its variables, has started this process."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


@contextmanager
def joined() -> Iterator[None]:
    """Return a context in which the processes that torchrun has started form a group; without torchrun it does nothing.

    The backend is NCCL where every process has a GPU of its own, else gloo.
    """
    if is_joined() or not is_launched():
        yield
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1")):
        torch.cuda.set_device(local)
        _join("cpu:gloo,cuda:nccl")
    else:
        _join("gloo")
    try:
        yield
    finally:
        gc.collect()  # what DDP holds of the group must go before it, or the process never ends
        dist.destroy_process_group()


def _join(backend: str) -> None:
    """Join the group; after a restart by torchrun too, whose store still holds what the processes of before left."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        dist.init_process_group(backend)
        return
    from torch._C._distributed_c10d import PrefixStore, TCPStore  # where they are public depends on the version

    number, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, count, is_master=False)
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(backend, store=PrefixStore(f"bregman/{start}", store), rank=number, world_size=count)


def together(make: Callable[[], Result]) -> Result:
    """Return what this process makes; where one of them raises ValueError or OSError, all raise.

    Raises:
        AgreedError: on every process, with the first error; the error itself where there is one process.
    """
    if size() == 1:
        return make()
    made: list[Result] = []
    problem = ""
    try:
        made.append(make())
    except (ValueError, OSError) as error:
        problem = " ".join(str(error).split())
    found: list[str] = [""] * size()
    dist.all_gather_object(found, problem)
    if any(found):
        raise AgreedError(next(filter(None, found)))
    return made[0]


def from_first(make: Callable[[], Result]) -> Result:
    """Return what the first process makes, on all of them.

    Args:
        make: called by the first process alone; returns plain values.

    Raises:
        AgreedError: on every process, where it raises ValueError or OSError; the error itself where there is one.

    Example:
        >>> from_first(lambda: 3)
        3
    """
    if size() == 1:
        return make()
    made = together(lambda: make() if rank() == 0 else None)
    box = [made]
    dist.broadcast_object_list(box, src=0)
    return box[0]  # pyright: ignore[reportReturnType]


def total(x: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes; the tensor itself where there is one.

    Example:
        >>> total(torch.tensor(2.0))
        tensor(2.)
    """
    if size() == 1:
        return x
    x = x.clone()
    dist.all_reduce(x)
    return x
