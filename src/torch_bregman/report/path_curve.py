"""The picture of a path: accuracy against size, one point for each checkpoint that was kept."""

from __future__ import annotations

from pathlib import Path

from torch_bregman.train.atomic import replace_file
from torch_bregman.train.path import Kept


def draw_path(kept: list[Kept], picked: Kept, path: Path, title: str) -> Path:
    """Draw accuracy against size as a PNG.

    Args:
        kept: the checkpoints, by size.
        picked: the one to point at.
        path: the file to write.
        title: above the picture.

    Returns:
        The path.

    Raises:
        ValueError: where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("matplotlib is not installed: pip install 'torch-bregman[plot]'") from None
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    ranks = max(each.size for each in kept) > 1
    factor = 1 if ranks else 100
    scale = 100 if max(each.value for each in kept) <= 1 else 1
    axes.plot([factor * each.size for each in kept], [scale * each.value for each in kept], "o-", color="tab:blue")
    axes.plot(factor * picked.size, scale * picked.value, "o", markersize=12, fillstyle="none", color="tab:red")
    axes.annotate(
        f"epoch {picked.epoch}",
        (factor * picked.size, scale * picked.value),
        xytext=(8, -12),
        textcoords="offset points",
    )
    axes.set(
        xlabel="ranks together" if ranks else "density, %",
        ylabel="accuracy, %" if scale == 100 else "PSNR, dB",
        title=title,
    )
    replace_file(path, lambda file: figure.savefig(file, dpi=120, format="png"))
    return path
