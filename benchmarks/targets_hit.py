"""Is the size hit that was asked for? python benchmarks/targets_hit.py --data DIR [--sets mnist] [--kinds l1].

LeNet-300-100, 2 epochs, seed 0, for seven sizes × what is asked for (weights under ℓ1, whole units by what reads them,
numbers stored under the nuclear norm, the last layer dense) × LinBreg and AdaBreg × MNIST and Fashion-MNIST, everything
else left to the recipe. DIR holds a folder for each set. Cells that are in benchmarks/results/targets_hit.json are not
run again; a Markdown table goes beside it. Two epochs are too few for good accuracies: the question is whether a cell
hits its target and learns at all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

import torch_bregman as tb
from torch_bregman.metrics import named_weights, rank
from torch_bregman.views import get_view

GOALS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5)
KINDS: dict[str, dict[str, Any]] = {
    "l1": {"target": "density"},
    "units": {"target": "units"},
    "nuclear": {
        "target": "params",
        "regularizer": {"name": "nuclear"},
        "rules": {"fc3": {"name": "none", "lam": 0.0}},
    },
}
OPTIMIZERS = ("linbreg", "adabreg")
RESULTS = Path(__file__).parent / "results" / "targets_hit.json"


def size(kind: str, model: torch.nn.Module) -> tuple[int, int, int]:
    """Return what is there, what a dense network has, and what one unit more would be."""
    weights = list(named_weights(model).values())
    whole = sum(weight.numel() for weight in weights)
    if kind == "l1":
        return sum(int(weight.count_nonzero()) for weight in weights), whole, 1
    if kind == "units":
        rules, named = tb.outgoing_groups(model, torch.zeros(1, 1, 28, 28)), dict(model.named_parameters())
        live = [get_view(rule.view).live(named[name].detach()) for name, rule in rules.items()]
        return sum(int(each.sum()) for each in live), sum(each.numel() for each in live), 1
    sides = [sum(weight.shape) for weight in weights]
    stored = [min(rank(weight) * side, weight.numel()) for weight, side in zip(weights, sides, strict=True)]
    return sum(stored), whole, max(sides)


def cell(kind: str, goal: float, optimizer: str, name: str, data: Path) -> dict[str, Any]:
    """Train one network, and look at its size."""
    asks = KINDS[kind]
    with tempfile.TemporaryDirectory() as out:
        plain = {
            "name": "run",
            "epochs": 2,
            "out": out,
            "threads": 1,
            "model": {"name": "lenet_300_100"},
            "data": {"name": name, "dir": str(data / name), "batch_size": 100, "validation": 0.0},
            "optim": {"name": optimizer},
            "target": {asks["target"]: goal},
            **{key: value for key, value in asks.items() if key != "target"},
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
    good = [each for each in cells.values() if each.get("hit") and each["accuracy"] > 0.5 and not each["empty"]]
    lines = [
        "# Are the sizes hit that were asked for?",
        "",
        f"LeNet-300-100, 2 epochs, seed 0. {len(good)} of {len(cells)} cells hit their target within one unit (a "
        "weight, a hidden unit, a rank), with no empty layer and an accuracy above 50 %. Each cell: size "
        "got of size asked, test accuracy in %. Made by `benchmarks/targets_hit.py`.",
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
        return found["error"][:60]
    missed = "" if found["hit"] else " **missed**"
    return f"{found['got']:,} of {found['asked']:,}{missed}, {100 * found['accuracy']:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist and fashion-mnist")
    parser.add_argument("--sets", nargs="+", default=["mnist", "fashion-mnist"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--goals", nargs="+", type=float, default=list(GOALS))
    arguments = parser.parse_args()
    cells = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for name in arguments.sets:
        for kind in arguments.kinds:
            for optimizer in OPTIMIZERS:
                for goal in arguments.goals:
                    key = f"{name}/{kind}/{optimizer}/{goal}"
                    if key not in cells:
                        cells[key] = cell(kind, goal, optimizer, name, arguments.data)
                        print(key, cells[key], flush=True)
                        RESULTS.write_text(json.dumps(dict(sorted(cells.items())), indent=1) + "\n", encoding="utf-8")
    RESULTS.with_suffix(".md").write_text(table(cells), encoding="utf-8")


if __name__ == "__main__":
    main()
