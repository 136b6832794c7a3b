"""What of a chart is in the picture, and in which colours."""

from __future__ import annotations

import pytest

from torch_bregman.report.charts import COLORS, OURS, Chart, Line, palette_index
from torch_bregman.report.png_charts import draw_lines


def chart(crop: bool) -> Chart:
    heights = [(70.0, 98.0), *((97.0 + i / 10, 98.0 + i / 10) for i in range(8))]
    lines = tuple(Line(f"line {i}", [1.0, 2.0], list(y), style=i) for i, y in enumerate(heights))
    return Chart("name", "Title", "About.", "x", "y", lines, crop=crop)


def test_a_line_far_below_does_not_press_the_others_together() -> None:
    low, high = chart(crop=True).y_range()
    assert 96 < low < 97.5
    assert high > 98.7
    whole = chart(crop=False).y_range()
    assert whole[0] < 70
    assert whole[1] >= high
    assert all(low <= at for _, _, at, _ in chart(crop=True).ends())
    assert "from 70 at 1" in chart(crop=True).alternative


def test_our_colour_is_not_used_again() -> None:
    used = [palette_index(style) for style in range(40)]
    assert used.count(OURS) == 1
    assert set(used) == set(range(COLORS))


def test_points_that_are_not_joined_are_not_joined_in_the_picture() -> None:
    figure = pytest.importorskip("matplotlib.figure", reason="the extra plot is not installed")
    lines = tuple(Line(f"{joined}", [1.0, 2.0], [3.0, 1.0], joined=joined) for joined in (True, False))
    axes = figure.Figure().subplots()
    draw_lines(axes, Chart("name", "Title", "About.", "x", "y", lines))
    assert [line.get_linestyle() for line in axes.lines] == ["-", "None"]
