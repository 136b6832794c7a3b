"""Train shipped configurations with several seeds: mean and spread of test accuracy and size, last epoch.

    python benchmarks/shipped_configs.py --seeds 5 mlp-sample mlp-dense

Results go to benchmarks/results/shipped_configs.json, one entry a configuration and seed, and from there to the table
beside it. What is there for the same configuration is not trained again. mlp-mnist and mlp-mnist-adabreg are variants
of `bregman experiment run jmlr-mlp`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

import torch_bregman as tb

RESULTS = Path(__file__).parent / "results" / "shipped_configs.json"
_FREE = ("name", "out", "seed", "threads")
CONFIGS = Path(__file__).parent.parent / "configs"


def main() -> None:
    """Train what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", help="names of files in configs/")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", help="folder of the full data set")
    options = parser.parse_args()
    torch.set_num_threads(1)
    entries = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    for name in options.configs:
        for seed in range(options.seeds):
            conf = tb.Conf.from_yaml(str(CONFIGS / f"{name}.yaml"))
            settings = {key: value for key, value in conf.to_dict().items() if key not in _FREE}
            known = [e for e in entries if e["config"] == name and e["seed"] == seed]
            if known and known[0]["settings"] == settings:
                continue
            entries = [e for e in entries if e not in known]
            conf.seed, conf.data.dir = seed, options.data
            entries.append({"config": name, "seed": seed, "settings": settings, **train(conf)})
            save(sorted(entries, key=lambda e: (e["config"], e["seed"])))
            print(name, seed, entries[-1]["test_accuracy"], entries[-1]["density"], flush=True)


def train(conf: tb.Conf) -> dict[str, Any]:
    """Return the final numbers of one run."""
    with tempfile.TemporaryDirectory() as out:
        conf.out = out
        summary = tb.fit(conf, observers=[]).summary
    keys = ("test_accuracy", "density", "weights_left", "weights", "stored", "seconds")
    machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1}
    return {**{key: summary[key] for key in keys if key in summary}, **machine}


def save(entries: list[dict[str, Any]]) -> None:
    """Write all entries, and a table of means and standard deviations."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n")
    lines = [
        "Test accuracy after the last epoch, mean ± standard deviation over seeds 0, 1, …; made by",
        "`benchmarks/shipped_configs.py`, one CPU thread.",
        "",
        "| configuration | seeds | test accuracy, % | weights left, % | numbers stored |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(e["config"] for e in entries):
        own = [e for e in entries if e["config"] == name]
        stored = spread([e.get("stored", e["weights_left"]) for e in own], 1, 0)
        accuracy, left = (spread([e[key] for e in own], 100, 2) for key in ("test_accuracy", "density"))
        lines.append(f"| {name} | {len(own)} | {accuracy} | {left} | {stored} |")
    RESULTS.with_suffix(".md").write_text("\n".join(lines) + "\n")


def spread(values: list[float], scale: float, digits: int) -> str:
    """Return mean ± standard deviation."""
    scaled = [scale * value for value in values]
    deviation = statistics.stdev(scaled) if len(scaled) > 1 else 0.0
    return f"{statistics.mean(scaled):,.{digits}f} ± {deviation:,.{digits}f}"


if __name__ == "__main__":
    main()
