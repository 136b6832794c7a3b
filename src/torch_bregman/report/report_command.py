"""What `bregman report` is asked for, and doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_bregman.experiments import EXPERIMENTS
from torch_bregman.experiments.results import Results
from torch_bregman.report.html_page import Page, build_page
from torch_bregman.report.png_charts import draw_chart
from torch_bregman.report.run_story import RunStory, read_run
from torch_bregman.train.atomic import replace_file


@dataclass(frozen=True)
class ReportRequest:
    """The arguments of the command.

    Args:
        targets: names of experiments, and runs by folder or by name in `out`.
        out: folder of all runs.
        results: folder of results of experiments.
        scale: of the experiments: smoke, small or full.
        to: the page to write.
    """

    targets: Sequence[str]
    out: str = "runs"
    results: str = "results"
    scale: str = "smoke"
    to: str = "report.html"


def write_report(request: ReportRequest) -> tuple[Path, list[Path]]:
    """Write the page, and its figures as PNG into a folder beside it, `report-figures` for `report.html`.

    Returns:
        The page and the pictures.

    Raises:
        ValueError: for a target that is neither an experiment with results nor a run, for what cannot be written, and
            where plotly or matplotlib is missing.
    """
    shown = [_results(name, request) for name in request.targets if name in EXPERIMENTS]
    stories = [_run(name, request) for name in request.targets if name not in EXPERIMENTS]
    page = build_page(shown, stories)
    to = Path(request.to)
    if to.suffix != ".html":
        raise ValueError(f"--to must name a page that ends in .html, got {request.to!r}")
    text = page.html()
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        replace_file(to, lambda file: file.write(text.encode()))
        return to, _pictures(page, to.with_name(f"{to.stem}-figures"))
    except OSError as error:
        raise ValueError(f"cannot write to {to} ({error.strerror}): choose another place with --to") from None


def _results(name: str, request: ReportRequest) -> Results:
    results = Results.open(Path(request.results), EXPERIMENTS[name], request.scale)
    if not results.runs:
        raise ValueError(
            f"{results.path} has no runs yet: {results.command} makes them, --scale and --results name others"
        )
    return results


def _run(name: str, request: ReportRequest) -> RunStory:
    try:
        return read_run(name, request.out)
    except ValueError as error:
        if "there is no run" in str(error):
            raise ValueError(f"{error}; nor is it an experiment: see bregman experiment list") from None
        raise


def _pictures(page: Page, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [draw_chart(figure, folder / f"{figure.name}.png") for figure in page.drawn]
