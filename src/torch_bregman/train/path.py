"""One run, a whole path of sizes: which checkpoints were kept on the way, and which of them to pick. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_bregman.train.history import Row, metric_of
from torch_bregman.train.run_folder import RunFolder


@dataclass(frozen=True)
class Kept:
    """A checkpoint that was kept.

    Args:
        epoch: after which.
        size: density, or the sum of the ranks.
        value: of the metric, on held-out images where there are some.
        file: the checkpoint.
    """

    epoch: int
    size: float
    value: float
    file: Path


def size_of(row: Row) -> float:
    """Return the size that a path goes by: the sum of the ranks under a nuclear norm, else the density.

    Example:
        >>> size_of({"density": 0.5}), size_of({"density": 1.0, "layer_rank": {"fc1": 3, "fc2": 2}})
        (0.5, 5)
    """
    return sum(row["layer_rank"].values()) if row.get("layer_rank") else row["density"]


def passes(grid: list[float], before: float | None, now: float) -> bool:
    """Return whether a size came to or past one of the grid, from either side.

    Example:
        >>> passes([0.05], 0.04, 0.06), passes([0.05], 0.06, 0.04), passes([0.05], 0.06, 0.07)
        (True, True, False)
    """
    if before is None:
        return False
    return any(before < mark <= now or now <= mark < before for mark in grid)


def file_of(folder: RunFolder, epoch: int) -> Path:
    """Return where the checkpoint of an epoch is kept."""
    return folder.path / "path" / f"epoch-{epoch}.pt"


def kept_along(folder: RunFolder) -> list[Kept]:
    """Return the checkpoints of a run that were kept along its path, by size.

    Raises:
        ValueError: where there are none.
    """
    rows = folder.read_log() if folder.jsonl.is_file() else []
    found = [_kept(row, file_of(folder, row["epoch"])) for row in rows if file_of(folder, row["epoch"]).is_file()]
    if not found:
        raise ValueError(
            f"run {folder.path} kept no checkpoints on its way: train with sizes to keep, e.g. --keep_at '[0.02, 0.05]'"
        )
    return sorted(found, key=lambda kept: (kept.size, kept.epoch))


def _kept(row: dict[str, Any], file: Path) -> Kept:
    metric = metric_of(row)
    kind = "val" if f"val_{metric}" in row else "test"
    return Kept(row["epoch"], size_of(row), row[f"{kind}_{metric}"], file)


def pick(kept: list[Kept], within: float) -> Kept:
    """Return the smallest whose value lies within so much of the best.

    Args:
        kept: at least one.
        within: in the unit of the value, e.g. 0.005 for half a point of accuracy.

    Raises:
        ValueError: for a distance below 0.

    Example:
        >>> path = Path("epoch-1.pt")
        >>> pick([Kept(1, 0.1, 0.97, path), Kept(2, 0.2, 0.974, path), Kept(3, 0.3, 0.98, path)], within=0.007).size
        0.2
    """
    if not within >= 0:
        raise ValueError(f"within must be a number >= 0, got {within!r}: points below the best")
    best = max(each.value for each in kept)
    return min((each for each in kept if each.value >= best - within), key=lambda each: (each.size, -each.value))


def path_table(kept: list[Kept], picked: Kept) -> str:
    """Return the checkpoints as a table, the one that was picked with a star.

    Example:
        >>> print(path_table([Kept(3, 0.05, 0.97, Path("a.pt"))], Kept(3, 0.05, 0.97, Path("a.pt"))))
        epoch  size   value
            3  5.00%  97.00% *
    """
    lines = [f"{'epoch':>5}  {'size':6} value"]
    for each in kept:
        size = f"{each.size:.2%}" if each.size <= 1 else f"{each.size:g}"
        value = f"{each.value:.2%}" if each.value <= 1 else f"{each.value:.2f}"
        lines.append(f"{each.epoch:>5}  {size:6} {value}{' *' if each == picked else ''}")
    return "\n".join(lines)
