"""Tables, figures and the page of experiments."""

from __future__ import annotations

import csv
import dataclasses
import re
import struct
import zlib
from itertools import pairwise
from pathlib import Path

import cvxpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_bregman.experiments import Curves, Experiment, Quantity, Scale, Scatter, Variant
from torch_bregman.experiments.results import Results, Run
from torch_bregman.report.experiment_figures import charts_of, digest, draw_figure
from torch_bregman.report.experiment_page import page_text, show
from torch_bregman.report.experiment_table import csv_table, markdown_table
from torch_bregman.report.spacing import apart

ACCURACY = Quantity("test_accuracy", "test accuracy, %", 100)
SIZE = Quantity("size", "numbers stored", 1, 0)


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    (tmp_path / "base.yaml").write_text("epochs: 3\n")
    scale = Scale("All there is.", 2, {})
    return Experiment(
        name="toy",
        title="A toy",
        about="What is compared.",
        config=str(tmp_path / "base.yaml"),
        variants=tuple(
            Variant(name, label, {"seed": i}) for i, (name, label) in enumerate([("a", "A"), ("b", "B"), ("c", "C")])
        ),
        scales={"smoke": scale, "small": scale, "full": scale},
        columns=(ACCURACY, SIZE),
        figures=(Curves("curves", "Curves", (Quantity("val_loss", "loss"),)), Scatter("size", "Size", SIZE, ACCURACY)),
        marks={"a": {"test_accuracy": 97.0}},
        marks_from="a paper",
    )


@pytest.fixture
def results(experiment: Experiment, tmp_path: Path) -> Results:
    results = Results.open(tmp_path / "results", experiment, "small")
    environment = {"processor": "a chip", "cores": 2, "python": "3", "torch": "2", "torch-bregman": "0"}
    for variant, seed, accuracy, size in (("a", 0, 0.96, 1000), ("a", 1, 0.98, 3000), ("b", 0, 0.5, None)):
        numbers = {"test_accuracy": accuracy, **({"size": size} if size else {})}
        results.add(Run(variant, seed, environment, numbers, {"val_loss": [1.0, 0.5 + seed, 0.1]}))
    return results


def test_a_table_has_mean_deviation_seeds_and_the_way_to_the_mark(results: Results) -> None:
    assert markdown_table(results) == (
        "| variant | seeds | test accuracy, % | mark (difference) | numbers stored |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| A | 2 | 97.00 ± 1.41 | 97 (+0.00) | 2,000 ± 1,414 |\n"
        "| B | 1 | 50.00 |  | – |\n"
    )


def test_a_smoke_test_is_compared_with_nothing(experiment: Experiment, results: Results, tmp_path: Path) -> None:
    smoke = Results.open(tmp_path / "results", experiment, "smoke")
    smoke.add(results.runs[0])
    assert "mark" not in markdown_table(smoke)


def test_a_csv_has_the_numbers_in_full(results: Results) -> None:
    first, second = csv.DictReader(csv_table(results).splitlines())
    assert (first["variant"], first["seeds"], first["test_accuracy mean"]) == ("a", "2", "97")
    assert float(first["test_accuracy std"]) == pytest.approx(2**0.5, rel=1e-5)
    assert float(first["test_accuracy mark"]) == 97.0
    assert (second["test_accuracy std"], second["size mean"]) == ("", "")


def test_without_runs_there_is_no_table(experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"toy-small\.json has no runs yet: bregman experiment run toy --scale small"):
        markdown_table(Results.open(tmp_path, experiment, "small"))


def test_a_page_says_how_much_is_missing_and_nothing_where_all_is_there(results: Results) -> None:
    assert "All there is. So far 3 of 6 runs. Made by" in page_text([results], results.path.parent)
    for variant, seed in (("b", 1), ("c", 0), ("c", 1)):
        results.add(dataclasses.replace(results.runs[0], variant=variant, seed=seed))
    assert "All there is. Made by" in page_text([results], results.path.parent)


def test_a_page_says_what_how_and_where_and_links_what_is_there(results: Results, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    (tmp_path / "results" / "toy-small.remarks.md").write_text("It missed.\n")
    show([results], str(tmp_path / "page.md"))
    text = (tmp_path / "page.md").read_text()
    assert text == page_text([results], tmp_path)
    for part in ("## A toy", "What is compared.", "Scale small: All there is.", "on a chip, 2 cores", "It missed."):
        assert part in text
    assert "Marks: a paper." in text
    links = re.findall(r"\]\((.*?png)\)", text)
    assert links == ["results/toy-small-curves.png", "results/toy-small-size.png"]
    assert all((tmp_path / link).is_file() for link in links)
    beside = (tmp_path / "results" / "toy-small.md").read_text()
    assert re.findall(r"\]\((.*?png)\)", beside) == ["toy-small-curves.png", "toy-small-size.png"]


def chunks(png: bytes) -> dict[bytes, bytes]:
    """The chunks of a PNG by kind, the last of each."""
    found, place = {}, 8
    while place < len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        content = png[place + 8 : place + 8 + length]
        assert struct.unpack(">I", png[place + 8 + length : place + 12 + length])[0] == zlib.crc32(kind + content)
        found[kind], place = content, place + 12 + length
    return found


def test_figures_are_png_that_carry_what_they_show(results: Results, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    for figure in results.experiment.figures:
        path = draw_figure(results, figure, tmp_path / f"{figure.name}.png")
        found = chunks(path.read_bytes())
        assert found[b"tEXt"] == b"Description\0" + digest(results, figure).encode()
        width, height = struct.unpack(">II", found[b"IHDR"][:8])
        assert (width, height) == (715, 462)


def test_sizes_of_one_method_are_a_line_and_curves_keep_to_their_later_part(results: Results) -> None:
    curves, scatter = results.experiment.figures
    sizes = [Variant(f"v{k}-{i}", f"series {k}, {i}", {}, series=f"series {k}") for k in range(3) for i in range(6)]
    many = Results(results.path, dataclasses.replace(results.experiment, variants=tuple(sizes)), "smoke")
    for place, variant in enumerate(sizes):
        numbers = {scatter.x.key: 1.0 + place % 6, scatter.y.key: 0.01 * place}
        many.runs.append(Run(variant.name, 0, {}, numbers, {}))
    (chart,) = charts_of(many, scatter)
    assert [(line.label, len(line.x)) for line in chart.lines] == [(f"series {k}", 6) for k in range(3)]
    (followed,) = charts_of(results, curves)
    late = [y for line in followed.lines for y in line.y[len(line.y) // 5 :]]
    low, high = followed.y_range()
    assert low < min(late)
    assert max(late) < high


def test_the_digest_follows_the_numbers(results: Results) -> None:
    curves, points = results.experiment.figures
    before = digest(results, curves), digest(results, points)
    first = results.runs[0]
    results.runs[0] = dataclasses.replace(first, numbers={**first.numbers, "size": 1001})
    assert (digest(results, curves) == before[0], digest(results, points) == before[1]) == (True, False)


@given(heights=st.lists(st.floats(-100, 100), max_size=12), gap=st.floats(0.1, 10))
def test_labels_keep_apart_and_in_order(heights: list[float], gap: float) -> None:
    moved = apart(heights, gap)
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    assert all(moved[j] - moved[i] >= gap - 1e-9 for i, j in pairwise(order))
    assert sum(moved) == pytest.approx(sum(heights), abs=1e-6)
    assert apart(moved, gap) == pytest.approx(moved)


@settings(max_examples=25, deadline=None)
@given(heights=st.lists(st.floats(-10, 10), min_size=1, max_size=8), gap=st.floats(0.1, 2))
def test_between_bounds_labels_move_as_little_as_that_takes(heights: list[float], gap: float) -> None:
    low, high = -8.0, 8.0
    moved = apart(heights, gap, low, high)
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    where = cvxpy.Variable(len(heights))
    rules = [where >= low, where <= high, *(where[j] - where[i] >= gap for i, j in pairwise(order))]
    cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(where - heights)), rules).solve(solver="CLARABEL")
    assert where.value is not None
    assert moved == pytest.approx(list(where.value), abs=1e-4)


def test_labels_that_do_not_fit_stand_on_the_lower_bound() -> None:
    assert apart([0.0, 0.0, 0.0], 1.0, 0.0, 1.0) == [0.0, 1.0, 2.0]
