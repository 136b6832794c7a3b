"""The figure of docs/choosing-lambda.md: python benchmarks/choosing_lambda.py [--out docs/choosing-lambda.png].

A perceptron 784-200-80-10 learns the embedded sample for 6 epochs, seed 0. Left: the density that a fixed λ ends at,
for LinBreg and for AdaBreg at two learning rates. Right: the λ that the controllers find when 5 % of the weights are
asked for. The numbers go to benchmarks/results/choosing_lambda.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch_bregman as tb

GOAL = 0.05
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "LinBreg, lr = 0.1": {"name": "linbreg", "lr": 0.1},
    "AdaBreg, lr = 0.001": {"name": "adabreg", "lr": 0.001},
    "AdaBreg, lr = 0.01": {"name": "adabreg", "lr": 0.01},
}
LAMS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
RESULTS = Path(__file__).parent / "results" / "choosing_lambda.json"


def train(out: str, optim: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    """Return the log of a run."""
    plain = {"name": "run", "epochs": 6, "out": out, "threads": 1, "optim": optim, **fields}
    return tb.fit(tb.Conf.from_dict(plain), observers=[]).rows


def measure() -> dict[str, Any]:
    """Return density and accuracy by λ, and λ by epoch under a controller."""
    fixed: dict[str, list[list[float]]] = {}
    steered: dict[str, list[list[Any]]] = {}
    with tempfile.TemporaryDirectory() as out:
        for label, optim in OPTIMIZERS.items():
            runs = [(lam, train(out, optim, regularizer={"lam": lam})[-1]) for lam in LAMS]
            fixed[label] = [[lam, row["density"], row["val_accuracy"]] for lam, row in runs]
            rows = train(out, optim, target={"density": GOAL, "consolidate": 0.0}, start={"density": 0.2})
            steered[label] = [[row["epoch"], row["lam"]["0"], row["density"], row["val_accuracy"]] for row in rows]
            print(f"{label}: {fixed[label]}; steered {steered[label]}")
    return {"goal": GOAL, "fixed": fixed, "steered": steered}


def draw(found: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for label in found["fixed"]:
        lams, densities, _ = zip(*found["fixed"][label], strict=True)
        left.plot(lams, [100 * density for density in densities], "o-", label=label)
        epochs, steered, *_ = zip(*found["steered"][label], strict=True)
        right.plot(epochs, steered, "o-", label=label)
    left.axhline(100 * found["goal"], color="black", linewidth=0.8, linestyle=":")
    left.set(xscale="log", yscale="log", xlabel="λ, fixed", ylabel="weights left, %", title="What a λ gives")
    right.set(yscale="log", xlabel="epoch", ylabel="λ, found", title=f"The λ that {found['goal']:.0%} takes")
    left.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "choosing-lambda.png")
    parser.add_argument("--draw", action="store_true", help="draw the numbers that are there, without training")
    arguments = parser.parse_args()
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if arguments.draw else measure()
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(found, arguments.out)


if __name__ == "__main__":
    main()
