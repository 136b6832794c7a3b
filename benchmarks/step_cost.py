"""Cost of one optimizer step: python benchmarks/step_cost.py [--compiled] [--out benchmarks/results/step_cost.json].

Gradients are set beforehand, so that only `step()` is timed, on one thread. In every round each optimizer gets one
window of time, in an order drawn anew, and is compared with its reference *of the same round*: what counts is the median
of these paired ratios, for a shared machine drifts between rounds but hardly within one. Time is the CPU time of the
process: what other processes take does not count, what the traffic to memory costs does.

The peer is `bregman-learning` from PyPI (which needs igraph and texttable); without it its rows are left out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import torch_bregman as tb

Params = list[nn.Parameter]
Shapes = list[tuple[int, ...]]

WINDOW = 0.006
"""Seconds of stepping that are timed together, at least."""

LR, L1_LAM, GROUP_LAM = 1e-3, 1e-2, 1e-3


class Subject(NamedTuple):
    """An optimizer, and the name of the one that it is compared with."""

    build: Callable[[Params], torch.optim.Optimizer]
    reference: str


def mlp() -> Shapes:
    """Shapes of an MLP 784-200-80-10."""
    widths = [(200, 784), (80, 200), (10, 80)]
    return [shape for out, into in widths for shape in ((out, into), (out,))]


def resnet18() -> Shapes:
    """Shapes of a ResNet-18 for 1000 classes, batch normalisation included."""
    shapes: Shapes = [(64, 3, 7, 7), (64,), (64,)]
    channels = 64
    for width in (64, 128, 256, 512):
        for into in (channels, width):
            shapes += [(width, into, 3, 3), (width,), (width,), (width, width, 3, 3), (width,), (width,)]
            shapes += [(width, into, 1, 1), (width,), (width,)] if into != width else []
        channels = width
    return [*shapes, (1000, 512), (1000,)]


def transformer() -> Shapes:
    """Shapes of 12 transformer blocks of width 512."""
    attention: Shapes = [(512,), (512,), (1536, 512), (1536,), (512, 512), (512,)]
    feed_forward: Shapes = [(512,), (512,), (2048, 512), (2048,), (512, 2048), (512,)]
    return (attention + feed_forward) * 12


SETS: dict[str, tuple[Callable[[], Shapes], int]] = {
    "mlp": (mlp, 300),
    "resnet18": (resnet18, 150),
    "transformer": (transformer, 60),
}


def on_weights(params: Params, **options: Any) -> list[dict[str, Any]]:
    """Return two groups: weights with the options, vectors without."""
    return [{"params": [p for p in params if p.ndim > 1], **options}, {"params": [p for p in params if p.ndim == 1]}]


def torch_subjects() -> dict[str, Subject]:
    sgd, adam = torch.optim.SGD, torch.optim.Adam
    nesterov: dict[str, Any] = {"lr": LR, "momentum": 0.9, "nesterov": True}
    return {
        "SGD": Subject(lambda ps: sgd(ps, lr=LR), "SGD"),
        "SGD nesterov": Subject(lambda ps: sgd(ps, **nesterov), "SGD nesterov fused"),
        "SGD nesterov fused": Subject(lambda ps: sgd(ps, **nesterov, fused=True), "SGD"),
        "Adam": Subject(lambda ps: adam(ps, lr=LR), "Adam fused"),
        "Adam fused": Subject(lambda ps: adam(ps, lr=LR, fused=True), "SGD"),
    }


def own_subjects() -> dict[str, Subject]:
    l1, group = tb.L1(L1_LAM), tb.GroupL2(GROUP_LAM)
    nesterov: dict[str, Any] = {"lr": LR, "momentum": 0.9, "nesterov": True}
    return {
        "LinBreg l1": Subject(lambda ps: tb.LinBreg(ps, lr=LR, regularizer=l1), "SGD"),
        "LinBreg rows": Subject(lambda ps: tb.LinBreg(on_weights(ps, regularizer=group), lr=LR), "SGD"),
        "LinBreg l1 nesterov": Subject(lambda ps: tb.LinBreg(ps, **nesterov, regularizer=l1), "SGD nesterov fused"),
        "LinBreg rows nesterov": Subject(
            lambda ps: tb.LinBreg(on_weights(ps, regularizer=group), **nesterov), "SGD nesterov fused"
        ),
        "AdaBreg l1": Subject(lambda ps: tb.AdaBreg(ps, lr=LR, regularizer=l1), "Adam fused"),
        "ProxSGD l1": Subject(lambda ps: tb.ProxSGD(ps, lr=LR, regularizer=l1), "SGD"),
    }


def compiled_subjects() -> dict[str, Subject]:
    l1 = tb.L1(L1_LAM)
    return {
        "LinBreg l1 compiled": Subject(lambda ps: tb.LinBreg(ps, lr=LR, regularizer=l1, compiled=True), "SGD"),
        "AdaBreg l1 compiled": Subject(lambda ps: tb.AdaBreg(ps, lr=LR, regularizer=l1, compiled=True), "Adam fused"),
    }


def peer_subjects() -> dict[str, Subject]:
    try:
        import bregman
    except ImportError as error:
        print(f"bregman-learning is left out: {error} (pip install bregman-learning igraph texttable)")
        return {}
    l1, rows = bregman.L1(L1_LAM), bregman.L12(GROUP_LAM)
    return {
        "peer LinBreg l1": Subject(lambda ps: bregman.LinBreg(ps, lr=LR, reg=l1), "SGD"),
        "peer LinBreg rows": Subject(lambda ps: bregman.LinBreg(on_weights(as_matrices(ps), reg=rows), lr=LR), "SGD"),
        "peer AdaBreg l1": Subject(lambda ps: bregman.AdaBreg(ps, lr=LR, reg=l1), "Adam fused"),
    }


def as_matrices(params: Params) -> Params:
    """Return new parameters of at most two dimensions: the peer's group norm takes no convolutions."""
    flat = [nn.Parameter(p.detach().flatten(1) if p.ndim > 2 else p.detach()) for p in params]
    for new, old in zip(flat, params, strict=True):
        new.grad = old.grad.reshape(new.shape) if old.grad is not None else None
    return flat


def prepare(shapes: Shapes, subjects: dict[str, Subject]) -> dict[str, torch.optim.Optimizer]:
    """Build every optimizer over parameters of its own; the gradients, which nobody writes to, are shared."""
    grads = [0.1 * torch.randn(shape) for shape in shapes]
    optimizers = {}
    for name, subject in subjects.items():
        params = [nn.Parameter(0.05 * torch.randn(shape)) for shape in shapes]
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        optimizers[name] = subject.build(params)
    return optimizers


def spend(optimizer: torch.optim.Optimizer, steps: int) -> float:
    """Return the CPU seconds of one step, the mean of so many."""
    start = time.process_time()
    for _ in range(steps):
        optimizer.step()
    return (time.process_time() - start) / steps


def measure(optimizers: dict[str, torch.optim.Optimizer], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of a step, of every optimizer in every round."""
    for optimizer in optimizers.values():
        spend(optimizer, 3)
    steps = {name: math.ceil(WINDOW / spend(optimizer, 3)) for name, optimizer in optimizers.items()}
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    order, draw = list(optimizers), random.Random(0)
    for _ in range(rounds):
        draw.shuffle(order)
        for name in order:
            times[name].append(spend(optimizers[name], steps[name]))
    return times


def summarise(times: dict[str, list[float]], subjects: dict[str, Subject]) -> dict[str, Any]:
    """Return medians in ms, and the quartiles of the ratios to the reference in the same round."""
    rows = {}
    for name, seconds in times.items():
        reference = subjects[name].reference
        low, middle, high = statistics.quantiles([a / b for a, b in zip(seconds, times[reference], strict=True)], n=4)
        rows[name] = {
            "ms": round(1e3 * statistics.median(seconds), 4),
            "reference": reference,
            "ratio": round(middle, 3),
            "quartiles": [round(low, 3), round(high, 3)],
        }
    return rows


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(), "system": platform.system()}


def versions(peer: bool) -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__, "torch-bregman": tb.__version__}
    return {**found, "bregman-learning": importlib.metadata.version("bregman-learning")} if peer else found


def table(result: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    sets, about = result["sets"], result["machine"]
    head = [f"{name} ({of['parameters'] / 1e6:.3g}M in {of['tensors']}), ms | ×" for name, of in sets.items()]
    lines = ["| optimizer | reference | " + " | ".join(head) + " |", "|---|---|" + "---:|---:|" * len(sets)]
    for name, row in next(iter(sets.values()))["optimizers"].items():
        cells = [of["optimizers"][name] for of in sets.values()]
        spread = [
            f"{c['ms']:.3g} | **{c['ratio']:.2f}** [{c['quartiles'][0]:.2f}, {c['quartiles'][1]:.2f}]" for c in cells
        ]
        lines.append(f"| {name} | {row['reference']} | " + " | ".join(spread) + " |")
    told = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    return "\n".join(
        [
            "# Cost of one optimizer step",
            "",
            f"{about['cpu']}, {about['cores']} cores, one thread; {told}; {result['date']}. × is the median of the ratios",
            "to the reference within a round, with its quartiles. Made by `benchmarks/step_cost.py`.",
            "",
            *lines,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write the JSON; a Markdown table goes beside it")
    parser.add_argument("--compiled", action="store_true", help="also the compiled step (minutes of compilation)")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="which sets of parameters")
    parser.add_argument("--rounds", type=float, default=1.0, help="factor on the number of rounds, default 1")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    peer = peer_subjects()
    subjects = {**torch_subjects(), **own_subjects(), **(compiled_subjects() if arguments.compiled else {}), **peer}
    sets = {}
    for name in arguments.sets:
        shapes, rounds = SETS[name][0](), max(2, round(SETS[name][1] * arguments.rounds))
        times = measure(prepare(shapes, subjects), rounds)
        about = {"parameters": sum(map(math.prod, shapes)), "tensors": len(shapes), "rounds": rounds}
        sets[name] = {**about, "optimizers": summarise(times, subjects)}
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    result = {"machine": machine(), "versions": versions(bool(peer)), "date": date, "sets": sets}
    print(table(result))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        arguments.out.with_suffix(".md").write_text(table(result), encoding="utf-8")


if __name__ == "__main__":
    main()
