"""Train with every engine for singular value thresholding, same seeds: accuracy, ranks, time and error side by side.

    python benchmarks/low_rank_training.py --data DIR --seeds 3

Takes the perceptron 784-512-512-10 under the nuclear norm (λ = 0.5, LinBreg, lr 0.1, batch 128, from rank 5) through a
few hundred steps on MNIST, the embedded sample without --data: dense weights with every engine, and low-rank layers
that form no weights (`factored`, and `pass-free` with refresh=10). `randomized` is given a cap below the ranks that the
others find, to show what that does. Results go to benchmarks/results/low_rank_training.json, and a table beside it.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import torch_bregman as tb
from torch_bregman.linalg import svt_gram

RESULTS = Path(__file__).parent / "results" / "low_rank_training.json"
ENGINES = ["full", "gram", "tracked", "auto", "factored", "pass-free", "randomized(10)"]
REFRESH = {"factored": 1, "pass-free": 10}
LAM, LR, BATCH, CHECK = 0.5, 0.1, 128, 50

Look = Callable[[], tuple[Tensor, Tensor]]


def main() -> None:
    """Train what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the full MNIST")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--engines", nargs="+", default=ENGINES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = tb.data.load("mnist" if options.data else "sample", options.data)
    train, test = (tb.data.normalize(part, data.mean, data.std) for part in (data.train, data.test))
    entries = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    for engine in options.engines:
        for seed in range(options.seeds):
            made_from = {"engine": engine, "seed": seed, "steps": options.steps, "data": data.name}
            if any(made_from.items() <= entry.items() for entry in entries):
                continue
            entries = [e for e in entries if (e["engine"], e["seed"]) != (engine, seed)]
            entries.append({**made_from, **run(engine, seed, options.steps, train, test), **environment()})
            print(entries[-1], flush=True)
            save(entries)
    save(entries)


def run(
    engine: str, seed: int, steps: int, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> dict[str, Any]:
    """Return the outcome of one training."""
    torch.manual_seed(seed)
    model = tb.low_rank_(tb.models.mlp([784, 512, 512, 10]), 5, seed=seed)
    optimizer, looks = (factored if engine in REFRESH else dense)(model, engine)
    times, errors = [], []
    for number, (x, y) in enumerate(batches(train, seed, steps), start=1):
        start = time.thread_time()
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        times.append(time.thread_time() - start)
        if number % CHECK == 0:
            errors.append(max(error(*look()) for look in looks))
    return {
        "test_accuracy": accuracy(model, test),
        "ranks": [int(torch.linalg.matrix_rank(look()[0].double(), rtol=1e-5)) for look in looks],
        "step_ms": 1000 * statistics.median(times),
        "worst_error": max(errors, default=0.0),
    }


def dense(model: nn.Module, engine: str) -> tuple[torch.optim.Optimizer, list[Look]]:
    """Return an optimizer of dense weights, and what gives a weight and its dual."""
    hidden = {"fc1.weight": tb.Nuclear(LAM, engine=engine), "fc2.weight": tb.Nuclear(LAM, engine=engine)}
    optimizer = tb.LinBreg(tb.param_groups(model, hidden), lr=LR)
    weights = [p for name, p in model.named_parameters() if name in hidden]
    return optimizer, [lambda w=w: (w, optimizer.state[w]["subgrad"]) for w in weights]


def factored(model: nn.Module, form: str) -> tuple[torch.optim.Optimizer, list[Look]]:
    """Return an optimizer of low-rank layers, and what gives a weight and its dual."""
    tb.layers.to_factored(model, LAM, refresh=REFRESH[form])
    layers = [layer for layer in model.children() if isinstance(layer, tb.layers.LowRankLinear)]
    return tb.FactoredLinBreg(model, lr=LR), [lambda layer=layer: (layer.weight, layer.subgrad) for layer in layers]


def batches(train: tuple[Tensor, Tensor], seed: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled batches, epoch after epoch."""
    source, generator = tb.data.Batches(*train, BATCH, drop_last=True), torch.Generator().manual_seed(seed)
    while True:
        for pair in source.epoch(generator):
            if not steps:
                return
            steps -= 1
            yield pair


@torch.no_grad()
def error(weight: Tensor, dual: Tensor) -> float:
    """Return ‖θ − SVT_λ(v)‖ / ‖SVT_λ(v)‖ against the float64 result."""
    exact = svt_gram(dual.double(), LAM)
    return float((weight - exact).norm() / exact.norm())


@torch.no_grad()
def accuracy(model: nn.Module, test: tuple[Tensor, Tensor]) -> float:
    """Return the share of test images classified correctly."""
    return float((model(test[0]).argmax(1) == test[1]).double().mean())


def environment() -> dict[str, Any]:
    """Return what the times depend on."""
    return {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1}


def save(entries: list[dict[str, Any]]) -> None:
    """Write all entries, and the table."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n")
    first = entries[0]
    lines = [
        f"Perceptron 784-512-512-10 on {first['data']}, {first['steps']} steps of LinBreg under the nuclear norm, one",
        "CPU thread; mean ± standard deviation over seeds; made by `benchmarks/low_rank_training.py`. The error is the",
        "worst seen against a float64 thresholding of the same dual variable.",
        "",
        "| engine | seeds | test accuracy, % | ranks (seed 0) | ms a step | worst error |",
        "|---|---|---|---|---|---|",
    ]
    for engine in dict.fromkeys(entry["engine"] for entry in entries):
        own = [entry for entry in entries if entry["engine"] == engine]
        scores = [100 * entry["test_accuracy"] for entry in own]
        deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
        step = statistics.median(entry["step_ms"] for entry in own)
        worst = max(entry["worst_error"] for entry in own)
        lines.append(
            f"| {engine} | {len(own)} | {statistics.mean(scores):.2f} ± {deviation:.2f} "
            f"| {', '.join(map(str, own[0]['ranks']))} | {step:.1f} | {worst:.0e} |"
        )
    RESULTS.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
