"""Share of a step that singular value thresholding takes in 1, 2 and 4 processes (DDP), and the bytes they send.

784-512-512-512-512-10 under a nuclear norm (exact engine), batch 128 over all processes, one thread each.
Bytes are those a process hands to collective calls in a step: gradients as DDP sends them, and what the thresholds add.
With fewer cores than processes times are indicative only. Run: python benchmarks/scaling.py (seed 0).
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import torch_bregman as tb

STEPS, WARM, BATCH = 8, 2, 128
RESULTS = Path(__file__).parent / "results"


class Counter:
    """Counts the bytes given to the collective calls that thresholding makes, and the seconds it takes."""

    def __init__(self) -> None:
        self.bytes, self.seconds = 0, 0.0
        for name in ("all_reduce", "broadcast"):
            self._count(name)

    def _count(self, name: str) -> None:
        call = getattr(dist, name)

        def counted(tensor: torch.Tensor, *arguments: Any, **options: Any) -> Any:
            self.bytes += tensor.numel() * tensor.element_size()
            return call(tensor, *arguments, **options)

        setattr(dist, name, counted)

    def timed(self, optimizer: tb.LinBreg) -> None:
        """Time the end of a step, where all thresholds are taken."""
        finish = optimizer._finish

        def timed() -> None:
            start = time.perf_counter()
            finish()
            self.seconds += time.perf_counter() - start

        optimizer._finish = timed


def measure(rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = dist.FileStore(f"{folder}/store{size}", size)  # pyright: ignore[reportPrivateImportUsage] - torch's own doing
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    torch.manual_seed(0)
    model = tb.models.mlp([784, 512, 512, 512, 512, 10])
    tb.low_rank_(model, 8, seed=0)
    optimizer = tb.LinBreg(tb.param_groups(model, {nn.Linear: tb.Nuclear(0.05, engine="gram")}), lr=0.01)
    network = DistributedDataParallel(model)
    x, y = torch.randn(BATCH, 784), torch.randint(10, (BATCH,))
    part = slice(rank * BATCH // size, (rank + 1) * BATCH // size)
    optimizer.share_thresholds()
    counter, rows = Counter(), []
    counter.timed(optimizer)
    for _ in range(WARM + STEPS):
        counter.bytes, counter.seconds = 0, 0.0
        dist.barrier()
        start = time.perf_counter()
        optimizer.zero_grad()
        cross_entropy(network(x[part]), y[part]).backward()
        optimizer.step()
        rows.append((time.perf_counter() - start, counter.seconds, counter.bytes))
    if rank == 0:
        steps, thresholds, sent = (list(column) for column in zip(*rows[WARM:], strict=True))
        found = {
            "processes": size,
            "step_ms": 1000 * median(steps),
            "threshold_ms": 1000 * median(thresholds),
            "share": median(t / s for t, s in zip(thresholds, steps, strict=True)),
            "ddp_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
            "threshold_bytes": median(sent),
        }
        Path(folder, f"{size}.json").write_text(json.dumps(found))
    dist.barrier()
    os._exit(0)  # threads of the backend may outlive it, and abort an orderly end


def main() -> None:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for size in (1, 2, 4):
            mp.spawn(measure, args=(size, folder), nprocs=size)  # pyright: ignore[reportPrivateImportUsage] - torch too
            found.append(json.loads(Path(folder, f"{size}.json").read_text()))
    about = {"cores": os.cpu_count(), "torch": torch.__version__, "machine": platform.machine(), "seed": 0}
    (RESULTS / "scaling.json").write_text(json.dumps({**about, "rows": found}, indent=2) + "\n")
    lines = [
        "# Thresholds over processes",
        "",
        f"Made by `benchmarks/scaling.py` (seed 0, medians of {STEPS} steps), {os.cpu_count()} cores.",
        "With fewer cores than processes, and other work on the machine, times are indicative only; bytes are exact.",
        "",
        "| processes | step, ms | thresholds, ms | share of a step | DDP gradients, bytes | thresholds send, bytes |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['processes']} | {row['step_ms']:.0f} | {row['threshold_ms']:.0f} | {row['share']:.2f} "
        f"| {row['ddp_bytes']:,} | {row['threshold_bytes']:,.0f} |"
        for row in found
    ]
    (RESULTS / "scaling.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
