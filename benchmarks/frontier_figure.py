"""Draw README's first figure from the committed results: accuracy at a size, published numbers beside it.

python benchmarks/frontier_figure.py                     # docs/experiments/*.json -> docs/frontier.png

LeNet-300-100 on MNIST and Fashion-MNIST. Of each data set the frontier experiment is taken where all its variants have
runs, else the smaller experiment that came before it; nothing is trained here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch_bregman.experiments import Scatter, find
from torch_bregman.experiments.recipe import ACCURACY, DENSITY
from torch_bregman.experiments.results import Results
from torch_bregman.report.charts import Chart, Line
from torch_bregman.report.experiment_figures import digest_of
from torch_bregman.report.png_charts import draw_beside
from torch_bregman.report.result_charts import accuracy_chart

ROOT = Path(__file__).parents[1]
RESULTS, FIGURE = ROOT / "docs/experiments", ROOT / "docs/frontier.png"
SIZES = [1.0, 2.0, 5.0, 10.0]
PUBLISHED = {
    "sparse momentum, 100 epochs": ([97.64, 98.01, 98.47, 98.6], 6),
    "SET, 100 epochs": ([95.80, 97.74, 98.14, 98.39], 8),
}
"""Test accuracy on MNIST as Dettmers and Zettlemoyer 2019 print it for both, and the style of the line."""
PANELS = {
    "MNIST": ("frontier-mnist", "size-lenet"),
    "Fashion-MNIST": ("frontier-fashion", "size-fashion"),
}


def charts() -> list[Chart]:
    """Return a chart for each data set, of the first experiment that has results for all its variants."""
    found = []
    for place, names in PANELS.items():
        results = next(each for each in map(_opened, names) if _whole(each))
        chart = accuracy_chart(results, Scatter("size", f"LeNet-300-100 on {place}", DENSITY, ACCURACY))
        lines = tuple(line for line in chart.lines if not line.hollow and len(line.x) > 1)
        if place == "MNIST":
            lines += tuple(Line(label, SIZES, y, style=style, hollow=True) for label, (y, style) in PUBLISHED.items())
        seeds = {len(results.of(run.variant)) for run in results.runs}
        epochs = results.experiment.conf("small", results.experiment.variant(results.runs[0].variant)).epochs
        title = f"{chart.title}: {epochs} epochs, {_span(seeds)}"
        found.append(replace(chart, title=title, about="", lines=lines))
    return found


def _whole(results: Results) -> bool:
    variants = results.experiment.variants_at(results.scale)
    return all(results.of(variant.name) for variant in variants)


def _opened(name: str) -> Results:
    return Results.open(RESULTS, find(name), "small")


def _span(seeds: set[int]) -> str:
    if seeds == {1}:
        return "1 seed"
    return f"{max(seeds)} seeds" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)} seeds"


if __name__ == "__main__":
    shown = charts()
    print(draw_beside(shown, FIGURE, description=digest_of(shown)))
