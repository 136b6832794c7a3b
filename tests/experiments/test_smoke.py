"""Every experiment at smoke scale, through the command, and its tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import bregman
from torch_bregman.experiments import EXPERIMENTS

_FEW = 4


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs_and_shows_itself(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    if name == "jmlr-denoiser":
        pytest.importorskip("torchmetrics", reason="the extra images is not installed")
    experiment = EXPERIMENTS[name]
    variants = [each.name for each in experiment.variants_at("smoke")]
    if name.startswith("frontier-") or name.endswith("-rates"):
        # grids are much of the same, and test_frontier.py runs all methods
        variants = variants[:: -(-len(variants) // _FEW)]
    done = bregman("experiment", "run", name, "--seeds", "1", "--jobs", "2", "--only", *variants, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads((tmp_path / "results" / f"{name}-smoke.json").read_text(encoding="utf-8"))
    assert [run["variant"] for run in content["runs"]] == variants
    shown = bregman("experiment", "tables", name, cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    missing = [quantity.key for quantity in experiment.columns if not _somewhere(quantity.key, content["runs"])]
    assert missing == []
    for figure in experiment.figures:
        assert (tmp_path / "results" / f"{name}-smoke-{figure.name}.png").is_file()


def _somewhere(key: str, runs: list[dict[str, dict[str, float]]]) -> bool:
    """Whether a quantity is measured of any variant: ranks are of low-rank ones only."""
    return any(key in run["numbers"] for run in runs)
