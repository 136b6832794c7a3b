"""Singular value thresholding, every engine on the same matrices: python benchmarks/svt.py [--data FOLDER].

The matrices are dual variables at consecutive steps of real training under the nuclear norm on MNIST (FOLDER, or the
embedded sample), see `dual_sequences.py`. Every engine thresholds them one after the other, as in training, after one
call to start from; one thread. They take turns, a few steps each, in an order drawn anew: × is the median over the
steps of the ratio to the full SVD *of the same matrix*. Time is the CPU time of the thread. The error is the largest
relative one in the Frobenius norm against the full SVD in float64, looked at once in each turn.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import torch_bregman as tb
from dual_sequences import CASES, Case, record
from low_rank_step import machine, versions
from torch_bregman.linalg import Engine, FullEngine, GramEngine, RandomizedEngine, new_engine

RESULTS = Path(__file__).parent / "results" / "svt.json"
WINDOW = 5
"""Steps that an engine takes in one go, so that it finds in the cache what it left there, as in training."""
TARGETS = {"200×784": 8, "512×512": 50, "1024×1024": 80}
"""How many times faster than the full SVD the tracked engine shall be."""


def engines(rank: int) -> dict[str, Engine]:
    """Return new engines; those with a fixed rank are put below and above the true one."""
    below, above = max(1, 2 * rank // 3), rank + 8
    return {
        "full": FullEngine(),
        "gram float32": GramEngine(torch.float32),
        "gram float64": GramEngine(),
        "randomized, 2/3 of the rank": RandomizedEngine(below, oversampling=0),
        "randomized, rank + 8": RandomizedEngine(rank, oversampling=above - rank),
        "tracked": new_engine("tracked"),
        "tracked(1e-4)": new_engine("tracked(1e-4)"),
        "matmul": new_engine("matmul"),
        "auto": new_engine("auto"),
    }


def measure(case: Case, data: tb.data.DataSet) -> dict[str, Any]:
    """Return times, ratios and errors of all engines over one sequence."""
    sequence = record(case, data)
    ranks = [int(FullEngine()(sequence[i], case.lam).rank.max()) for i in (0, -1)]
    subjects = engines(ranks[-1])
    for engine in subjects.values():
        engine(sequence[0], case.lam)
    times: dict[str, list[float]] = {name: [] for name in subjects}
    errors: dict[str, list[float]] = {name: [] for name in subjects}
    order, draw = list(subjects), random.Random(0)
    for first in range(1, len(sequence), WINDOW):
        window = sequence[first : first + WINDOW]
        exact = threshold64(window[-1], case.lam)
        draw.shuffle(order)
        for name in order:
            spent, last = follow(subjects[name], window, case.lam)
            times[name] += spent
            errors[name].append(relative_error(last, exact))
    rows = {name: summary(times[name], times["full"], errors[name]) for name in subjects}
    if case.name in TARGETS:
        rows["tracked"]["target"] = TARGETS[case.name]
    return {"case": case.name, "lam": case.lam, "ranks": ranks, "steps": len(sequence) - 1, "engines": rows}


def follow(engine: Engine, window: list[Tensor], t: float) -> tuple[list[float], Tensor]:
    """Return the seconds of every call, and the last matrix thresholded."""
    seconds, result = [], None
    for V in window:
        begin = time.thread_time()
        result = engine(V, t)
        seconds.append(time.thread_time() - begin)
    assert result is not None
    return seconds, result.matrix()


def threshold64(V: Tensor, t: float) -> Tensor:
    """Return the thresholded matrix by the full SVD in float64."""
    return FullEngine()(V.double(), t).matrix()


def relative_error(W: Tensor, exact: Tensor) -> float:
    """Return the largest relative error of a batch."""
    return float(((W - exact).norm(dim=(-2, -1)) / exact.norm(dim=(-2, -1))).max())


def summary(seconds: list[float], full: list[float], errors: list[float]) -> dict[str, Any]:
    ratios = [b / a for a, b in zip(seconds, full, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "ms": round(1e3 * statistics.median(seconds), 3),
        "mean_ms": round(1e3 * statistics.mean(seconds), 3),
        "times_faster": round(middle, 2),
        "quartiles": [round(low, 2), round(high, 2)],
        "worst_error": float(f"{max(errors):.2g}"),
    }


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown, one row an engine, one column a sequence."""
    about, cases = result["machine"], result["cases"]
    told = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    lines = [
        "# Singular value thresholding, engine by engine",
        "",
        f"{about['cpu']}, {about['cores']} cores, one thread; {told}; {result['date']}; duals of training on",
        f"{result['data']}. ms a call (median), times faster than the full SVD of the same matrix (median), and the",
        "worst relative error against the full SVD in float64. Made by `benchmarks/svt.py`, which says how.",
        "",
        "| engine | " + " | ".join(f"{case['case']} (rank {rank_range(case)})" for case in cases) + " |",
        "|---|" + "---|" * len(cases),
    ]
    for name in cases[0]["engines"]:
        cells = [case["engines"][name] for case in cases]
        lines.append(f"| {name} | " + " | ".join(map(cell, cells)) + " |")
    aims = [f"{case['case']} ≥ {row['target']}×" for case in cases if "target" in (row := case["engines"]["tracked"])]
    return "\n".join([*lines, "", f"Aimed at by `tracked`: {', '.join(aims)}.", ""])


def rank_range(case: dict[str, Any]) -> str:
    return "–".join(map(str, dict.fromkeys(case["ranks"])))


def cell(row: dict[str, Any]) -> str:
    return f"{row['ms']:.3g} ms, **{row['times_faster']:.3g}×**, {row['worst_error']:.0e}"


def kept(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Return by name what was measured before, on the same machine, day, versions and data."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    same = all(before.get(key) == value for key, value in about.items())
    return {case["case"]: case for case in before["cases"]} if same else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with MNIST; default the embedded sample")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write the JSON; the table goes beside it")
    parser.add_argument(
        "--cases", type=int, nargs="+", default=range(len(CASES)), help="which sequences, from 0; the others stay"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = tb.data.load("mnist", directory=arguments.data) if arguments.data else tb.data.load("sample")
    result: dict[str, Any] = {"machine": machine(), "versions": versions()}
    result |= {"date": datetime.now(timezone.utc).strftime("%Y-%m-%d"), "data": data.name}
    measured = {**kept(arguments.out, result), **{CASES[i].name: measure(CASES[i], data) for i in arguments.cases}}
    result["cases"] = [measured[case.name] for case in CASES if case.name in measured]
    print(table(result))
    arguments.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    arguments.out.with_suffix(".md").write_text(table(result), encoding="utf-8")


if __name__ == "__main__":
    main()
