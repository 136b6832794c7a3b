"""The benchmark of a step runs, and writes what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "step_cost.py"


@pytest.mark.slow
def test_the_benchmark_of_a_step_writes_json_and_a_table(tmp_path: Path) -> None:
    out = tmp_path / "step_cost.json"
    command = [sys.executable, SCRIPT, "--compiled", "--sets", "mlp", "--rounds", "0.01", "--out", out]
    subprocess.run(command, check=True)
    result = json.loads(out.read_text(encoding="utf-8"))
    mlp = result["sets"]["mlp"]
    assert (mlp["parameters"], mlp["tensors"]) == (173_890, 6)
    assert mlp["optimizers"]["SGD"]["ratio"] == 1
    for name, row in mlp["optimizers"].items():
        low, high = row["quartiles"]
        assert 0 < low <= row["ratio"] <= high
        assert f"| {name} | {row['reference']} |" in out.with_suffix(".md").read_text(encoding="utf-8")
    result["sets"]["transformer"] = mlp
    out.write_text(json.dumps(result), encoding="utf-8")
    subprocess.run([*command, "--add"], check=True)
    assert list(json.loads(out.read_text(encoding="utf-8"))["sets"]) == ["mlp", "transformer"]
    out.write_text(json.dumps({**result, "versions": {}}), encoding="utf-8")
    done = subprocess.run([*command, "--add"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "measure all sets anew" in done.stderr
