"""The results of an experiment as figures that a printer without colours can print."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_bregman.experiments import Curves, Quantity, Scatter, Variant
from torch_bregman.experiments.results import Results, spread
from torch_bregman.report.experiment_table import finished, values
from torch_bregman.train.atomic import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = ("black", "tab:blue", "tab:red", "tab:green", "tab:purple", "tab:brown", "tab:gray", "tab:orange")
_LINES = ("-", "--", "-.", ":")
_MARKERS = "os^Dv<>PX*h"


def draw_figure(results: Results, figure: Curves | Scatter, path: Path) -> Path:
    """Draw a figure of an experiment as a PNG, which carries the digest of what it was drawn from.

    Variants differ in line or marker, not in colour alone, and are named where they end.

    Args:
        results: of the experiment.
        figure: one of those its recipe asks for.
        path: the file to write.

    Returns:
        The path.

    Raises:
        ValueError: where matplotlib is missing, or nothing has run yet.
    """
    variants = finished(results)
    panels = len(figure.panels) if isinstance(figure, Curves) else 1
    canvas = _canvas(panels)
    if isinstance(figure, Curves):
        for axes, quantity in zip(canvas.subplots(1, panels, squeeze=False)[0], figure.panels, strict=True):
            _draw_curves(axes, results, variants, quantity)
    else:
        _draw_points(canvas.subplots(), results, variants, figure)
    canvas.suptitle(figure.title, x=0.01, ha="left")
    metadata = {"Software": None, "Description": digest(results, figure)}
    replace_file(path, lambda file: canvas.savefig(file, dpi=110, format="png", metadata=metadata))
    return path


def digest(results: Results, figure: Curves | Scatter) -> str:
    """Return a name for what a figure shows: it changes with any number of it."""
    quantities = figure.panels if isinstance(figure, Curves) else (figure.x, figure.y)
    shown: list[Any] = [figure.title]
    for variant in finished(results):
        for quantity in quantities:
            curves = isinstance(figure, Curves)
            found = _curves(results, variant, quantity) if curves else values(results, variant, quantity)
            shown.append([variant.label, quantity.label, found])
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]


def _canvas(panels: int) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("matplotlib is not installed: pip install 'torch-bregman[plot]'") from None
    return Figure(figsize=(6.5 * panels, 4.2), layout="constrained")


def _draw_curves(axes: Axes, results: Results, variants: list[Variant], quantity: Quantity) -> None:
    ends = []
    for number, variant in enumerate(variants):
        runs = _curves(results, variant, quantity)
        if not runs:
            continue
        spreads = [spread(list(each)) for each in zip(*runs, strict=False)]
        means = [mean for mean, _ in spreads]
        low = [mean - (deviation or 0) for mean, deviation in spreads]
        high = [mean + (deviation or 0) for mean, deviation in spreads]
        epochs = range(1, len(means) + 1)
        color, line, marker = _COLORS[number % 8], _LINES[number % 4], _MARKERS[number % 11]
        every = max(len(means) // 6, 1)
        axes.plot(epochs, means, line, color=color, marker=marker, markevery=every, markersize=4, linewidth=1.2)
        axes.fill_between(epochs, low, high, color=color, alpha=0.15, linewidth=0)
        ends.append((len(means), means[-1], variant.label, color))
    axes.set(xlabel="epoch", ylabel=quantity.label)
    axes.spines[["top", "right"]].set_visible(False)
    _name_ends(axes, ends)


def _draw_points(axes: Axes, results: Results, variants: list[Variant], figure: Scatter) -> None:
    for number, variant in enumerate(variants):
        xs, ys = values(results, variant, figure.x), values(results, variant, figure.y)
        if not xs or not ys:
            continue
        (x, x_deviation), (y, y_deviation) = spread(xs), spread(ys)
        color, marker = _COLORS[number % 8], _MARKERS[number % 11]
        axes.errorbar(x, y, y_deviation, x_deviation, color=color, marker=marker, markersize=6, capsize=2)
        axes.annotate(variant.label, (x, y), xytext=(6, 5), textcoords="offset points", fontsize=8, color=color)
    axes.set(xlabel=figure.x.label, ylabel=figure.y.label, xscale="log")
    axes.margins(x=0.25, y=0.12)
    axes.spines[["top", "right"]].set_visible(False)


def _name_ends(axes: Axes, ends: Sequence[tuple[int, float, str, str]]) -> None:
    """Write each label at the end of its line, moved up where it would cover another, with a thin lead."""
    bottom, top = axes.get_ylim()
    axes.set_xlim(right=axes.get_xlim()[1])
    last = max((x for x, *_ in ends), default=1)
    places = apart([y for _, y, *_ in ends], (top - bottom) * 0.055)
    for (x, y, label, color), place in zip(ends, places, strict=True):
        axes.annotate(
            label,
            (x, y),
            xytext=(last + 0.04 * last, place),
            fontsize=8,
            color=color,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
        )


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Return heights at least `gap` apart, in the same order, moved as little as that takes from below upwards.

    Example:
        >>> apart([1.0, 1.0, 5.0], 0.5)
        [1.0, 1.5, 5.0]
    """
    moved = list(heights)
    floor = float("-inf")
    for place in sorted(range(len(heights)), key=lambda i: heights[i]):
        moved[place] = max(heights[place], floor)
        floor = moved[place] + gap
    return moved


def _curves(results: Results, variant: Variant, quantity: Quantity) -> list[list[float]]:
    runs = [run.curves[quantity.key] for run in results.of(variant.name) if quantity.key in run.curves]
    return [[quantity.factor * value for value in run] for run in runs]
