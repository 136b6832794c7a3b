"""The files that show an experiment, and the page that shows all of them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from torch_bregman.experiments.results import Results
from torch_bregman.report.experiment_figures import draw_figure
from torch_bregman.report.experiment_table import csv_table, markdown_table
from torch_bregman.report.verdict import difference_table, verdict
from torch_bregman.train.atomic import replace_file

_HEAD = """# Experiments

Made by `bregman experiment tables all --scale small --results docs/experiments --page docs/experiments.md` from the
results in [experiments/](experiments); every number is that of the last epoch, as mean ± standard deviation over seeds
(n − 1), density is over all weights of the network. Nothing was chosen by looking at test images.

`bregman experiment run NAME --scale small --results docs/experiments` makes the results of an experiment, or what is
missing of them; `--data.dir DIR` names a folder of data sets. What has no section here runs at full scale only, or has
not been run: see `bregman experiment list`.
"""


def write_tables(results: Results) -> list[Path]:
    """Write table (Markdown and CSV) and figures beside a file of results.

    Returns:
        The files written.

    Raises:
        ValueError: where nothing has run yet, or matplotlib is missing for the figures.
    """
    texts = {results.path.with_suffix(".md"): section(results), results.path.with_suffix(".csv"): csv_table(results)}
    for path, text in texts.items():
        _write(path, text)
    return [*texts, *(draw_figure(results, f, figure_path(results, f.name)) for f in results.experiment.figures)]


def page_text(shown: Sequence[Results], seen_from: Path) -> str:
    """Return the page of results, in their order; links are relative to the folder it stands in."""
    return _HEAD + "".join("\n#" + section(results, seen_from) for results in shown)


def show(shown: Sequence[Results], page: str | None = None) -> None:
    """Print the table of every one of the results, write its files, and the page of all.

    Raises:
        ValueError: where matplotlib is missing for the figures, or a file cannot be written.
    """
    for results in shown:
        files = write_tables(results)
        print(markdown_table(results))
        print(*files, sep="\n")
    if page is not None:
        _write(Path(page), page_text(shown, Path(page).parent))
        print(page)


def figure_path(results: Results, name: str) -> Path:
    """Return where a figure is kept."""
    return results.path.with_name(f"{results.path.stem}-{name}.png")


def section(results: Results, seen_from: Path | None = None) -> str:
    """Return what there is to say about results: what was done, the table, figures, remarks.

    Args:
        results: with at least one run.
        seen_from: the folder from which figures are linked, default that of the results.
    """
    experiment = results.experiment
    parts = [
        f"# {experiment.title}\n",
        *_verdict(results),
        _paragraph(experiment.about),
        _paragraph(f"{results.done} on {_machines(results)}."),
        markdown_table(results),
        *_marks(results),
        *_differences(results),
        *(f"![{figure.title}]({_link(results, figure.name, seen_from)})\n" for figure in experiment.figures),
        *_remarks(results),
    ]
    return "\n".join(parts)


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def _marks(results: Results) -> list[str]:
    experiment = results.experiment
    return [f"Marks: {experiment.marks_from}.\n"] if experiment.marks and results.scale != "smoke" else []


def _verdict(results: Results) -> list[str]:
    text = verdict(results) if results.scale != "smoke" else ""
    return [_paragraph(text)] if text else []


def _differences(results: Results) -> list[str]:
    table = difference_table(results)
    return (
        ["Paired by seed, with Student's interval of the mean, none corrected for the number of pairs:\n", table]
        if table
        else []
    )


def _machines(results: Results) -> str:
    keys = ("processor", "cores", "python", "torch", "torch-bregman")
    machines = dict.fromkeys(tuple(str(run.environment.get(key, "?")) for key in keys) for run in results.runs)
    return "; ".join(f"{cpu}, {n} cores, python {py}, torch {t}, torch-bregman {tb}" for cpu, n, py, t, tb in machines)


def _remarks(results: Results) -> list[str]:
    """Return what was written by hand about these results, in a file beside them."""
    path = results.path.with_name(f"{results.path.stem}.remarks.md")
    return [path.read_text(encoding="utf-8")] if path.is_file() else []


def _link(results: Results, name: str, seen_from: Path | None) -> str:
    path = figure_path(results, name)
    return path.name if seen_from is None else path.relative_to(seen_from).as_posix()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda file: file.write(text.encode()))
