"""docs/experiments.md, its tables and its figures are those of the committed results; README quotes them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from torch_bregman.experiments.commands import Request, results_to_show
from torch_bregman.experiments.results import Results
from torch_bregman.report.experiment_figures import digest, digest_of
from torch_bregman.report.experiment_page import figure_path, page_text, section
from torch_bregman.report.experiment_table import csv_table

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MAKE = "bregman experiment tables all --scale small --results docs/experiments --page docs/experiments.md makes it anew"
SHOWN = results_to_show(Request("tables", "all", scale="small", results=str(DOCS / "experiments")))


def named(results: Results) -> str:
    return results.path.stem


def test_every_file_of_results_is_shown() -> None:
    there = {path.name for path in (DOCS / "experiments").glob("*.json")}
    assert there == {results.path.name for results in SHOWN}


def test_the_page_is_up_to_date() -> None:
    assert (DOCS / "experiments.md").read_text(encoding="utf-8") == page_text(SHOWN, DOCS), MAKE


@pytest.mark.parametrize("results", SHOWN, ids=named)
def test_tables_and_figures_are_up_to_date(results: Results) -> None:
    assert results.path.with_suffix(".md").read_text(encoding="utf-8") == section(results), MAKE
    assert results.path.with_suffix(".csv").read_text(encoding="utf-8") == csv_table(results), MAKE
    for figure in results.experiment.figures:
        drawn = figure_path(results, figure.name).read_bytes()
        assert b"Description\0" + digest(results, figure).encode() in drawn, MAKE


def test_nothing_lies_about_that_belongs_to_no_results() -> None:
    stems = tuple(results.path.stem for results in SHOWN)
    assert all(path.name.startswith(stems) for path in (DOCS / "experiments").iterdir())


@pytest.mark.parametrize("results", SHOWN, ids=named)
def test_results_say_what_they_were_made_with(results: Results) -> None:
    for run in results.runs:
        assert {"python", "torch", "torch-bregman", "processor", "cores"} <= run.environment.keys()


def test_the_frontier_of_the_readme_is_up_to_date() -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    spec = importlib.util.spec_from_file_location("frontier_figure", ROOT / "benchmarks/frontier_figure.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    drawn = (DOCS / "frontier.png").read_bytes()
    assert b"Description\0" + digest_of(script.charts()).encode() in drawn, "python benchmarks/frontier_figure.py"
    assert "docs/frontier.png" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_quotes_the_page() -> None:
    readme, page = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/experiments.md"))
    assert "docs/experiments.md" in readme
    lines = re.findall(r"^\| .* ± .* \|$", readme, re.MULTILINE)
    numbers = [number for line in lines for number in re.findall(r"[\d,.]+ ± [\d,.]+", line)]
    assert numbers
    assert not [number for number in numbers if number not in page]
