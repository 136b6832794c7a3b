"""What training costs whose support is frozen between full steps, beside dense SGD and plain LinBreg.

    python benchmarks/training_cost.py train --data DIR --nets mlp-1024 --seeds 1   # accuracy: a row a run
    python benchmarks/training_cost.py time --data DIR --nets mlp-1024              # on a quiet machine

`train` takes nets from the start to their last epoch by `fit`, DIR holding mnist and fashion-mnist: test accuracy
after every epoch, and operations of training by `metrics.training_flops`. `time` takes coarse and fine steps of the
same methods at the mean size of the run, in turns with those of dense SGD, on one thread: the step of a method is
their mean, weighted by how many the run has of each. Two dense baselines: `F.linear` as torch comes, and the same
products through oneDNN (`torch.ops.mkldnn._linear_pointwise`). Times count data, forward, backward and optimizer;
nothing is evaluated or saved meanwhile. `memory` takes the peak of memory that each method adds to an empty process.
Rows that are in benchmarks/results/training_cost.json are not run again; a table goes beside it.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import torch_bregman as tb
from torch_bregman.train.setup import Parts, set_up
from training_cost_methods import NETS, SETS, M, conf, fine_share, still
from training_cost_table import table

RESULTS = Path(__file__).parent / "results" / "training_cost.json"


def trained(net: str, method: str, name: str, data: Path, seed: int) -> dict[str, Any]:
    """Train one network."""
    with tempfile.TemporaryDirectory() as out:
        result = tb.fit(conf(net, method, name, data, seed, out), observers=[])
    rows, summary = result.rows, result.summary
    return {
        "accuracy": [round(row["test_accuracy"], 4) for row in rows],
        "density": round(summary["density"], 4),
        "flops": round(summary["flops"] / summary["flops_dense"], 4),
    }


class Stepper:
    """Takes training steps of a method, batch after batch."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.batches = parts, self._endless()

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        while True:
            yield from self.parts.train.epoch(generator)

    def step(self) -> None:
        """Take one step."""
        parts = self.parts
        x, y = next(self.batches)
        if parts.form is not None:
            parts.form.step(x, y, cross_entropy)
            return
        parts.optimizer.zero_grad()
        cross_entropy(parts.model(x), y).backward()
        parts.optimizer.step()

    @property
    def fine(self) -> bool:
        """Whether the next step is a fine one."""
        return isinstance(self.parts.optimizer, tb.MultilevelLinBreg) and self.parts.optimizer.fine


class OneDNNLinear(torch.autograd.Function):
    """The three products of a linear layer by oneDNN, where torch takes its own BLAS."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return x Wᵀ + b."""
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Return the gradients of x, W and b."""
        x, weight = ctx.saved_tensors
        (dy,) = grads
        dy = dy.contiguous()
        dx = _onednn(dy, weight.t().contiguous(), None) if ctx.needs_input_grad[0] else None
        return dx, _onednn(dy.t().contiguous(), x.t().contiguous(), None), dy.sum(0)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def through_onednn(model: nn.Module) -> None:
    """Let all linear layers of a model take oneDNN's products."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.forward = lambda x, own=module: OneDNNLinear.apply(x, own.weight, own.bias)  # pyright: ignore


def timed(net: str, method: str, name: str, data: Path, steps: int) -> dict[str, Any]:
    """Return the milliseconds of a method's steps and of both dense baselines', taken in turns."""
    with tempfile.TemporaryDirectory() as out:
        own, dense, onednn = (
            Stepper(set_up(still(conf(net, each, name, data, 0, out)))) for each in (method, "dense SGD", "dense SGD")
        )
    through_onednn(onednn.parts.model)
    settle(own)
    coarse, fine = [], []
    baselines: dict[str, list[float]] = {"dense": [], "onednn": []}
    for number in range(steps):
        (fine if own.fine else coarse).append(clock(own.step))
        if number % 4 == 0:
            for key, stepper in (("dense", dense), ("onednn", onednn)):
                baselines[key].append(clock(stepper.step))
    ms = {key: round(statistics.median(times), 3) for key, times in baselines.items()}
    found = {"coarse": round(statistics.median(coarse), 3)}
    if fine:
        found["fine"] = round(statistics.median(fine), 3)
    share = fine_share(conf(net, method, name, data, 0, "."))
    step = (1 - share) * found["coarse"] + share * found.get("fine", 0.0)
    awake = own.parts.form.awake() if own.parts.form is not None else {}
    return {**found, "step": round(step, 3), **ms, "awake": awake, **machine()}


def settle(stepper: Stepper) -> None:
    """Take the steps of two cycles, so that support and memory are what they are in training."""
    cycles = isinstance(stepper.parts.optimizer, tb.MultilevelLinBreg)
    for _ in range(2 * (M + 1) if cycles else 3):
        stepper.step()
        for control in stepper.parts.controls:
            if isinstance(control, tb.schedulers.SizeControl):
                control.step()


def clock(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return 1000 * (time.perf_counter() - start)


def peak(net: str, method: str, name: str, data: Path) -> dict[str, Any]:
    """Return the peak of memory of coarse steps, in a process of its own, above what is there before the model."""
    arguments = ["peak-of", "--data", str(data), "--nets", net, "--methods", method, "--sets", name]
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak_of(net: str, method: str, name: str, data: Path) -> dict[str, Any]:
    """Take the steps whose peak is wanted; Linux lets a process start its peak anew."""
    with tempfile.TemporaryDirectory() as out:
        stepper = Stepper(set_up(still(conf(net, method, name, data, 0, out))))
    before = resident("VmRSS") - size(stepper.parts.model)
    settle(stepper)
    ctypes.CDLL(None).malloc_trim(0)  # what is free but kept is not needed
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for _ in range(M - 1):
        assert not stepper.fine
        stepper.step()
    weights = size(stepper.parts.model)
    return {"peak_mb": round((resident("VmHWM") - before) / 2**20), "weights_mb": round(weights / 2**20)}


def size(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(key)))


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {"processor": processor or platform.machine(), "torch": torch.__version__, "threads": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "time", "memory", "table", "peak-of"])
    parser.add_argument("--data", type=Path, help="folder with mnist and fashion-mnist")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=["mlp-1024"])
    parser.add_argument("--methods", nargs="+", help="default all of the net")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=104)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "peak-of":
        print(json.dumps(peak_of(options.nets[0], options.methods[0], options.sets[0], options.data)))
        return
    for key, run in rows(options):
        if key not in load():
            found = run()
            print(key, found, flush=True)
            save({**load(), key: found})
    save(load())


def rows(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the rows asked for, and what makes them."""
    for net in options.nets if options.what != "table" else []:
        for method in options.methods or NETS[net]["methods"]:
            if options.what == "train":
                for name in options.sets:
                    for seed in options.seeds:
                        key = f"train/{net}/{method}/{name}/{seed}"
                        yield key, lambda a=(net, method, name, options.data, seed): trained(*a)
            elif options.what == "time":
                key = f"time/{net}/{method}"
                yield key, lambda a=(net, method, options.sets[-1], options.data, options.steps): timed(*a)
            else:
                yield f"memory/{net}/{method}", lambda a=(net, method, options.sets[-1], options.data): peak(*a)


def load() -> dict[str, dict[str, Any]]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}


def save(found: dict[str, dict[str, Any]]) -> None:
    """Write all rows, and the table; processes that run beside each other take turns."""
    RESULTS.parent.mkdir(exist_ok=True)
    with (Path(tempfile.gettempdir()) / "training_cost.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = {**load(), **found}
        lines = [f"{json.dumps(key)}: {json.dumps(found[key])}" for key in sorted(found)]
        RESULTS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        RESULTS.with_suffix(".md").write_text(table(found), encoding="utf-8")


if __name__ == "__main__":
    main()
