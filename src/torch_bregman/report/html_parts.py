"""Pieces of the page: figures with text alternatives, tables that sort, facts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from torch_bregman.report.charts import Chart, Figure
from torch_bregman.report.plotly_charts import color, plotly_figure

_DASHES = {"solid": "", "dash": "7 4", "dashdot": "7 3 2 3", "dot": "2 3"}
_SHAPES = {
    "circle": '<circle cx="14" cy="7" r="4"/>',
    "square": '<rect x="10" y="3" width="8" height="8"/>',
    "triangle-up": '<path d="M14 2l5 9H9z"/>',
    "diamond": '<path d="M14 2l5 5-5 5-5-5z"/>',
    "triangle-down": '<path d="M14 12l5-9H9z"/>',
    "x": '<path d="M10 3l8 8m0-8l-8 8" stroke-width="2.5"/>',
    "cross": '<path d="M14 2v10M9 7h10" stroke-width="2.5"/>',
    "pentagon": '<path d="M14 2l5 4-2 6h-6l-2-6z"/>',
    "star": '<path d="M14 1l2 4 4 1-3 3 1 4-4-2-4 2 1-4-3-3 4-1z"/>',
    "hexagon": '<path d="M11 2h6l3 5-3 5h-6L8 7z"/>',
}


@dataclass(frozen=True)
class Cell:
    """What a table shows, and by what it sorts.

    Args:
        text: as shown.
        value: a number, or None to sort by the text.
    """

    text: str
    value: float | None = None


@dataclass
class Figures:
    """The figures of a page, in their order."""

    specs: dict[str, Any] = field(default_factory=dict)

    def add(self, figure: Figure) -> str:
        """Take a figure in and return its place in the page."""
        number = f"f{len(self.specs)}"
        self.specs[number] = plotly_figure(figure)
        return (
            f'<figure id="{number}" aria-labelledby="{number}-title">'
            f'<figcaption><h3 id="{number}-title">{escape(figure.title)}</h3><p>{escape(figure.about)}</p></figcaption>'
            f'<div class="plot" data-figure="{number}" tabindex="0" role="img" '
            f'aria-label="{escape(figure.alternative, quote=True)}"></div>'
            f'<p class="said" aria-live="polite"></p>'
            f"{_legend(figure)}{_numbers(figure)}</figure>"
        )

    def json(self) -> str:
        """Return all of them as JSON that can stand in a script."""
        return json.dumps(self.specs, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")


def _legend(figure: Figure) -> str:
    if not isinstance(figure, Chart) or figure.rows or len(figure.lines) < 2:
        return ""
    items = []
    for line in figure.lines:
        ink = f"var(--{color(line.style)[1:]})"
        stroke = f'<path d="M0 7h28" stroke-width="2" stroke-dasharray="{_DASHES[line.dash]}"/>' if line.joined else ""
        shape = _SHAPES[line.marker] if line.marked else ""
        swatch = f'<svg width="28" height="14" aria-hidden="true" stroke="{ink}" fill="{ink}">{stroke}{shape}</svg>'
        items.append(f"<li>{swatch}{escape(line.label)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def _numbers(figure: Figure) -> str:
    """Return what a chart shows as a table to unfold."""
    if not isinstance(figure, Chart):
        return ""
    header, rows = figure.table()
    cells = [[Cell(text) for text in row] for row in rows]
    return f"<details><summary>Numbers</summary>{table(header, cells, f'Numbers of: {figure.title}')}</details>"


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str, *, sortable: bool = False) -> str:
    """Return a table in a frame that scrolls by itself, and can be reached by keyboard.

    Args:
        header: of the columns.
        rows: as many cells each.
        caption: what it holds, for who does not see it.
        sortable: whether a click on a heading sorts.
    """
    heads = [f"<button>{escape(text)}</button>" if sortable else escape(text) for text in header]
    sort = ' aria-sort="none"' if sortable else ""
    head = "".join(f'<th scope="col"{sort}>{text}</th>' for text in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption, quote=True)}">'
        f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    return f"<td{value}>{escape(cell.text)}</td>"


def facts(found: dict[str, str]) -> str:
    """Return a few numbers, large."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in found.items())
    return f'<dl class="facts">{items}</dl>'


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; what stands between backticks is code."""
    parts = escape(text).split("`")
    words = "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
    return f'<p class="{kind}">{words}</p>' if kind else f"<p>{words}</p>"
