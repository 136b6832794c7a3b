"""The page of `bregman report` as a document: self-contained, complete, and said in words too."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from tests.commands import is_one_error

from torch_bregman import cli
from torch_bregman.experiments.recipe import settings
from torch_bregman.report.charts import DASHES, MARKERS, Chart, Images, Line
from torch_bregman.report.html_parts import Cell, table
from torch_bregman.report.plotly_charts import plotly_figure
from torch_bregman.report.png_charts import draw_chart
from torch_bregman.report.run_charts import run_charts
from torch_bregman.report.run_story import read_run
from torch_bregman.report.settings_table import flat_settings


class Document(HTMLParser):
    """Elements with their attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def document(text: str) -> Document:
    return Document(text)


def test_nothing_is_fetched_from_anywhere(document: Document) -> None:
    assert not [each for each in document.of("script") if "src" in each]
    assert [each["href"] for each in document.of("link")] == ["data:,"]
    assert not document.of("img")
    assert all((each["href"] or "").startswith("#") for each in document.of("a"))


def test_every_figure_has_a_title_a_caption_and_words_in_its_place(document: Document) -> None:
    plots = [each for each in document.of("div") if each.get("class") == "plot"]
    assert len(plots) == len(document.of("figure")) == len(document.of("figcaption")) >= 15
    assert all(each["role"] == "img" and each["tabindex"] == "0" for each in plots)
    assert all(len(each["aria-label"] or "") > 40 for each in plots)
    ids = {each.get("id") for _, each in document.elements}
    labelled = [each["aria-labelledby"] for _, each in document.elements if "aria-labelledby" in each]
    assert set(labelled) <= ids


def test_the_first_paragraph_says_who_wins(text: str) -> None:
    first = re.search(r'<p class="lead">(.*?)</p>', text)
    assert first is not None
    assert "No other method is ahead in the mean" in first[1] or "Behind in the mean" in first[1]


def test_all_that_was_asked_for_is_there(text: str) -> None:
    for title in (
        *("Accuracy against size", "Differences, paired by seed", "Density of each layer", "Rank of each layer"),
        *("Live units of each layer", "Size and target", "λ", "What woke when", "When more of each pixel was read"),
        *("The first layer", "Singular directions of the first layer", "Cost of training", "Compact model"),
    ):
        assert f">{title}</h3>" in text, title
    assert "ms at batch 8" in text
    assert "bregman compact" in text  # how to come to a compact model of the other run


def test_every_setting_is_in_the_table(page: Path, text: str) -> None:
    story = read_run("grown", str(page.parent / "runs"))
    for name in flat_settings(settings(story.conf)):
        assert f"<button>{name}</button>" in text


def test_every_figure_is_a_picture_too(page: Path, document: Document) -> None:
    pictures = sorted((page.parent / "report-figures").iterdir())
    assert len(pictures) == len(document.of("figure"))
    assert all(each.read_bytes().startswith(b"\x89PNG") for each in pictures)


def test_images_show_what_woke(page: Path) -> None:
    story = read_run("grown", str(page.parent / "runs"))
    images = {each.title: each for each in run_charts(story) if isinstance(each, Images)}
    pixels = images["When more of each pixel was read"]
    times = story.times["fc1.weight"].reshape(40, 28, 28)
    for y, x in ((14, 14), (0, 0), (20, 10)):
        later = [int(t) for t in times[:, y, x] if t > 0]
        assert pixels.tiles[0][y][x] == (min(later) if later else None)
    layer = images["The first layer"]
    unit = int(layer.labels[0].split()[1])
    shown = [[v or 0.0 for v in row] for row in layer.tiles[0]]
    assert sum(abs(v) for row in shown for v in row) == pytest.approx(
        float(story.weights["fc1.weight"][unit].abs().sum()), rel=1e-3
    )


def test_text_is_escaped() -> None:
    chart = Chart("a", "A <b>", "x & y", "</script>", "y", (Line("<i>", [1, 2], [1.0, 2.0]),))
    from torch_bregman.report.html_parts import Figures

    figures = Figures()
    html = figures.add(chart)
    assert "<b>" not in html.replace("A &lt;b&gt;", "")
    assert "</script>" not in figures.json()
    assert json.loads(figures.json())["f0"]["layout"]["xaxis"]["title"]["text"] == "</script>"
    assert "<i>" not in table(["<i>"], [[Cell("<i>")]], "<i>")


def test_lines_differ_without_colour() -> None:
    lines = [Line(str(i), [1, 2], [1.0, 2.0], style=i) for i in range(10)]
    assert len({(line.marker, line.dash) for line in lines}) == 10
    assert len(set(MARKERS)) == len(MARKERS)
    assert len(set(DASHES)) == len(DASHES)


def test_labels_at_the_ends_keep_apart() -> None:
    lines = tuple(Line(f"line {i}", [1, 2], [1.0, 2.0 + 0.001 * i], style=i) for i in range(6))
    figure = plotly_figure(Chart("a", "A", "about", "x", "y", lines))
    heights = sorted(note["y"] for note in figure["layout"]["annotations"])
    low, high = figure["layout"]["yaxis"]["range"]
    assert min(b - a for a, b in pairwise(heights)) >= 0.054 * (high - low)


def test_a_mosaic_holds_all_tiles_with_a_blank_between() -> None:
    tiles = tuple([[float(i)] * 2] * 3 for i in range(5))
    images = Images("a", "A", "about", tiles, ("",) * 5, "weight", columns=3)
    mosaic = images.mosaic()
    assert (len(mosaic), len(mosaic[0])) == (3 + 1 + 3, 3 * 2 + 2)
    assert mosaic[0] == [0.0, 0.0, None, 1.0, 1.0, None, 2.0, 2.0]
    assert mosaic[3] == [None] * 8
    assert mosaic[4] == [3.0, 3.0, None, 4.0, 4.0, None, None, None]


def test_pictures_do_not_need_a_screen(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    chart = Chart("a", "A", "about", "x", "y", (Line("a", [1, 10], [1.0, 2.0], [0.9, 1.8], [1.1, 2.1]),), x_log=True)
    first, second = (draw_chart(chart, tmp_path / name).read_bytes() for name in ("1.png", "2.png"))
    assert first == second
    other = dataclasses.replace(chart, lines=(Line("a", [1, 10], [1.0, 2.5]),))
    assert draw_chart(other, tmp_path / "3.png").read_bytes() != first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "there is no run 'nothing': neither nothing nor runs/nothing holds a config.yaml; nor is it an"),
        (["size-lenet"], "size-lenet-smoke.json has no runs yet: bregman experiment run size-lenet --scale smoke"),
        ([], "targets"),
    ],
)
def test_what_is_not_there_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert is_one_error(error)
    assert message in error
    assert not list(tmp_path.iterdir())


def test_a_page_has_the_ending_of_one(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "grown", "--out", str(page.parent / "runs"), "--to", str(page.parent / "a.pdf")]) == 2
    assert "--to must name a page that ends in .html" in capsys.readouterr().err
