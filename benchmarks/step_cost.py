"""Cost of one optimizer step: python benchmarks/step_cost.py [--compiled] [--out benchmarks/results/step_cost.json].

A run of all sets takes minutes; in pieces: --sets mlp --out FILE, then --sets resnet18 --add --out FILE, and so on.

Gradients are set beforehand, so that only `step()` is timed, on one thread. In every round each optimizer gets one
window of time, in an order drawn anew, and is compared with its reference *of the same round*: what counts is the
median of these paired ratios, for a shared machine drifts between rounds but hardly within one. Time is the CPU time of
the process: what other processes take does not count, what the traffic to memory costs does.

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
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import torch_bregman as tb
from parameter_shapes import Shapes, mlp, resnet18, transformer

Params = list[nn.Parameter]

WINDOW = 0.006
"""Seconds of stepping that are timed together, at least."""

LR, L1_LAM, GROUP_LAM = 1e-3, 1e-2, 1e-3


class Subject(NamedTuple):
    """An optimizer, and the name of the one that it is compared with."""

    build: Callable[[Params], Any]
    reference: str


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


def controller_subjects() -> dict[str, Subject]:
    """Return looks of controllers beside the step that ten of which go with one look."""
    l1, group = tb.L1(L1_LAM), tb.GroupL2(GROUP_LAM)
    beside = {"Adam fused": torch_subjects()["Adam fused"]._replace(reference="Adam fused")}
    beside["AdaBreg l1"] = own_subjects()["AdaBreg l1"]
    return {
        **beside,
        "one look of LamByQuantile, l1": Subject(lambda ps: Looks(ps, l1), "AdaBreg l1"),
        "one look of LamByQuantile, rows": Subject(lambda ps: Looks(ps, group), "AdaBreg l1"),
        "one look of LamByFeedback, l1": Subject(lambda ps: Looks(ps, l1, feedback=True), "AdaBreg l1"),
    }


class Looks:
    """Takes no steps, but one look of a controller at each: a tenth of its ratio is what it adds to a step."""

    def __init__(self, params: Params, regularizer: tb.Regularizer, feedback: bool = False) -> None:
        optimizer = tb.AdaBreg(on_weights(params, regularizer=regularizer), lr=LR)
        optimizer.step()
        kind = tb.schedulers.LamByFeedback if feedback else tb.schedulers.LamByQuantile
        self.control = kind(optimizer, tb.schedulers.Density(0.05), every=1)

    def step(self) -> None:
        """Look once."""
        self.control.step()


def compiled_subjects() -> dict[str, Subject]:
    l1, group = tb.L1(L1_LAM), tb.GroupL2(GROUP_LAM)
    linbreg: dict[str, Any] = {"lr": LR, "compiled": True}
    nesterov: dict[str, Any] = {**linbreg, "momentum": 0.9, "nesterov": True}
    return {
        "LinBreg l1 compiled": Subject(lambda ps: tb.LinBreg(ps, **linbreg, regularizer=l1), "SGD"),
        "LinBreg rows compiled": Subject(lambda ps: tb.LinBreg(on_weights(ps, regularizer=group), **linbreg), "SGD"),
        "LinBreg l1 nesterov compiled": Subject(
            lambda ps: tb.LinBreg(ps, **nesterov, regularizer=l1), "SGD nesterov fused"
        ),
        "LinBreg rows nesterov compiled": Subject(
            lambda ps: tb.LinBreg(on_weights(ps, regularizer=group), **nesterov), "SGD nesterov fused"
        ),
        "AdaBreg l1 compiled": Subject(lambda ps: tb.AdaBreg(ps, lr=LR, regularizer=l1, compiled=True), "Adam fused"),
    }


def peer_subjects() -> dict[str, Subject]:
    try:
        import bregman  # pyright: ignore[reportMissingImports] - a peer
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


def first_steps(optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, float]:
    """Return the seconds by the clock of every first step, which makes the state, and compiles."""
    seconds = {}
    for name, optimizer in optimizers.items():
        start = time.perf_counter()
        optimizer.step()
        seconds[name] = time.perf_counter() - start
    return seconds


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


def measure_set(name: str, subjects: dict[str, Subject], factor: float) -> dict[str, Any]:
    """Return all that is measured on one set of parameters."""
    shapes, rounds = SETS[name][0](), max(2, round(SETS[name][1] * factor))
    optimizers = prepare(shapes, subjects)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCH_BREGMAN_CACHE"] = cache  # an empty one: compilation takes what it takes the first time
        first = first_steps(optimizers)
        rows = summarise(measure(optimizers, rounds), subjects)
    about = {"parameters": sum(map(math.prod, shapes)), "tensors": len(shapes), "rounds": rounds}
    return {**about, "optimizers": {key: {**row, "first_step_s": round(first[key], 4)} for key, row in rows.items()}}


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cpu, load = (
        names[0] if names else platform.processor(),
        round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    )
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.system(), "load": load}


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
            f"{about['cpu']}, {about['cores']} cores, one thread; {told}; {result['date']}; load {about['load']}.",
            "× is the median of the ratios to the reference within a round, with its quartiles.",
            *compilation(sets),
            "Made by `benchmarks/step_cost.py`.",
            "",
            *lines,
            "",
        ]
    )


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return a new result with the sets that only an older one has, which has to be of the same machine and versions.

    Raises:
        SystemExit: where it is of others.
    """
    for key in ("versions", "date"):
        if old[key] != new[key]:
            raise SystemExit(f"{key} of the older result are {old[key]}, now {new[key]}: measure all sets anew")
    if old["machine"]["cpu"] != new["machine"]["cpu"]:
        raise SystemExit(f"the older result is of {old['machine']['cpu']}: measure all sets anew")
    sets = {**old["sets"], **new["sets"]}
    return {**new, "sets": {name: sets[name] for name in SETS if name in sets}}


def compilation(sets: dict[str, Any]) -> list[str]:
    """Return a sentence on the first compiled step of a process, the only one that waits for the compiler."""
    seconds = [
        f"{of} {max(row['first_step_s'] for name, row in result['optimizers'].items() if 'compiled' in name):.1f} s"
        for of, result in sets.items()
        if any("compiled" in name for name in result["optimizers"])
    ]
    return [f"Longest first step, compilation included: {', '.join(seconds)}."] if seconds else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write the JSON; a Markdown table goes beside it")
    parser.add_argument("--compiled", action="store_true", help="also the compiled step")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="which sets of parameters")
    parser.add_argument("--add", action="store_true", help="keep the other sets that --out holds already")
    parser.add_argument("--rounds", type=float, default=1.0, help="factor on the number of rounds, default 1")
    parser.add_argument("--controllers", action="store_true", help="looks of controllers of λ, and nothing else")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    peer = {} if arguments.controllers else peer_subjects()
    subjects = {**torch_subjects(), **own_subjects(), **(compiled_subjects() if arguments.compiled else {}), **peer}
    if arguments.controllers:
        subjects = controller_subjects()
    sets = {name: measure_set(name, subjects, arguments.rounds) for name in arguments.sets}
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    result = {"machine": machine(), "versions": versions(bool(peer)), "date": date, "sets": sets}
    if arguments.add and arguments.out and arguments.out.exists():
        result = merged(json.loads(arguments.out.read_text(encoding="utf-8")), result)
    print(table(result))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        arguments.out.with_suffix(".md").write_text(table(result), encoding="utf-8")


if __name__ == "__main__":
    main()
