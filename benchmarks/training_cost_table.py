"""The table of `training_cost.py`, from its rows."""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import Any

from torch_bregman.experiments.significance import student_quantile
from training_cost_methods import BATCH, NETS, SETS, M


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return all rows as Markdown."""
    lines = [
        "# What training costs",
        "",
        f"Batches of {BATCH}, m = {M}; made by `benchmarks/training_cost.py`, one thread. A step is the mean of",
        "coarse and fine ones at the mean size of a run, on a quiet machine, beside one of dense SGD by `F.linear`",
        "and by oneDNN, the harder of the two in bold. Operations are a count by the formula of the literature, no",
        "seconds. Accuracy: mean ± standard deviation over seeds of the test accuracy after the last epoch, in %.",
        "LinBreg has the settings of the same run in cycles. What freezing costs is the difference in accuracy,",
        "paired by seed, with Student's 95 % interval. Times are of a machine with AVX-512 and 1 MB of second-level",
        "cache a core, with glibc told to keep memory (docs/training-cost.md), which dense training gains most from.",
        "The column malloc has the share of the harder baseline without that, as a program runs that sets nothing;",
        "the column AVX2 that of the version before on a machine without AVX-512, with 512 KB, where the ConvNet's",
        "channels did not lie beside each other.",
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
        "malloc",
        "AVX2",
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
            *(_harder(found.get(f"{key}/{net}/{method}")) for key in ("malloc", "before")),
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


def _harder(found: dict[str, Any] | None) -> str:
    """Return the share of the harder baseline that a step took."""
    return "" if found is None else f"{max(found['step'] / found[key] for key in ('dense', 'onednn')):.3f}"


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
