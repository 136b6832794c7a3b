"""Whole training steps of low-rank training beside dense SGD: python benchmarks/low_rank_step.py [--data FOLDER].

A step is zero_grad, forward, backward and optimizer step of a ReLU network on images of MNIST (FOLDER, or the embedded
sample), on one thread. All start from the same weights of rank 5 and train at the same rate on the same batches; the
low-rank ones all but the last layer, λ = 0.5. What a step costs depends on the rank, and how fast that grows on the
start: a small one, σ₁ ≈ 2.7, has the spectral norm of a dense start; a large one, σ₁ ≈ 6, learns faster and is at rank
22 where the small one is at 16. Subjects:

- dense SGD: `torch.optim.SGD`, the reference;
- dense weights: `LinBreg` with `Nuclear(engine="tracked")`;
- factored: `FactoredLinBreg`, weights never formed;
- pass-free: the same with refresh=10.

After some steps of training, rounds are timed: ten steps of each, one after the other in an order drawn anew, so that a
round of the pass-free form holds a whole cycle. What counts is the median over the rounds of the ratio to dense SGD *in
the same round*. Time is the CPU time of the thread: what other processes take does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import torch_bregman as tb

LAM, LR, RANK = 0.5, 0.1, 5
WINDOW = 10
STARTS = {"large": 0.4, "small": 0.18}
"""Relative to the weights of `low_rank_`: the variance of a dense start in 5 directions is too much for this rate."""
RESULTS = Path(__file__).parent / "results" / "low_rank_step.json"


class Case(NamedTuple):
    """A network, a batch size and a start, steps before the timing, rounds, and the ratios aimed at."""

    sizes: tuple[int, ...]
    batch: int
    start: str
    before: int
    rounds: int
    targets: dict[str, float]


CASES = [
    Case((784, 512, 512, 10), 128, "large", 100, 20, {"dense weights": 1.4, "factored": 0.9}),
    Case((784, 512, 512, 10), 128, "small", 100, 20, {"dense weights": 1.4, "factored": 0.9}),
    Case((784, 512, 512, 10), 512, "large", 100, 20, {"dense weights": 1.15, "factored": 0.9}),
    Case((784, 512, 512, 10), 512, "small", 100, 20, {"dense weights": 1.15, "factored": 0.9}),
    Case((784, 1024, 1024, 10), 128, "large", 100, 20, {"factored": 0.9, "pass-free": 0.5}),
    Case((784, 1024, 1024, 10), 128, "small", 100, 20, {"factored": 0.9, "pass-free": 0.5}),
    Case((784, 1024, 4096, 10), 128, "large", 100, 10, {"factored": 0.9, "pass-free": 0.5}),
]

Training = tuple[nn.Sequential, torch.optim.Optimizer]
Batches = Iterator[tuple[Tensor, Tensor]]


def start(case: Case) -> nn.Sequential:
    """Return the network all begin with."""
    model = tb.models.mlp(case.sizes)
    tb.low_rank_(model, RANK)
    with torch.no_grad():
        for layer in hidden(model):
            layer.weight.mul_(STARTS[case.start])
    return model


def hidden(model: nn.Sequential) -> list[Any]:
    return [layer for layer in model if isinstance(layer, nn.Linear | tb.layers.LowRankLinear)][:-1]


def dense_sgd(case: Case) -> Training:
    model = start(case)
    return model, torch.optim.SGD(model.parameters(), lr=LR)


def dense_weights(case: Case) -> Training:
    model = start(case)
    low_rank = [layer.weight for layer in hidden(model)]
    rest = [p for p in model.parameters() if all(p is not weight for weight in low_rank)]
    groups = [{"params": rest}, {"params": low_rank, "regularizer": tb.Nuclear(LAM, engine="tracked")}]
    return model, tb.LinBreg(groups, lr=LR)


def factored(case: Case, refresh: int = 1) -> Training:
    model = start(case)
    tb.layers.to_factored(model, LAM, refresh=refresh)
    return model, tb.FactoredLinBreg(model, lr=LR)


def pass_free(case: Case) -> Training:
    return factored(case, refresh=10)


SUBJECTS = {"dense SGD": dense_sgd, "dense weights": dense_weights, "factored": factored, "pass-free": pass_free}


def endless(images: Tensor, labels: Tensor, size: int) -> Batches:
    """Yield the same batches to whoever asks."""
    rng, batches = torch.Generator().manual_seed(0), tb.data.Batches(images, labels, size, drop_last=True)
    while True:
        yield from batches.epoch(rng)


def spend(training: Training, batches: Batches, steps: int) -> float:
    """Return the CPU seconds of a step, the mean of so many."""
    model, optimizer = training
    total = 0.0
    for _ in range(steps):
        x, y = next(batches)
        begin = time.thread_time()
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        total += time.thread_time() - begin
    return total / steps


def measure(case: Case, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """Return what every subject took, its ranks and what it has learnt."""
    trainings = {name: build(case) for name, build in SUBJECTS.items()}
    batches = {name: endless(*train, case.batch) for name in SUBJECTS}
    for name, training in trainings.items():
        spend(training, batches[name], case.before)
    first = {name: ranks(*training) for name, training in trainings.items()}
    times: dict[str, list[float]] = {name: [] for name in SUBJECTS}
    order, draw = list(SUBJECTS), random.Random(0)
    for _ in range(case.rounds):
        draw.shuffle(order)
        for name in order:
            times[name].append(spend(trainings[name], batches[name], WINDOW))
    rows = {name: summary(times[name], times["dense SGD"]) for name in SUBJECTS}
    for name, (model, optimizer) in trainings.items():
        rows[name] |= {"ranks": [first[name], ranks(model, optimizer)], "accuracy": accuracy(model, *test)}
        if name in case.targets:
            rows[name]["target"] = case.targets[name]
    steps = case.before + WINDOW * case.rounds
    about = {"sizes": case.sizes, "batch": case.batch, "start": case.start}
    return {**about, "steps": steps, "rounds": case.rounds, "subjects": rows}


def summary(seconds: list[float], reference: list[float]) -> dict[str, Any]:
    low, middle, high = statistics.quantiles([a / b for a, b in zip(seconds, reference, strict=True)], n=4)
    ratios = {"ratio": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)]}
    return {"ms": round(1e3 * statistics.median(seconds), 3), **ratios}


def ranks(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> list[int]:
    if isinstance(optimizer, tb.FactoredLinBreg):
        return [layer.rank for layer in hidden(model)]
    if isinstance(optimizer, tb.LinBreg):
        return [len(optimizer.spectrum(layer.weight)) for layer in hidden(model)]
    return []


@torch.no_grad()
def accuracy(model: nn.Sequential, x: Tensor, y: Tensor) -> float:
    return round(float((model.eval()(x).argmax(1) == y).double().mean()), 4)


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    about = result["machine"]
    told = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    lines = [
        "# Cost of a whole training step, low-rank beside dense",
        "",
        f"{about['cpu']}, {about['cores']} cores, one thread; {told}; {result['date']}; {result['data']}. × is the",
        "median over rounds of ten steps of the ratio to dense SGD in the same round, with its quartiles. Made by",
        "`benchmarks/low_rank_step.py`, which says what is measured.",
        "",
        "| network, batch, start | training | ms | × dense SGD | target | ranks | test accuracy |",
        "|---|---|---:|---:|---:|---|---:|",
    ]
    for case in result["cases"]:
        network = f"{'–'.join(map(str, case['sizes']))}, {case['batch']}, {case['start']}"
        for name, row in case["subjects"].items():
            low, high = row["quartiles"]
            target = f"≤ {row['target']}" if "target" in row else ""
            held = " → ".join(", ".join(map(str, held)) for held in row["ranks"]) if row["ranks"][0] else "full"
            figures = f"{row['ms']:.2f} | **{row['ratio']:.2f}** [{low:.2f}, {high:.2f}] | {target} | {held}"
            lines.append(f"| {network} | {name} | {figures} | {row['accuracy']:.3f} |")
    steps = sorted({case["steps"] for case in result["cases"]})
    return "\n".join([*lines, "", f"Accuracies are those after {', '.join(map(str, steps))} steps in all.", ""])


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(), "system": platform.system()}


def versions() -> dict[str, str]:
    """Return the versions that the numbers depend on."""
    return {"python": platform.python_version(), "torch": torch.__version__, "torch-bregman": tb.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with MNIST; default the embedded sample")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write the JSON; the table goes beside it")
    parser.add_argument("--cases", type=int, nargs="+", default=range(len(CASES)), help="which cases, from 0")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = tb.data.load("mnist", directory=arguments.data) if arguments.data else tb.data.load("sample")
    train, test = (tb.data.normalize(part, data.mean, data.std) for part in (data.train, data.test))
    result: dict[str, Any] = {"machine": machine(), "versions": versions()}
    result |= {"date": datetime.now(timezone.utc).strftime("%Y-%m-%d"), "data": data.name}
    result["cases"] = [measure(CASES[number], train, test) for number in arguments.cases]
    print(table(result))
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    arguments.out.with_suffix(".md").write_text(table(result), encoding="utf-8")


if __name__ == "__main__":
    main()
