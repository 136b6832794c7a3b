"""Is the size hit that was asked for? python benchmarks/targets_hit.py --data DIR [--sets mnist] [--kinds l1].

LeNet-300-100, 2 epochs, seed 0, for seven sizes × what is asked for (weights under ℓ1; whole units by what reads them;
rows, the last layer dense; numbers stored under the nuclear norm, the last layer dense; multiply-adds of the compacted
network by whole units) × LinBreg and AdaBreg × MNIST and Fashion-MNIST, everything else left to the recipe; with
--model lenet5_caffe LeNet-5 on MNIST at three sizes, 1 epoch, kernels of convolutions in place of rows. DIR holds a
folder for each set. Cells that are in benchmarks/results/targets_hit.json are not run again; a Markdown table goes
beside it. Two epochs are too few for good accuracies: the question is whether a cell
hits its target and learns at all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

import torch_bregman as tb
from torch_bregman.metrics import cost_report, named_weights, rank
from torch_bregman.views import Rows, get_view

GOALS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5)
DENSE = {"name": "none", "lam": 0.0}
KINDS: dict[str, dict[str, Any]] = {
    "l1": {"target": "density"},
    "units": {"target": "units"},
    "rows": {"target": "units", "regularizer": {"name": "group_l2", "options": {"view": "rows"}}, "dense": True},
    "kernels": {"target": "units", "regularizer": {"name": "group_l2", "options": {"view": "kernels"}}},
    "nuclear": {"target": "params", "regularizer": {"name": "nuclear"}, "dense": True},
    "macs": {"target": "macs", "regularizer": {"name": "outgoing"}},
}
MODELS = {
    "lenet_300_100": (["fc3"], ["l1", "units", "rows", "nuclear", "macs"], GOALS, 2),
    "lenet5_caffe": (["classifier.fc2"], ["l1", "units", "kernels", "nuclear", "macs"], (0.01, 0.05, 0.25), 1),
}
OPTIMIZERS = ("linbreg", "adabreg")
RESULTS = Path(__file__).parent / "results" / "targets_hit.json"
IMAGE = torch.zeros(1, 1, 28, 28)


def size(kind: str, model: torch.nn.Module) -> tuple[int, int, int]:
    """Return what is there, what a dense network has, and what one unit more would be."""
    named = named_weights(model)
    weights = list(named.values())
    whole = sum(weight.numel() for weight in weights)
    if kind == "l1":
        return sum(int(weight.count_nonzero()) for weight in weights), whole, 1
    if kind == "macs":
        return multiply_adds(model)
    if kind in ("units", "rows", "kernels"):
        live = [get_view(view).live(named[name].detach()) for name, view in views(kind, model).items()]
        return sum(int(each.sum()) for each in live), sum(each.numel() for each in live), 1
    sides = [sum(Rows().matrix(weight).shape) for weight in weights]
    ranks = [rank(weight, _rounding(weight)) for weight in weights]
    stored = [min(r * side, weight.numel()) for r, side, weight in zip(ranks, sides, weights, strict=True)]
    return sum(stored), whole, max(sides)


def _rounding(weight: torch.Tensor) -> float:
    """Return √max(m, n)·eps·σ_1: ten times what rounding left of the products of factors that were looked at.

    The default of `rank`, max(m, n)·eps·σ_1, is safe, and loses the weakest of the directions that a network stores.
    """
    matrix = Rows().matrix(weight.detach())
    leading = float(torch.linalg.matrix_norm(matrix, 2))
    return max(matrix.shape) ** 0.5 * torch.finfo(weight.dtype).eps * leading


def views(kind: str, model: torch.nn.Module) -> dict[Any, Any]:
    """Return how each weight that has groups is seen."""
    if kind == "units":
        rules: dict[Any, Any] = tb.outgoing_groups(model, IMAGE)
        return {name: rule.view for name, rule in rules.items()}
    named = named_weights(model)
    return {name: kind for name in list(named)[:-1] if kind == "rows" or named[name].ndim == 4}


def multiply_adds(model: torch.nn.Module) -> tuple[int, int, int]:
    """Return those of the compacted network and of the dense one, and those of the largest unit that is left."""
    small, _ = tb.compact(model, IMAGE)
    found = cost_report(small, IMAGE).weights
    units = [(one.macs + after.macs) / one.shape[0] for one, after in pairwise(found)]
    return sum(each.macs for each in found), cost_report(model, IMAGE).macs, round(max(units))


def cell(net: str, kind: str, goal: float, optimizer: str, name: str, data: Path) -> dict[str, Any]:
    """Train one network, and look at its size."""
    asks, (last, _, _, epochs) = KINDS[kind], MODELS[net]
    dense = last if asks.get("dense") else ["Linear"] if kind == "kernels" else []
    with tempfile.TemporaryDirectory() as out:
        plain = {
            "name": "run",
            "epochs": epochs,
            "out": out,
            "threads": 1,
            "model": {"name": net},
            "data": {"name": name, "dir": str(data / name), "batch_size": 100, "validation": 0.0},
            "optim": {"name": optimizer},
            "target": {asks["target"]: goal},
            "rules": dict.fromkeys(dense, DENSE),
            **{key: value for key, value in asks.items() if key == "regularizer"},
        }
        try:
            result = tb.fit(tb.Conf.from_dict(plain), observers=[])
        except ValueError as error:
            return {"error": str(error)}
    got, whole, unit = size(kind, result.model)
    accuracy = result.summary["test_accuracy"]
    empty = [key for key, weight in named_weights(result.model).items() if not weight.any()]
    asked = round(goal * whole)
    hit = asked - unit < got <= asked
    return {"asked": asked, "got": got, "unit": unit, "hit": hit, "accuracy": round(accuracy, 4), "empty": empty}


def table(cells: dict[str, dict[str, Any]]) -> str:
    """Return all cells as Markdown, a line for each row of goals."""
    errors = [each["error"] for each in cells.values() if "error" in each]
    diverged = sum("diverged" in error for error in errors)
    refused = len(errors) - diverged
    trained = [each for each in cells.values() if "error" not in each]
    hit = sum(each["hit"] for each in trained)
    empty = [each for each in trained if each["empty"]]
    low = [each for each in trained if each["accuracy"] < 0.5]
    lines = [
        "# Are the sizes hit that were asked for?",
        "",
        f"LeNet-300-100, 2 epochs (LeNet-5: 1), seed 0. Of {len(cells)} cells {refused} are refused at the start, "
        f"for less than one weight, unit or direction a layer was asked for; {diverged} diverged; {hit} hit their "
        f"target within one unit (a weight, a hidden unit, a row, a kernel, a rank, a unit's multiply-adds), "
        f"{len(empty)} have an empty layer, and {len(low)} an accuracy below 50 %, each with so few units or "
        "ranks in a layer that no more can be expected. Each cell: size got of size asked, test accuracy in %. "
        "Made by `benchmarks/targets_hit.py`.",
        "",
        "| data | asked for | optimizer | " + " | ".join(f"{goal:.1%}" for goal in GOALS) + " |",
        "|---|---|---|" + "---:|" * len(GOALS),
    ]
    rows = dict.fromkeys(tuple(key.split("/")[:3]) for key in cells)
    for row in rows:
        found = [cells.get("/".join([*row, str(goal)])) for goal in GOALS]
        lines.append(f"| {' | '.join(row)} | " + " | ".join(map(_shown, found)) + " |")
    return "\n".join([*lines, ""])


def _shown(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    if "error" in found:
        return "**diverged**" if "diverged" in found["error"] else "refused"
    missed = "" if found["hit"] else " **missed**"
    return f"{found['got']:,} of {found['asked']:,}{missed}, {100 * found['accuracy']:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist and fashion-mnist")
    parser.add_argument("--model", choices=MODELS, default="lenet_300_100")
    parser.add_argument("--sets", nargs="+", default=None, help="default both, for LeNet-5 mnist alone")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=None)
    parser.add_argument("--goals", nargs="+", type=float, default=None)
    arguments = parser.parse_args()
    net = arguments.model
    _, kinds, goals, _ = MODELS[net]
    sets, label = ["mnist", "fashion-mnist"], ""
    if net == "lenet5_caffe":
        sets, label = ["mnist"], " LeNet-5"
    cells = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for name in arguments.sets or sets:
        for kind in arguments.kinds or kinds:
            for optimizer in OPTIMIZERS:
                for goal in arguments.goals or goals:
                    key = f"{name}{label}/{kind}/{optimizer}/{goal}"
                    if key not in cells:
                        cells[key] = cell(net, kind, goal, optimizer, name, arguments.data)
                        print(key, cells[key], flush=True)
                        RESULTS.write_text(json.dumps(dict(sorted(cells.items())), indent=1) + "\n", encoding="utf-8")
    RESULTS.with_suffix(".md").write_text(table(dict(sorted(cells.items()))), encoding="utf-8")


if __name__ == "__main__":
    main()
