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
from torch_bregman.report.spacing import apart, clear, upper_part
from torch_bregman.train.atomic import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = ("black", "tab:blue", "tab:red", "tab:green", "tab:purple", "tab:brown", "tab:gray", "tab:orange")
_LINES = ("-", "--", "-.", ":")
_MARKERS = "os^Dv<>PX*h"
_NAMED = 16
"""Points that can be named one by one; of more, those of one series are joined and named in a legend."""


def draw_figure(results: Results, figure: Curves | Scatter, path: Path) -> Path:
    """Draw a figure of an experiment as a PNG, which carries the digest of what it was drawn from.

    Variants differ in line or marker, not in colour alone, and are named where they end; many points are joined to the
    series they belong to, and a legend names those.

    Args:
        results: of the experiment.
        figure: one of those its recipe asks for.
        path: the file to write.

    Returns:
        The path.

    Raises:
        ValueError: where matplotlib is missing, or nothing has run yet.
    """
    canvas = figure_of(results, figure)
    metadata = {"Software": None, "Description": digest(results, figure)}
    replace_file(path, lambda file: canvas.savefig(file, dpi=110, format="png", metadata=metadata))
    return path


def figure_of(results: Results, figure: Curves | Scatter) -> Figure:
    """Return the drawing itself.

    Args:
        results: of the experiment.
        figure: one of those its recipe asks for.

    Raises:
        ValueError: where matplotlib is missing, or nothing has run yet.
    """
    variants = finished(results)
    panels = len(figure.panels) if isinstance(figure, Curves) else 1
    canvas = _canvas(panels)
    if isinstance(figure, Curves):
        for axes, quantity in zip(canvas.subplots(1, panels, squeeze=False)[0], figure.panels, strict=True):
            _draw_curves(axes, results, variants, quantity)
    elif len(variants) > _NAMED:
        _draw_series(canvas.subplots(), results, variants, figure)
    else:
        _draw_points(canvas.subplots(), results, variants, figure)
    canvas.suptitle(figure.title, x=0.01, ha="left")
    return canvas


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
    _leave_out_the_beginning(axes, results, variants, quantity)
    axes.spines[["top", "right"]].set_visible(False)
    _name_ends(axes, ends)


def _leave_out_the_beginning(axes: Axes, results: Results, variants: list[Variant], quantity: Quantity) -> None:
    """Show the range of what follows the first fifth of the epochs, in which curves come from far away."""
    runs = [run for variant in variants for run in _curves(results, variant, quantity)]
    later = [value for run in runs for value in run[len(run) // 5 :]]
    if later:
        margin = 0.06 * (max(later) - min(later)) or 1.0
        axes.set_ylim(min(later) - margin, max(later) + margin)


def _draw_points(axes: Axes, results: Results, variants: list[Variant], figure: Scatter) -> None:
    points = []
    for number, variant in enumerate(variants):
        xs, ys = values(results, variant, figure.x), values(results, variant, figure.y)
        if not xs or not ys:
            continue
        (x, x_deviation), (y, y_deviation) = spread(xs), spread(ys)
        color, marker = _COLORS[number % 8], _MARKERS[number % 11]
        axes.errorbar(x, y, y_deviation, x_deviation, color=color, marker=marker, markersize=6, capsize=2)
        points.append((x, y, variant.label, color))
    axes.set(xlabel=figure.x.label, ylabel=figure.y.label, xscale="log")
    axes.margins(x=0.3, y=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    _name_points(axes, points)


def _draw_series(axes: Axes, results: Results, variants: list[Variant], figure: Scatter) -> None:
    series: dict[str, list[tuple[float, float, float]]] = {}
    for variant in variants:
        xs, ys = values(results, variant, figure.x), values(results, variant, figure.y)
        if xs and ys:
            mean, deviation = spread(ys)
            series.setdefault(variant.series or variant.label, []).append((spread(xs)[0], mean, deviation or 0.0))
    for number, (name, points) in enumerate(series.items()):
        x, y, deviations = zip(*sorted(points), strict=True)
        look: dict[str, Any] = {
            "color": _COLORS[number % 8],
            "marker": _MARKERS[number % 11],
            "linestyle": _LINES[(number + number // 8) % 4],
        }
        axes.errorbar(x, y, deviations, label=name, markersize=4, linewidth=1.2, capsize=2, **look)
    axes.set(xlabel=figure.x.label, ylabel=figure.y.label, xscale="log")
    _leave_out_the_lowest(axes, [y for points in series.values() for _, y, _ in points])
    axes.spines[["top", "right"]].set_visible(False)
    axes.figure.legend(loc="outside right upper", fontsize=8, frameon=False)


def _leave_out_the_lowest(axes: Axes, heights: Sequence[float]) -> None:
    """Show the range of the upper five sixths: where lines leave the picture the table says how far they go."""
    low, high = upper_part(heights), max(heights)
    margin = 0.06 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)


def _name_points(axes: Axes, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each label right of its point, moved up until it covers no other."""
    canvas = axes.figure.canvas
    canvas.draw()  # only now the layout says where points are
    pixel = axes.figure.dpi / 72
    places = [axes.transData.transform((x, y)) / pixel for x, y, *_ in points]
    heights = clear([(x + 9, y, 4.4 * len(label)) for (x, y), (*_, label, _) in zip(places, points, strict=True)], 10)
    for (x, y, label, color), (_, at), height in zip(points, places, heights, strict=True):
        _annotate(axes, label, (x, y), color, xytext=(9, height - at), textcoords="offset points")


def _name_ends(axes: Axes, ends: Sequence[tuple[int, float, str, str]]) -> None:
    """Write each label at the end of its line, moved where it would cover another."""
    bottom, top = axes.get_ylim()
    axes.set_xlim(right=axes.get_xlim()[1])
    last = max((x for x, *_ in ends), default=1)
    shown = [min(max(y, bottom), top) for _, y, *_ in ends]
    for (x, _, label, color), y, place in zip(ends, shown, apart(shown, (top - bottom) * 0.055), strict=True):
        _annotate(axes, label, (x, y), color, xytext=(1.06 * last, place))


def _annotate(axes: Axes, label: str, point: tuple[float, float], color: str, **where: Any) -> None:
    lead = {"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2, "relpos": (0, 0.5)}
    axes.annotate(label, point, fontsize=8, color=color, va="center", annotation_clip=False, arrowprops=lead, **where)


def _curves(results: Results, variant: Variant, quantity: Quantity) -> list[list[float]]:
    runs = [run.curves[quantity.key] for run in results.of(variant.name) if quantity.key in run.curves]
    return [[quantity.factor * value for value in run] for run in runs]
