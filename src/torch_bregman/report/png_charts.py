"""Charts as PNG, for papers and slides: in colours that a printer without any can print too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch_bregman.report.charts import OURS, Chart, Figure, Images, Line, palette_index
from torch_bregman.train.atomic import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

PALETTE = ("#0b57d0", "#444444", "#b3410a", "#2a7f3f", "#7b3fa0", "#8a6d00", "#0d7c86", "#b0276b", "#6b7280", "#98480b")
"""The page's own for light."""
_MARKERS = {
    "circle": "o",
    "square": "s",
    "triangle-up": "^",
    "diamond": "D",
    "triangle-down": "v",
    "x": "X",
    "cross": "P",
    "pentagon": "p",
    "star": "*",
    "hexagon": "h",
}
_DASHES = {"solid": "-", "dash": "--", "dashdot": "-.", "dot": ":"}


def draw_chart(figure: Figure, path: Path) -> Path:
    """Draw a figure as a PNG.

    Args:
        figure: what to show.
        path: the file to write.

    Returns:
        The path.

    Raises:
        ValueError: where matplotlib is missing.
    """
    rows = len(figure.rows) if isinstance(figure, Chart) else 0
    canvas = _canvas(7.5, max(2.0, 0.32 * rows + 1.2) if rows else 4.4)
    axes = canvas.subplots()
    canvas.suptitle(figure.title, x=0.01, ha="left")
    if isinstance(figure, Images):
        _draw_images(axes, figure)
    elif rows:
        _draw_rows(axes, figure)
    else:
        draw_lines(axes, figure)
    replace_file(path, lambda file: canvas.savefig(file, dpi=120, format="png", metadata={"Software": None}))
    return path


def draw_beside(charts: Sequence[Chart], path: Path, *, title: str = "", description: str = "") -> Path:
    """Draw charts of lines beside each other as a PNG.

    Args:
        charts: what to show.
        path: the file to write.
        title: of all; without, each has its own.
        description: kept in the file.

    Returns:
        The path.

    Raises:
        ValueError: where matplotlib is missing.
    """
    places = max(len(charts), 1)
    canvas = _canvas(6.5 * places, 4.2)
    for axes, chart in zip(canvas.subplots(1, places, squeeze=False)[0], charts, strict=False):
        draw_lines(axes, chart)
        if not title:
            axes.set_title(chart.title, loc="left", fontsize=11)
    canvas.suptitle(title, x=0.01, ha="left")
    metadata = {"Software": None, "Description": description}
    replace_file(path, lambda file: canvas.savefig(file, dpi=110, format="png", metadata=metadata))
    return path


def _canvas(width: float, height: float) -> Canvas:
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise ValueError("matplotlib is not installed: pip install 'torch-bregman[plot]'") from None
    return Canvas(figsize=(width, height), layout="constrained")


def draw_lines(axes: Axes, chart: Chart) -> None:
    """Draw lines, their errors and their names at their ends into given axes."""
    for line in chart.lines:
        _draw_line(axes, line)
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    axes.set_xscale("log" if chart.x_log else "linear")
    axes.set_yscale("log" if chart.y_log else "linear")
    if chart.x_log:
        _plain_numbers(axes)
    if not chart.y_log:
        axes.set_ylim(*chart.y_range())
    for text, y in chart.levels.items():
        axes.axhline(y, color="gray", linestyle=":", linewidth=1)
        axes.annotate(text, (0.01, y), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    if len(chart.lines) > 1 and not chart.y_log:
        _name_ends(axes, chart)


def _draw_line(axes: Axes, line: Line) -> None:
    color, marker = PALETTE[palette_index(line.style)], _MARKERS[line.marker] if line.marked else None
    look = {"color": color, "marker": marker, "markersize": 6, "linewidth": 2.2 if line.style == OURS else 1.3}
    fill = "none" if line.hollow else "full"
    axes.plot(line.x, line.y, linestyle=_DASHES[line.dash] if line.joined else "none", fillstyle=fill, **look)
    if line.low and line.marked:
        errors = [
            [y - low for y, low in zip(line.y, line.low, strict=True)],
            [high - y for y, high in zip(line.y, line.high, strict=True)],
        ]
        axes.errorbar(line.x, line.y, errors, fmt="none", ecolor=color, capsize=2, linewidth=1)
    elif line.low:
        axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.15, linewidth=0)


def _plain_numbers(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter("")


def _name_ends(axes: Axes, chart: Chart) -> None:
    for line, x, y, at in chart.ends(0.05):
        color = PALETTE[palette_index(line.style)]
        lead = {"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3, "relpos": (0, 0.5)}
        axes.annotate(
            line.label,
            (x, y),
            xytext=(1.03, at),
            textcoords=("axes fraction", "data"),
            color=color,
            fontsize=9,
            va="center",
            annotation_clip=False,
            arrowprops=lead,
        )


def _draw_rows(axes: Axes, chart: Chart) -> None:
    (line,) = chart.lines
    for x, y, low, high in zip(line.x, line.y, line.low, line.high, strict=True):
        sure = (low > 0 or high < 0) and high > low
        errors = [[x - low], [high - x]]
        axes.errorbar(x, y, xerr=errors, fmt="o", color=PALETTE[0], mfc=PALETTE[0] if sure else "white", capsize=3)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(chart.rows)), chart.rows, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(chart.x_label)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_images(axes: Axes, images: Images) -> None:
    low, high = images.range()
    rows = [[float("nan") if v is None else v for v in row] for row in images.mosaic()]
    shown = axes.imshow(rows, cmap="RdBu" if images.signed else "cividis", vmin=low, vmax=high, interpolation="nearest")
    axes.set_axis_off()
    axes.figure.colorbar(shown, ax=axes, label=images.scale, shrink=0.8)
