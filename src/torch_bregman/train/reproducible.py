"""What makes the same configuration give the same bits, and leaves the process as it was."""

from __future__ import annotations

from contextlib import ExitStack

import torch


def reproducible(threads: int | None) -> ExitStack:
    """Return a context in which a run may set seeds, threads and determinism; afterwards all is as it was.

    Args:
        threads: of the CPU, None for as many as there are now.
    """
    stack = ExitStack()
    stack.enter_context(torch.random.fork_rng())
    if threads is not None:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(threads)
    cudnn = torch.backends.cudnn
    stack.enter_context(cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True))
    return stack


def seed_epoch(seed: int, epoch: int, rank: int = 0) -> torch.Generator:
    """Seed dropout and return the generator of order and augmentation: both depend on seed and epoch alone.

    Order and augmentation are the same in every process, which takes its part of each batch; dropout is not.
    """
    mixed = (seed * 1_000_003 + epoch) % 2**63
    torch.manual_seed((mixed + rank * 7_368_787) % 2**63)
    return torch.Generator().manual_seed(mixed)
