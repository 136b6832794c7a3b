"""How a run is laid out over processes and memory; what it learns does not depend on it. Does not need torch."""

from __future__ import annotations

from dataclasses import dataclass

from torch_bregman.train.checked import Checked


@dataclass
class ScaleConf(Checked):
    """How the work of a step is laid out. How many processes there are is said to torchrun, or by --launch.

    Args:
        sharded: cut weights, gradients and optimizer over the processes (FSDP2); else each has a copy (DDP).
        accumulate: pieces into which each process cuts its part of a batch, to need less memory.
    """

    sharded: bool = False
    accumulate: int = 1

    def check(self) -> None:
        """Check ranges."""
        if self.accumulate < 1:
            raise ValueError(f"scale.accumulate must be a whole number >= 1, got {self.accumulate}: 1 cuts nothing")
