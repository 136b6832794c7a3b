"""Several processes on this machine that talk over gloo, started once for many cases."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

gloo = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this build of torch has no gloo backend"
)


def results(worker: Callable[..., Any], size: int, folder: Path, *arguments: Any) -> list[Any]:
    """Return what `worker(*arguments)` returned in each of `size` processes."""
    mp.spawn(_join, args=(worker, size, str(folder), arguments), nprocs=size)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def _join(rank: int, worker: Callable[..., Any], size: int, folder: str, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if os.path.exists("/sys/class/net/lo") else "lo0")  # noqa: PTH110
    store = dist.FileStore(str(Path(folder) / "store"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    torch.save(worker(*arguments), Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # threads of the backend may outlive it, and abort an orderly end
