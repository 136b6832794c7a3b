"""What training costs whose support is frozen between full steps, beside dense SGD and plain LinBreg.

    python benchmarks/training_cost.py train --data DIR --nets mlp-1024 --seeds 1   # accuracy: a row a run
    python benchmarks/training_cost.py time --data DIR --nets mlp-1024              # on a quiet machine

`train` takes nets from the start to their last epoch by `fit`, DIR holding mnist and fashion-mnist: test accuracy
after every epoch, and operations of training by `metrics.training_flops`. `time` takes coarse and fine steps of the
same methods at the mean size of the run, in turns with those of dense SGD, on one thread: the step of a method is their
mean, weighted by how many the run has of each. Two dense baselines: `F.linear` as torch comes, and the same products through oneDNN
(`torch.ops.mkldnn._linear_pointwise`). Times count data, forward, backward and optimizer; nothing is evaluated or saved
meanwhile. `memory` takes the peak of memory that each method adds to an empty process. Rows that are in
benchmarks/results/training_cost.json are not run again; a table goes beside it.
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
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import torch_bregman as tb
from torch_bregman.experiments.significance import student_quantile
from torch_bregman.train.setup import Parts, set_up

RESULTS = Path(__file__).parent / "results" / "training_cost.json"
BATCH, M = 128, 25
SETS = ("mnist", "fashion-mnist")
COSINE = {"name": "CosineAnnealingLR", "every": "step"}
FREE = {"name": "none", "lam": 0.0}
SPARSE = {"below": 0.12, "compiled": True}
DENSE: dict[str, Any] = {
    "optim": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "regularizer": FREE,
    "start": {"kind": "dense"},
    "schedule": COSINE,
}


def weights(goal: float, cycles: bool) -> dict[str, Any]:
    """A share of the weights by the recipe in cycles; with the same settings without."""
    if cycles:
        return {"optim": {"name": "linbreg", "multilevel": {"m": M, **SPARSE}}, "target": {"density": goal}}
    target = {"density": goal, "start": 1.4 * goal, "ramp": "linear"}
    return {"optim": {"name": "linbreg", "lr": 0.2}, "regularizer": {"lam": 0.003}, "target": target}


def units(goal: float, cycles: bool) -> dict[str, Any]:
    """A network held at a share of its units from the start, and frozen for the last 30 % of all steps."""
    optim = {"name": "linbreg", **({"multilevel": {"m": M}} if cycles else {})}
    return {"optim": optim, "target": {"units": goal, "ramp": "none"}, "start": {"kind": "units", "density": goal}}


def grown(lam: float) -> dict[str, Any]:
    """A network that grows from 1 % under a fixed λ, its last layer dense."""
    return {
        "optim": {
            "name": "linbreg",
            "lr": 0.05,
            "momentum": 0.9,
            "multilevel": {"m": M, "below": 0.12, "compiled": True},
        },
        "regularizer": {"name": "l1", "lam": lam},
        "rules": {"fc3": FREE},
        "start": {"kind": "sparse", "density": 0.01},
        "schedule": COSINE,
    }


def mlp(*hidden: int) -> dict[str, Any]:
    return {"name": "mlp", "hidden": list(hidden)}


WEIGHTS: dict[str, dict[str, Any]] = {
    "dense SGD": DENSE,
    "LinBreg, 5 %": weights(0.05, False),
    "multilevel, 5 %": weights(0.05, True),
    "LinBreg, 1.5 %": weights(0.015, False),
    "multilevel, 1.5 %": weights(0.015, True),
    "multilevel, from 1 % up": grown(0.02),
}
UNITS: dict[str, dict[str, Any]] = {
    "LinBreg, 20 % of units": units(0.2, False),
    "multilevel, 20 % of units": units(0.2, True),
    "multilevel, 10 % of units": units(0.1, True),
}
NETS: dict[str, dict[str, Any]] = {
    "mlp-1024": {
        "model": mlp(1024, 1024),
        "epochs": 5,
        "methods": {**WEIGHTS, **UNITS, "small dense, 5 % of the weights": {**DENSE, "model": mlp(104, 104)}},
    },
    "mlp-4096": {
        "model": mlp(4096, 4096),
        "epochs": 1,
        "methods": {"dense SGD": DENSE, "multilevel, 1 %": weights(0.01, True)},
    },
    "mlp-200-80": {
        "model": mlp(200, 80),
        "epochs": 5,
        "methods": {name: WEIGHTS[name] for name in ("dense SGD", "LinBreg, 5 %", "multilevel, 5 %")},
    },
    "convnet": {
        "model": {"name": "convnet"},
        "epochs": 3,
        "methods": {
            "dense SGD": DENSE,
            "LinBreg, 50 % of units": units(0.5, False),
            "multilevel, 50 % of units": units(0.5, True),
        },
    },
}


def still(run: tb.Conf) -> tb.Conf:
    """Return a run that stays, in cycles of m, at the mean size of one whose target falls for half of it."""
    plain = run.to_dict()
    if run.target.ramp == "linear" and run.target.density:
        mean = (run.target.density + (run.target.start or run.target.density) / 2 + run.target.density / 2) / 2
        plain["target"].update(density=mean, ramp="none", start=None)
        plain["start"]["density"] = mean
    if run.optim.multilevel.m_start:
        plain["optim"]["multilevel"]["m_start"] = run.optim.multilevel.m
    return tb.Conf.from_dict(plain)


def fine_share(run: tb.Conf) -> float:
    """Return the share of fine steps in a run; there are none after the freeze."""
    cycles, total = run.optim.multilevel, run.epochs * -(-60000 // BATCH)
    if not cycles.m:
        return 0.0
    first = cycles.m if cycles.m_start is None else cycles.m_start
    length = tb.schedulers.linear(first, cycles.m, max(1, round(cycles.m_over * total)))
    until = total if not run.target.asked else round(total * (1 - run.target.consolidate))
    phase = count = 0
    for step in range(until):
        fine = phase >= round(length(step))
        phase, count = (0, count + 1) if fine else (phase + 1, count)
    return count / total


def conf(net: str, method: str, name: str, data: Path, seed: int, out: str) -> tb.Conf:
    """Return the run of a row."""
    own = NETS[net]
    plain = {
        "name": "run",
        "seed": seed,
        "epochs": own["epochs"],
        "out": out,
        "threads": 1,
        "model": own["model"],
        "data": {"name": name, "dir": str(data / name), "batch_size": BATCH, "validation": 0.0},
        **own["methods"][method],
    }
    return tb.Conf.from_dict(plain)


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


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return all rows as Markdown."""
    lines = [
        "# What training costs",
        "",
        f"Batches of {BATCH}, m = {M}; made by `benchmarks/training_cost.py`, one thread. A step is the mean of coarse",
        "and fine ones at the mean size of a run, on a quiet machine, beside one of dense SGD by `F.linear` and by",
        "oneDNN, the harder of the two in bold. Operations are a count by the formula of the literature, no seconds.",
        "Accuracy: mean ± standard deviation over seeds of the test accuracy after the last epoch, in %. LinBreg has the",
        "settings of the same run in cycles. What freezing costs is the difference in accuracy, paired by seed, with",
        "Student's 95 % interval.",
        "",
    ]
    for net, own in NETS.items():
        lines += _part(net, own, found)
    return "\n".join(lines + _freezing(found))


def _freezing(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return what freezing costs, where both have run with the same seeds."""
    lines = ["## What freezing costs", "", "| network | size | data | seeds | points of accuracy | 95 % interval |"]
    lines += ["|---|---|---|---:|---:|---:|"]
    for net, own in NETS.items():
        for size in (method.removeprefix("LinBreg, ") for method in own["methods"] if method.startswith("LinBreg, ")):
            for name in SETS:
                ends = [_ends(net, f"{kind}, {size}", name, found) for kind in ("LinBreg", "multilevel")]
                seeds = sorted(ends[0].keys() & ends[1].keys())
                if len(seeds) < 2:
                    continue
                costs = [100 * (ends[0][seed] - ends[1][seed]) for seed in seeds]
                mean, reach = statistics.mean(costs), student_quantile(0.975, len(seeds) - 1)
                half = reach * statistics.stdev(costs) / len(seeds) ** 0.5
                interval = f"{mean - half:+.2f} … {mean + half:+.2f}"
                lines.append(f"| {net} | {size} | {name} | {len(seeds)} | {mean:+.2f} | {interval} |")
    return [*lines, ""]


def _ends(net: str, method: str, name: str, found: dict[str, dict[str, Any]]) -> dict[str, float]:
    start = f"train/{net}/{method}/{name}/"
    return {key.removeprefix(start): run["accuracy"][-1] for key, run in found.items() if key.startswith(start)}


def _part(net: str, own: dict[str, Any], found: dict[str, dict[str, Any]]) -> list[str]:
    marks = {name: mark for name in SETS if (mark := _mark(net, name, found))}
    header = [
        "method",
        "ms a step",
        "of dense",
        "of oneDNN",
        "operations",
        "peak MB",
        "MNIST",
        "Fashion-MNIST",
        "seeds",
    ]
    header += [f"s to {mark:.1%} on {name}" for name, mark in marks.items()]
    rows = []
    for method in own["methods"]:
        time_, memory = _time(net, method, found), found.get(f"memory/{net}/{method}")
        runs = {name: _runs(net, method, name, found) for name in SETS}
        if not (time_ or memory or any(runs.values())):
            continue
        share = _weights(own["methods"][method].get("model", own["model"])) / _weights(own["model"])
        cells = [
            *_times(time_),
            _share([share * run["flops"] for each in runs.values() for run in each]),
            "" if memory is None else str(memory["peak_mb"]),
            *(_accuracy([run["accuracy"][-1] for run in runs[name]]) for name in SETS),
            "/".join(str(len(each)) for each in runs.values()),
            *(_seconds(time_, runs[name], mark) for name, mark in marks.items()),
        ]
        rows.append(f"| {method} | " + " | ".join(cells) + " |")
    title = f"## {net}, {own['epochs']} epoch{'s' if own['epochs'] > 1 else ''}"
    lines = [title, "", f"| {' | '.join(header)} |", "|---|" + "---:|" * (len(header) - 1), *rows, ""]
    return lines if rows else []


def _time(net: str, method: str, found: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """Return the times of a method; of dense SGD those it had beside the others."""
    beside = [row for key, row in found.items() if key.startswith(f"time/{net}/")]
    if method != "dense SGD" or not beside:
        return found.get(f"time/{net}/{method}")
    dense, onednn = (statistics.median(row[key] for row in beside) for key in ("dense", "onednn"))
    return {"step": dense, "dense": dense, "onednn": onednn}


def _weights(model: dict[str, Any]) -> float:
    """Return the weights of a perceptron; 1 for another model."""
    if "hidden" not in model:
        return 1.0
    return float(sum(a * b for a, b in pairwise([784, *model["hidden"], 10])))


def _runs(net: str, method: str, name: str, found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [run for key, run in found.items() if key.startswith(f"train/{net}/{method}/{name}/")]


def _mark(net: str, name: str, found: dict[str, dict[str, Any]]) -> float:
    """Return an accuracy that all methods come to: the lowest mean, rounded down to half a percent; 0 for none."""
    means = [
        statistics.mean(run["accuracy"][-1] for run in runs)
        for method in NETS[net]["methods"]
        if (runs := _runs(net, method, name, found))
    ]
    return int(200 * min(means)) / 200 if means else 0.0


def _times(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["", "", ""]
    shares = [found["step"] / found[key] for key in ("dense", "onednn")]
    marked = [f"**{share:.3f}**" if share == max(shares) else f"{share:.3f}" for share in shares]
    return [f"{found['step']:.2f}", *marked]


def _share(values: list[float]) -> str:
    return f"{statistics.mean(values):.1%}" if values else ""


def _accuracy(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{spread}"


def _seconds(found: dict[str, Any] | None, runs: list[dict[str, Any]], mark: float) -> str:
    """Return the seconds of steps up to the first epoch at a mark, by the mean of the runs' accuracies."""
    if found is None or not runs:
        return ""
    means = [statistics.mean(each) for each in zip(*(run["accuracy"] for run in runs), strict=True)]
    epochs = next((number for number, mean in enumerate(means, start=1) if mean >= mark), None)
    return "" if epochs is None else f"{epochs * found['step'] / 1000 * -(-60000 // BATCH):.1f}"


if __name__ == "__main__":
    main()
