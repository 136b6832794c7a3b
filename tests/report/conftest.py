"""A page that has everything on it: two runs, one of low rank, one compacted, and an experiment."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch_bregman import cli

RUNS = {
    "grown": ["--target.density", "0.1", "--start.density", "0.02", "--target.start", "0.02", "--entry_times", "2"],
    "low-rank": ["--target.params", "4000", "--regularizer.name", "nuclear"],
}
RESULTS = Path(__file__).parents[2] / "docs/experiments"


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, written by the command."""
    pytest.importorskip("plotly", reason="the extra report is not installed")
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    folder = tmp_path_factory.mktemp("report")
    out = ["--out", str(folder / "runs")]
    shape = ["--epochs", "3", "--threads", "1", "--data.batch_size", "180", "--model.hidden", "[40, 20]"]
    for name, flags in RUNS.items():
        assert cli.main(["train", "--name", name, *out, *shape, *flags]) == 0
    assert cli.main(["compact", "grown", *out, "--batch_sizes", "1", "8"]) == 0
    to = ["--to", str(folder / "report.html"), "--scale", "small", "--results", str(RESULTS)]
    assert cli.main(["report", "size-fashion", "size-lenet", "grown", "low-rank", *out, *to]) == 0
    return folder / "report.html"
