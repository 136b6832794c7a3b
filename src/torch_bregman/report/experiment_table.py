"""The results of an experiment as a table: mean ± standard deviation over seeds, marks beside them."""

from __future__ import annotations

import csv
import io

from torch_bregman.experiments import Quantity, Variant
from torch_bregman.experiments.results import Results, spread


def markdown_table(results: Results) -> str:
    """Return a Markdown table, one line a variant.

    Where the experiment has marks to compare with, a column after the quantity gives the mark and how far from it the
    mean lies, in the same unit.

    Raises:
        ValueError: where nothing has run yet.
    """
    experiment, variants = results.experiment, finished(results)
    header = ["variant", "seeds"]
    for quantity in experiment.columns:
        header += [quantity.label, *(["mark (difference)"] if _marked(results, quantity) else [])]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for variant in variants:
        cells = [variant.label, str(len(results.of(variant.name)))]
        for quantity in experiment.columns:
            cells += [_cell(results, variant, quantity)]
            cells += [_mark(results, variant, quantity)] if _marked(results, quantity) else []
        lines.append(cells)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def csv_table(results: Results) -> str:
    """Return the same as CSV, in full precision: mean and standard deviation of every quantity, and the marks.

    Raises:
        ValueError: where nothing has run yet.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = results.experiment.columns
    names = [f"{q.key} {what}" for q in columns for what in ("mean", "std", "mark")]
    writer.writerow(["variant", "seeds", *names])
    for variant in finished(results):
        cells: list[object] = [variant.name, len(results.of(variant.name))]
        for quantity in columns:
            mean, deviation = _spread(results, variant, quantity) or ("", "")
            mark = results.experiment.marks.get(variant.name, {}).get(quantity.key, "")
            cells += [_full(mean), _full(deviation), mark]
        writer.writerow(cells)
    return text.getvalue()


def finished(results: Results) -> list[Variant]:
    """Return the variants of which there are runs.

    Raises:
        ValueError: where there are none.
    """
    variants = [v for v in results.experiment.variants_at(results.scale) if results.of(v.name)]
    if not variants:
        raise ValueError(f"{results.path} has no runs yet: {results.command} makes them")
    return variants


def values(results: Results, variant: Variant, quantity: Quantity) -> list[float]:
    """Return a quantity of every run of a variant, in the unit shown; empty where they do not have it, or diverged."""
    runs = results.of(variant.name)
    if any(run.diverged for run in runs):
        return []
    return [quantity.factor * run.numbers[quantity.key] for run in runs if quantity.key in run.numbers]


def _spread(results: Results, variant: Variant, quantity: Quantity) -> tuple[float, float | None] | None:
    found = values(results, variant, quantity)
    return spread(found) if found else None


def _cell(results: Results, variant: Variant, quantity: Quantity) -> str:
    found = _spread(results, variant, quantity)
    if found is None:
        return "diverged" if any(run.diverged for run in results.of(variant.name)) else "–"
    mean, deviation = found
    text = f"{mean:,.{quantity.digits}f}"
    return text if deviation is None else f"{text} ± {deviation:,.{quantity.digits}f}"


def _marked(results: Results, quantity: Quantity) -> bool:
    """Return whether anything is to be compared with; in a smoke test of a few images nothing is."""
    return results.scale != "smoke" and any(quantity.key in marks for marks in results.experiment.marks.values())


def _mark(results: Results, variant: Variant, quantity: Quantity) -> str:
    mark = results.experiment.marks.get(variant.name, {}).get(quantity.key)
    found = _spread(results, variant, quantity)
    if mark is None or found is None:
        return ""
    return f"{mark:g} ({found[0] - mark:+.{quantity.digits}f})"


def _full(value: float | str | None) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str("" if value is None else value)
