"""Charts as the data and layout of plotly.js; colours are names that the page fills in, for light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_bregman.report.charts import OURS, Chart, Figure, Images, Line, palette_index

_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif'


def plotly_figure(figure: Figure) -> dict[str, Any]:
    """Return data, layout and height of a figure; "$…" stands for a colour, "$p0" for the first of the palette."""
    return _images(figure) if isinstance(figure, Images) else _rows(figure) if figure.rows else _lines(figure)


def color(style: int) -> str:
    """Return the name of a colour."""
    return f"$p{palette_index(style)}"


def _lines(chart: Chart) -> dict[str, Any]:
    data = [trace for line in chart.lines for trace in _traces(line)]
    direct = len(chart.lines) > 1
    layout = {
        **_base(chart),
        "yaxis": _axis(chart.y_label, chart.y_log),
        "annotations": [*(_labels(chart) if direct else ()), *_levels(chart)],
        "shapes": [_level(y) for y in chart.levels.values()],
        "margin": {"l": 62, "r": 24, "t": 12, "b": 52},
    }
    if chart.x_label == "epoch" and max(max(line.x, default=0) for line in chart.lines) <= 8:
        layout["xaxis"].update(tick0=0, dtick=1)  # there is no half an epoch
    if not chart.y_log:
        layout["yaxis"]["range"] = list(chart.y_range())
    longest = max((len(line.label) for line in chart.lines), default=0)
    return {"data": data, "layout": layout, "height": 380, "room": min(26 + 6.6 * longest, 240) if direct else 24}


def _traces(line: Line) -> list[dict[str, Any]]:
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": line.label,
        "mode": "+".join(["lines"] * line.joined + ["markers"] * line.marked) or "lines",
        "x": list(line.x),
        "y": list(line.y),
        "hovertemplate": f"{line.label}%{{text}}<br>%{{x:.6~g}}, %{{y:.6~g}}<extra></extra>",
        "text": [f", {note}" if note else "" for note in line.notes] or [""] * len(line.x),
    }
    if line.joined or not line.marked:
        trace["line"] = {"color": color(line.style), "width": 3 if line.style == OURS else 1.8, "dash": line.dash}
    if line.marked:
        size = 9 if line.style == OURS else 8
        trace["marker"] = {"symbol": _symbol(line), "size": size, "color": color(line.style)}
    if not line.low:
        return [trace]
    if not line.marked:
        return [_band(line), trace]
    errors = {
        "type": "data",
        "symmetric": False,
        "array": [high - y for high, y in zip(line.high, line.y, strict=True)],
        "arrayminus": [y - low for low, y in zip(line.low, line.y, strict=True)],
        "color": color(line.style),
        "thickness": 1.4,
        "width": 4,
    }
    return [{**trace, "error_y": errors}]


def _symbol(line: Line) -> str:
    return f"{line.marker}-open" if line.hollow else line.marker


def _band(line: Line) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*line.x, *reversed(line.x)],
        "y": [*line.high, *reversed(line.low)],
        "fill": "toself",
        "fillcolor": color(line.style),
        "opacity": 0.15,
        "line": {"width": 0, "color": color(line.style)},
        "hoverinfo": "skip",
    }


def _labels(chart: Chart) -> list[dict[str, Any]]:
    """Return a label at the end of each line, as the page shows them where there is room."""
    return [
        {
            "text": line.label,
            "name": "label",
            "xref": "paper",
            "x": 1.015,
            "y": at,
            "xanchor": "left",
            "yanchor": "middle",
            "showarrow": False,
            "align": "left",
            "font": {"color": color(line.style), "size": 12},
        }
        for line, _, _, at in ([] if chart.y_log else chart.ends())
    ]


def _levels(chart: Chart) -> list[dict[str, Any]]:
    return [
        {"text": text, "xref": "paper", "x": 0, "y": y, "xanchor": "left", "yanchor": "bottom", "showarrow": False}
        for text, y in chart.levels.items()
    ]


def _level(y: float) -> dict[str, Any]:
    line = {"color": "$muted", "width": 1, "dash": "dot"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}


def _rows(chart: Chart) -> dict[str, Any]:
    (line,) = chart.lines
    errors = {
        "type": "data",
        "symmetric": False,
        "array": [high - x or None for high, x in zip(line.high, line.x, strict=True)],
        "arrayminus": [x - low or None for low, x in zip(line.low, line.x, strict=True)],
        "color": "$ink",
        "thickness": 1.6,
        "width": 5,
    }
    trace = {
        "type": "scatter",
        "mode": "markers",
        "name": line.label,
        "x": list(line.x),
        "y": list(line.y),
        **({"error_x": errors} if any(map(float.__lt__, map(float, line.low), map(float, line.high))) else {}),
        "text": list(chart.rows),
        "marker": {"color": "$p0", "size": 10, "symbol": [_sided(line, i) for i in range(len(line.x))]},
        "hovertemplate": "%{text}<br>%{x:+.3f}<extra></extra>",
    }
    count = len(chart.rows)
    names = [
        {
            "text": row,
            "xref": "paper",
            "x": 0,
            "y": i,
            "xanchor": "left",
            "yanchor": "bottom",
            "xshift": 6,
            "yshift": 5,
            "showarrow": False,
            "font": {"size": 12, "color": "$ink"},
        }
        for i, row in enumerate(chart.rows)
    ]
    layout = {
        **_base(chart),
        "yaxis": {"range": [count - 0.4, -0.9], "visible": False, "fixedrange": True},
        "annotations": names,
        "margin": {"l": 16, "r": 16, "t": 8, "b": 52},
    }
    layout["xaxis"].update(zeroline=True, zerolinecolor="$ink", zerolinewidth=1.5, rangemode="tozero")
    return {"data": [trace], "layout": layout, "height": 80 + 38 * count, "room": 16}


def _sided(line: Line, i: int) -> str:
    """Return a filled marker where the interval leaves out 0, an open one where it does not."""
    apart = line.low[i] > 0 or line.high[i] < 0
    return "circle" if apart and line.high[i] > line.low[i] else "circle-open"


def _images(images: Images) -> dict[str, Any]:
    wide, narrow = images.mosaic(), images.mosaic(max(2, images.columns // 2))
    low, high = images.range()
    trace = {
        "type": "heatmap",
        "z": wide,
        "zmin": low,
        "zmax": high,
        "colorscale": "$diverging" if images.signed else "$sequential",
        "hoverongaps": False,
        "xgap": 0,
        "colorbar": {
            "title": {"text": images.scale, "side": "right"},
            "thickness": 10,
            "outlinewidth": 0,
            "len": 1,
            "tickfont": {"color": "$ink"},
        },
        "hovertemplate": "%{z:.4~g}<extra></extra>",
    }
    plain = {"visible": False, "fixedrange": True}
    layout = {
        **_look(),
        "xaxis": {**plain, "constrain": "domain"},
        "yaxis": {**plain, "scaleanchor": "x", "autorange": "reversed", "constrain": "domain"},
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
    }
    few = max(2, images.columns // 2)
    layout["shapes"] = _frames(images, images.columns)
    return {
        "data": [trace],
        "layout": layout,
        "height": _height(wide, 860),
        "narrow": {"z": narrow, "height": _height(narrow, 270), "shapes": _frames(images, few)},
        "room": 8,
    }


def _frames(images: Images, columns: int) -> list[dict[str, Any]]:
    """Return a thin frame around each tile: what is blank is part of it too."""
    (height, width), columns = images.shape, min(columns, len(images.tiles))
    look = {"type": "rect", "line": {"color": "$grid", "width": 1}, "layer": "below"}
    places = [divmod(i, columns) for i in range(len(images.tiles))]
    return [
        {
            **look,
            "x0": column * (width + 1) - 0.5,
            "x1": column * (width + 1) + width - 0.5,
            "y0": row * (height + 1) - 0.5,
            "y1": row * (height + 1) + height - 0.5,
        }
        for row, column in places
    ]


def _height(image: Sequence[Sequence[Any]], width: float) -> int:
    return round(min(max(width * len(image) / len(image[0]), 160), 440)) + 16


def _base(chart: Chart) -> dict[str, Any]:
    return {**_look(), "xaxis": _axis(chart.x_label, chart.x_log)}


def _look() -> dict[str, Any]:
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _FONT, "size": 13, "color": "$ink"},
        "showlegend": False,
        "hovermode": "closest",
        "dragmode": False,
        "hoverlabel": {"bgcolor": "$paper", "bordercolor": "$muted", "font": {"color": "$ink"}},
    }


def _axis(label: str, log: bool) -> dict[str, Any]:
    axis: dict[str, Any] = {
        "title": {"text": label, "standoff": 10},
        "gridcolor": "$grid",
        "linecolor": "$muted",
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": "$muted",
        "fixedrange": True,
        "automargin": True,
    }
    if log:
        ticks = [m * 10.0**e for e in range(-4, 9) for m in (1, 2, 5)]
        axis.update(type="log", tickvals=ticks, ticktext=[f"{tick:,.6g}" for tick in ticks])
    return axis
