"""What a figure shows, apart from how it is drawn: lines with errors, or images side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch_bregman.report.spacing import apart, upper_part

OURS = 0
"""Place in the palette of what this library made."""
COLORS = 10
"""Of the palette."""
MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "x", "cross", "pentagon", "star", "hexagon")
DASHES = ("solid", "dash", "dashdot", "dot")


@dataclass(frozen=True)
class Line:
    """Points, joined or not, with an error each.

    Args:
        label: what it is.
        x, y: of the points.
        low, high: ends of the errors of y, or of the band around a line.
        style: place in palette, markers and dashes, so that lines differ without colour too.
        joined: whether points are joined.
        marked: whether every point has a marker.
        notes: of the points, e.g. "2 %".
        hollow: with open markers: numbers of others.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    style: int = 0
    joined: bool = True
    marked: bool = True
    notes: Sequence[str] = ()
    hollow: bool = False

    @property
    def marker(self) -> str:
        """Its shape."""
        return MARKERS[self.style % len(MARKERS)]

    @property
    def dash(self) -> str:
        """Its stroke."""
        return DASHES[self.style % len(DASHES)]


@dataclass(frozen=True)
class Chart:
    """Lines over two axes.

    Args:
        name: of its files.
        title: in a few words.
        about: what is shown and how to read it.
        x_label, y_label: with units.
        lines: at least one.
        x_log, y_log: logarithmic axes.
        rows: labels of y = 0, 1, …, downwards, where y only names things.
        zero: draw a line at x = 0.
        from_zero: let y begin at 0.
        crop: leave the lowest sixth of the points out of the picture, for others to be told apart; the table has all.
        skip: share of each line, its beginning, that may lie outside: curves come from far away.
        levels: horizontal lines by label, e.g. a target.
    """

    name: str
    title: str
    about: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    x_log: bool = False
    y_log: bool = False
    rows: tuple[str, ...] = ()
    zero: bool = False
    from_zero: bool = False
    crop: bool = False
    skip: float = 0.0
    levels: dict[str, float] = field(default_factory=dict)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return what is drawn as numbers: a heading and lines."""
        errors = any(line.low for line in self.lines)
        header = ["", self.x_label, self.y_label, *(["from", "to"] if errors else [])]
        return header, [self._cells(line, i, errors) for line in self.lines for i in range(len(line.x))]

    def _cells(self, line: Line, i: int, errors: bool) -> list[str]:
        y = self.rows[int(line.y[i])] if self.rows else f"{line.y[i]:.6g}"
        ends = [f"{line.low[i]:.6g}", f"{line.high[i]:.6g}"] if line.low else ["", ""]
        name = f"{line.label}, {line.notes[i]}" if line.notes else line.label
        return [name, f"{line.x[i]:.6g}", y, *(ends if errors else [])]

    @property
    def alternative(self) -> str:
        """In words, for who does not see it."""
        parts = [f"{self.title}. {self.y_label} against {self.x_label}." if not self.rows else f"{self.title}."]
        parts += [f"{line.label}: {self._said(line)}." for line in self.lines[:12] if line.x]
        more = len(self.lines) - 12
        return " ".join(parts + ([f"And {more} more."] if more > 0 else []))

    def _said(self, line: Line) -> str:
        if self.rows:
            return ", ".join(f"{self.rows[int(y)]} {x:+.3g}" for x, y in zip(line.x, line.y, strict=True))
        if len(line.x) == 1:
            return f"{line.y[0]:.4g} at {line.x[0]:.4g}"
        return f"from {line.y[0]:.4g} at {line.x[0]:.4g} to {line.y[-1]:.4g} at {line.x[-1]:.4g}"

    def ends(self, share: float = 0.055) -> list[tuple[Line, float, float, float]]:
        """Return each line with its last point and the height of its label: none covers another or leaves the figure.

        Args:
            share: of the height of the figure that a label takes.
        """
        lines = [line for line in self.lines if len(line.x)]
        low, high = self.y_range()
        shown = [min(max(line.y[-1], low), high) for line in lines]
        gap = (high - low) * share
        heights = apart(shown, gap, low + gap / 2, high - gap / 2)
        return [(line, line.x[-1], y, at) for line, y, at in zip(lines, shown, heights, strict=True)]

    def y_range(self) -> tuple[float, float]:
        """Return the span of y, errors and levels included, with a margin."""
        values = [v for line in self.lines for v in self._later(line)] + [*self.levels.values()]
        if self.from_zero:
            return 0.0, 1.06 * max(values) or 1.0
        low = upper_part([y for line in self.lines for y in line.y]) if self.crop else min(values)
        margin = 0.06 * (max(values) - low) or 0.1 * abs(values[0]) or 1.0
        return low - margin, max(values) + margin

    def _later(self, line: Line) -> list[float]:
        return [v for values in (line.y, line.low, line.high) for v in values[int(self.skip * len(values)) :]]


def palette_index(style: int) -> int:
    """Return the colour of a style; when all are used up the first, which is ours, is not used again.

    Example:
        >>> [palette_index(style) for style in (0, 1, 9, 10, 18, 19)]
        [0, 1, 9, 1, 9, 1]
    """
    return style if style < COLORS else 1 + (style - COLORS) % (COLORS - 1)


@dataclass(frozen=True)
class Images:
    """Small images side by side, under one scale.

    Args:
        name: of its files.
        title: in a few words.
        about: what is shown and how to read it.
        tiles: rows of numbers each, all of one shape; None is blank.
        labels: of the tiles.
        scale: what the numbers are, with unit.
        signed: whether 0 is in the middle of the scale.
        columns: tiles a row.
    """

    name: str
    title: str
    about: str
    tiles: tuple[list[list[float | None]], ...]
    labels: tuple[str, ...]
    scale: str
    signed: bool = False
    columns: int = 8

    @property
    def alternative(self) -> str:
        """In words, for who does not see it."""
        count = f"{len(self.tiles)} images" if len(self.tiles) > 1 else "One image"
        height, width = self.shape
        low, high = self.range()
        filled = sum(v is not None for tile in self.tiles for row in tile for v in row)
        share = filled / (len(self.tiles) * height * width)
        return (
            f"{self.title}. {count} of {width} by {height} pixels; {share:.0%} of the pixels have a value, from "
            f"{low:.4g} to {high:.4g} ({self.scale}). {self.about}"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a tile."""
        first: list[list[float | None]] = next(iter(self.tiles))
        return len(first), len(first[0])

    def range(self) -> tuple[float, float]:
        """Return the span of the numbers, symmetric where they are signed."""
        values = [v for tile in self.tiles for row in tile for v in row if v is not None] or [0.0]
        if self.signed:
            most = max(map(abs, values)) or 1.0
            return -most, most
        return min(values), max(values)

    def mosaic(self, columns: int | None = None) -> list[list[float | None]]:
        """Return all tiles as one image, a blank pixel between them."""
        columns = min(columns or self.columns, len(self.tiles))
        height, width = self.shape
        blank: list[list[float | None]] = [[None] * width] * height
        image: list[list[float | None]] = []
        for start in range(0, len(self.tiles), columns):
            given = self.tiles[start : start + columns]
            row = [*given, *[blank] * (columns - len(given))]
            image += [[v for tile in row for v in (*tile[y], None)][:-1] for y in range(height)]
            image.append([None] * ((width + 1) * columns - 1))
        return image[:-1]


Figure = Chart | Images
