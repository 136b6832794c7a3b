"""The results of an experiment as charts: accuracy against size or cost, differences, curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_bregman.experiments import Curves, Quantity, Scatter, Variant
from torch_bregman.experiments.recipe import ACCURACY, SECONDS
from torch_bregman.experiments.results import Results, spread
from torch_bregman.experiments.significance import differences
from torch_bregman.report.charts import OURS, Chart, Figure, Line
from torch_bregman.report.experiment_table import finished, values

_PUBLISHED = 8
"""A style of its own for numbers of others."""
_FEW = 8
"""Lines up to which all of each is in the picture."""
_SKIPPED = 0.2
"""Share of the epochs, the first, in which curves may come from outside."""


def result_charts(results: Results) -> list[Figure]:
    """Return all charts of an experiment, the frontier first.

    Raises:
        ValueError: where nothing has run yet.
    """
    figures = results.experiment.figures
    scatters = [accuracy_chart(results, figure) for figure in figures if isinstance(figure, Scatter)]
    curves = [chart for figure in figures if isinstance(figure, Curves) for chart in curve_charts(results, figure)]
    if SECONDS in results.experiment.columns and ACCURACY in results.experiment.columns:
        figure = Scatter("seconds", "Accuracy against time of training", SECONDS, ACCURACY)
        scatters.append(accuracy_chart(results, figure))
    charts = [chart for chart in (*scatters, *_differences(results), *curves) if any(line.x for line in chart.lines)]
    return list(charts)


def is_ours(label: str) -> bool:
    """Return whether a line is of a method of this library."""
    return label.startswith(("AdaBreg", "LinBreg"))


@dataclass(frozen=True)
class Point:
    """Mean and spread of a variant."""

    x: float
    y: float
    low: float
    high: float
    note: str


def series_of(variants: Sequence[Variant]) -> dict[str, list[Variant]]:
    """Return the variants by the series that they belong to, ours first; those of none stand alone."""
    found: dict[str, list[Variant]] = {}
    for variant in variants:
        found.setdefault(variant.series or variant.label, []).append(variant)
    return dict(sorted(found.items(), key=lambda item: not is_ours(item[0])))


def accuracy_chart(results: Results, figure: Scatter) -> Chart:
    """Return one final number against another, sizes of one series joined, published numbers beside them."""
    series = series_of(finished(results))
    lines = [_line(results, figure, label, members, i) for i, (label, members) in enumerate(series.items())]
    lines = [line for line in lines if line.x]
    published = _published(results, figure)
    seeds = {len(results.of(variant.name)) for variant in finished(results)}
    return Chart(
        name=f"{results.path.stem}-{figure.name}",
        title=figure.title,
        about=(
            (f"Means over {_span(seeds)} seeds with standard deviations" if max(seeds) > 1 else "One seed")
            + (f"; open stars: {results.experiment.marks_from}" if published else "")
            + ". Up and to the left is better."
        ),
        x_label=figure.x.label,
        y_label=figure.y.label,
        lines=(*lines, *published),
        x_log=figure.x is not SECONDS,
        crop=len(lines) > _FEW,
    )


def _line(results: Results, figure: Scatter, label: str, members: list[Variant], number: int) -> Line:
    points = sorted(
        (point for each in members if (point := _point(results, figure, each, label))), key=lambda point: point.x
    )
    return Line(
        label=label,
        x=[point.x for point in points],
        y=[point.y for point in points],
        low=[point.low for point in points],
        high=[point.high for point in points],
        style=OURS if number == 0 and is_ours(label) else max(number, 1),
        joined=figure.x is not SECONDS,
        notes=[point.note for point in points],
    )


def _point(results: Results, figure: Scatter, variant: Variant, label: str) -> Point | None:
    xs, ys = values(results, variant, figure.x), values(results, variant, figure.y)
    if not xs or not ys:
        return None
    (x, _), (y, deviation) = spread(xs), spread(ys)
    half = deviation or 0.0
    note = variant.label.removeprefix(label).strip(", ")
    return Point(x, y, y - half, y + half, note)


def _published(results: Results, figure: Scatter) -> list[Line]:
    """Return the marks of others, where they are of the quantity shown; those of one method as a line."""
    if results.scale == "smoke":
        return []
    found, series = [], set()
    for variant in finished(results):
        mark = results.experiment.marks.get(variant.name, {}).get(figure.y.key)
        xs = values(results, variant, figure.x)
        if mark is not None and xs and figure.x.key in ("density", "numbers_stored", "stored"):
            found.append((spread(xs)[0], mark))
            series.add(variant.series or variant.label)
    x, y = [x for x, _ in sorted(found)], [y for _, y in sorted(found)]
    return [Line("published", x, y, style=_PUBLISHED, joined=len(series) == 1, hollow=True)] if found else []


def _differences(results: Results) -> list[Chart]:
    found = differences(results)
    if not found:
        return []
    labels = {variant.name: variant.label for variant in results.experiment.variants}
    rows = tuple(f"{labels[each.first]} − {labels[each.second]}" for each in found)
    return [
        Chart(
            name=f"{results.path.stem}-differences",
            title="Differences, paired by seed",
            about=(
                f"Mean difference in {results.experiment.judged.label} with its 95 % interval (Student), none "
                f"corrected for the number of pairs. Right of the line the first is ahead; an interval that meets the "
                f"line decides nothing. Points without an interval have one seed."
            ),
            x_label=f"difference in {results.experiment.judged.label}",
            y_label="",
            lines=(
                Line(
                    "difference",
                    [each.mean for each in found],
                    list(range(len(found))),
                    [each.mean if each.low is None else each.low for each in found],
                    [each.mean if each.high is None else each.high for each in found],
                    style=OURS,
                    joined=False,
                ),
            ),
            rows=rows,
            zero=True,
        )
    ]


def curve_charts(results: Results, figure: Curves) -> list[Chart]:
    """Return a chart for each of the numbers that are followed over the epochs."""
    return [
        Chart(
            name=f"{results.path.stem}-{figure.name}-{panel.key.replace('/', '-')}",
            title=f"{figure.title}: {panel.label}",
            about="Means over seeds after each epoch, with a band of one standard deviation.",
            x_label="epoch",
            y_label=panel.label,
            lines=tuple(_curve(results, variant, panel, i) for i, variant in enumerate(finished(results))),
            skip=_SKIPPED,
        )
        for panel in figure.panels
        if any(panel.key in run.curves for run in results.runs)
    ]


def _curve(results: Results, variant: Variant, panel: Quantity, number: int) -> Line:
    runs = [run.curves[panel.key] for run in results.of(variant.name) if panel.key in run.curves]
    spreads = [spread([panel.factor * value for value in each]) for each in zip(*runs, strict=False)]
    means = [mean for mean, _ in spreads]
    return Line(
        variant.label,
        list(range(1, len(means) + 1)),
        means,
        [mean - (deviation or 0.0) for mean, deviation in spreads],
        [mean + (deviation or 0.0) for mean, deviation in spreads],
        style=number + 1,
        marked=False,
    )


def _span(seeds: set[int]) -> str:
    return str(min(seeds)) if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
