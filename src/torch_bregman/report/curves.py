"""The picture of a run: accuracy (or PSNR) and density against epochs, and the density of every layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_bregman.train.atomic import replace_file
from torch_bregman.train.history import metric_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = ("-", "--", "-.", ":")


def draw_curves(rows: list[dict[str, Any]], path: Path, title: str) -> Path:
    """Draw the log of a run as a PNG.

    Args:
        rows: lines of the log, at least one.
        path: the file to write.
        title: above the picture.

    Returns:
        The path.

    Raises:
        ValueError: where matplotlib is missing, or there are no rows.
    """
    if not rows:
        raise ValueError("there is nothing to draw: the log has no epoch yet")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("matplotlib is not installed: pip install 'torch-bregman[plot]'") from None
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    left, right = figure.subplots(1, 2)
    _draw_metric(left, rows)
    _draw_layers(right, rows)
    replace_file(path, lambda file: figure.savefig(file, dpi=120, format="png"))
    return path


def _draw_metric(axes: Axes, rows: list[dict[str, Any]]) -> None:
    epochs = [row["epoch"] for row in rows]
    metric = metric_of(rows[0])
    kind = "val" if f"val_{metric}" in rows[0] else "test"
    unit, factor = {"accuracy": ("accuracy, %", 100), "psnr": ("PSNR, dB", 1)}[metric]
    marker = "o" if len(rows) == 1 else None
    for key, style, label in ((f"{kind}_{metric}", "-", kind), (f"train_{metric}", "--", "train")):
        axes.plot(epochs, [factor * row[key] for row in rows], style, marker=marker, color="tab:blue", label=label)
    axes.set(xlabel="epoch", ylabel=unit)
    axes.legend(loc="center right", frameon=False)
    density = axes.twinx()
    density.plot(epochs, [100 * row["density"] for row in rows], ":", marker=marker, color="tab:red")
    density.set_ylabel("density, % (dotted)", color="tab:red")
    density.set_ylim(bottom=0)


def _draw_layers(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Draw what grows: the rank of each layer where there is one, else its density."""
    low_rank = "layer_rank" in rows[0]
    key, scale = ("layer_rank", 1) if low_rank else ("layer_density", 100)
    epochs = [row["epoch"] for row in rows]
    for number, name in enumerate(rows[0][key]):
        sizes = [scale * row[key][name] for row in rows]
        marker = "o" if len(rows) == 1 else None
        axes.plot(epochs, sizes, _STYLES[number % len(_STYLES)], marker=marker, label=name)
        if number < 8:
            axes.annotate(name, (epochs[-1], sizes[-1]), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set(xlabel="epoch", ylabel="rank of each layer" if low_rank else "density of each layer, %")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.15)
