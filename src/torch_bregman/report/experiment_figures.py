"""The figures of an experiment as PNG, for its page."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from torch_bregman.experiments import Curves, Scatter
from torch_bregman.experiments.results import Results
from torch_bregman.report.charts import Chart
from torch_bregman.report.png_charts import draw_beside
from torch_bregman.report.result_charts import accuracy_chart, curve_charts


def draw_figure(results: Results, figure: Curves | Scatter, path: Path) -> Path:
    """Draw a figure of an experiment as a PNG, which carries the digest of what it was drawn from.

    Args:
        results: of the experiment.
        figure: one of those its recipe asks for.
        path: the file to write.

    Returns:
        The path.

    Raises:
        ValueError: where matplotlib is missing, or nothing has run yet.
    """
    charts = charts_of(results, figure)
    return draw_beside(charts, path, title=figure.title, description=digest_of(charts))


def charts_of(results: Results, figure: Curves | Scatter) -> list[Chart]:
    """Return what a figure shows: a chart, or one for each number followed over the epochs.

    Raises:
        ValueError: where nothing has run yet.
    """
    return curve_charts(results, figure) if isinstance(figure, Curves) else [accuracy_chart(results, figure)]


def digest(results: Results, figure: Curves | Scatter) -> str:
    """Return a name for what a figure shows: it changes with any number of it."""
    return digest_of(charts_of(results, figure))


def digest_of(charts: list[Chart]) -> str:
    """Return a name for what charts show."""
    return hashlib.sha256(json.dumps([asdict(chart) for chart in charts]).encode()).hexdigest()[:16]
