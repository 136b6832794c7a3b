"""One self-contained page: figures, tables and words, with plotly inside; it asks for nothing from any network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from torch_bregman import __version__
from torch_bregman.experiments.recipe import settings
from torch_bregman.experiments.results import Results, spread
from torch_bregman.report.charts import Figure, Images
from torch_bregman.report.experiment_table import finished, values
from torch_bregman.report.html_parts import Cell, Figures, facts, paragraph, table
from torch_bregman.report.result_charts import result_charts
from torch_bregman.report.run_charts import run_charts, together
from torch_bregman.report.run_story import RunStory
from torch_bregman.report.settings_table import with_settings
from torch_bregman.report.verdict import verdict
from torch_bregman.train.history import metric_of, metric_text

_HERE = Path(__file__).parent
_HOW_TO_COMPACT = "No compact model yet: `bregman compact {}` makes one and measures its latency."


@dataclass
class Page:
    """A page as it grows.

    Args:
        title: of the page.
        lead: its first paragraph.
    """

    title: str
    lead: str
    figures: Figures = field(default_factory=Figures)
    drawn: list[Figure] = field(default_factory=list)
    sections: dict[str, list[str]] = field(default_factory=dict)

    def add(self, heading: str, *parts: str | Figure) -> None:
        """Add a section, or more to one that is there."""
        own = self.sections.setdefault(heading, [])
        for part in parts:
            if isinstance(part, str):
                own.append(part)
            else:
                self.drawn.append(part)
                own.append(self.figures.add(part))

    def html(self) -> str:
        """Return the whole page.

        Raises:
            ValueError: where plotly is missing.
        """
        anchors = {heading: f"s{number}" for number, heading in enumerate(self.sections)}
        links = "".join(f'<li><a href="#{at}">{escape(heading)}</a></li>' for heading, at in anchors.items())
        body = "".join(
            f'<section aria-labelledby="{anchors[heading]}"><h2 id="{anchors[heading]}">{escape(heading)}</h2>'
            f"{''.join(parts)}</section>"
            for heading, parts in self.sections.items()
        )
        css, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
        nav = f'<nav aria-label="Contents"><ul>{links}</ul></nav>' if len(anchors) > 1 else ""
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<link rel="icon" href="data:,">\n<title>{escape(self.title)}</title>\n<style>\n{css}</style>\n</head>\n'
            f'<body>\n<a class="skip" href="#content">Skip to the figures</a>\n<header><h1>{escape(self.title)}</h1>'
            f'{paragraph(self.lead, "lead")}{nav}</header>\n<main id="content">\n{body}\n</main>\n'
            f"<footer>Made by <code>bregman report</code>, torch-bregman {__version__}.</footer>\n"
            f'<script type="application/json" id="figures">{self.figures.json()}</script>\n'
            f"<script>{_plotly()}</script>\n<script>\n{script}</script>\n</body>\n</html>\n"
        )


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ValueError("plotly is not installed: pip install 'torch-bregman[report]'") from None
    return get_plotlyjs()


def build_page(shown: Sequence[Results], stories: Sequence[RunStory]) -> Page:
    """Return the page of experiments and runs.

    Raises:
        ValueError: for an experiment of which nothing has run yet.
    """
    page = Page(_title(shown, stories), _lead(shown, stories))
    for results in shown:
        _add_results(page, results)
    if stories:
        _add_runs(page, stories)
    return page


def _title(shown: Sequence[Results], stories: Sequence[RunStory]) -> str:
    if len(shown) == 1 and not stories:
        return shown[0].experiment.title
    if len(stories) == 1 and not shown:
        return f"Run {stories[0].name}"
    return f"Experiments: {', '.join(r.experiment.name for r in shown)}" if shown else f"{len(stories)} runs"


def _lead(shown: Sequence[Results], stories: Sequence[RunStory]) -> str:
    """Return the first paragraph: who wins, losses first; for runs, what came out."""
    said = [(results, verdict(results)) for results in shown if results.scale != "smoke"]
    verdicts = [text if len(shown) == 1 else f"{results.experiment.title}: {text}" for results, text in said if text]
    if verdicts:
        return " ".join(verdicts)
    if shown:
        names = ", ".join(results.experiment.title for results in shown)
        brief = " A smoke test: nothing can be concluded from it." if shown[0].scale == "smoke" else ""
        return f"{names}, scale {shown[0].scale}.{brief}"
    return " ".join(f"{_came_to(story)}" for story in stories[:4]) + (" …" if len(stories) > 4 else "")


def _came_to(story: RunStory) -> str:
    row = story.rows[-1]
    source = story.summary or row
    kind = "test" if f"test_{metric_of(row)}" in source else "val"
    name = {"test": "test", "val": "validation"}[kind]
    return (
        f"{story.name} comes to {name} {metric_text(source, kind)} with {_left(story)} after {len(story.rows)} of "
        f"{story.conf.epochs} epochs."
    )


def _left(story: RunStory) -> str:
    row = story.rows[-1]
    if row.get("layer_rank"):
        ranks = ", ".join(str(rank) for rank in row["layer_rank"].values())
        return f"ranks {ranks}" + (f", {story.summary['stored']:,} numbers," if "stored" in story.summary else "")
    return f"{row['density']:.2%} of its weights"


def _add_results(page: Page, results: Results) -> None:
    experiment = results.experiment
    words = [paragraph(text, "small") for text in (experiment.about, f"{results.done}.")]
    charts = result_charts(results)
    page.add(experiment.title, *charts[:1], *words, *charts[1:])
    header, rows = _result_rows(results)
    conf = [
        {**settings(experiment.conf(results.scale, each)), **({"beside": dict(each.beside)} if each.beside else {})}
        for each in finished(results)
    ]
    page.add(experiment.title, "<h3>Every variant and setting</h3>", _full(header, rows, conf, experiment.title))


def _result_rows(results: Results) -> tuple[list[str], list[list[Cell]]]:
    columns = results.experiment.columns
    rows = []
    for variant in finished(results):
        cells = [Cell(variant.label), Cell(str(len(results.of(variant.name))), len(results.of(variant.name)))]
        for quantity in columns:
            found = values(results, variant, quantity)
            cells.append(_number(found, quantity.digits) if found else Cell("–"))
        rows.append(cells)
    return ["variant", "seeds", *(quantity.label for quantity in columns)], rows


def _number(found: Sequence[float], digits: int) -> Cell:
    mean, deviation = spread(list(found))
    text = f"{mean:,.{digits}f}"
    return Cell(text if deviation is None else f"{text} ± {deviation:,.{digits}f}", mean)


def _full(header: list[str], rows: list[list[Cell]], conf: Sequence[dict], about: str) -> str:
    names, cells = with_settings(header, rows, conf)
    return table(names, cells, f"{about}: numbers and every setting; headings sort", sortable=True)


def _add_runs(page: Page, stories: Sequence[RunStory]) -> None:
    if len(stories) > 1:
        page.add("All runs", *together(stories))
        header, rows = _run_rows(stories)
        conf = [{"seed": story.conf.seed, **settings(story.conf)} for story in stories]
        page.add("All runs", "<h3>Every run and setting</h3>", _full(header, rows, conf, "Runs"))
    for story in stories:
        heading = f"Run {story.name}"
        charts = run_charts(story) + ([together(stories)[2]] if len(stories) == 1 else [])
        images = [chart for chart in charts if isinstance(chart, Images)]
        lines = [chart for chart in charts if not isinstance(chart, Images)]
        page.add(heading, _facts(story), '<div class="grid">', *lines, "</div>", *images)
        page.add(heading, "<h3>Compact model</h3>", *_compact(story))
        header, rows = _run_rows([story])
        conf = [{"seed": story.conf.seed, **settings(story.conf)}]
        if len(stories) == 1:
            page.add(heading, "<h3>Every setting</h3>", _full(header, rows, conf, heading))


def _run_rows(stories: Sequence[RunStory]) -> tuple[list[str], list[list[Cell]]]:
    header = ["run", "epochs", "held out, %" if metric_of(stories[0].rows[0]) == "accuracy" else "held out, dB"]
    header += ["weights left, %", "seconds"]
    rows = []
    for story in stories:
        row, metric = story.rows[-1], metric_of(story.rows[-1])
        value = (100 if metric == "accuracy" else 1) * row.get(f"val_{metric}", row.get(f"test_{metric}", 0.0))
        seconds = sum(each["seconds"] for each in story.rows)
        rows.append(
            [
                Cell(story.name),
                Cell(str(len(story.rows)), len(story.rows)),
                Cell(f"{value:.2f}", value),
                Cell(f"{100 * row['density']:.2f}", row["density"]),
                Cell(f"{seconds:,.0f}", seconds),
            ]
        )
    return header, rows


def _facts(story: RunStory) -> str:
    row, metric = story.rows[-1], metric_of(story.rows[-1])
    source, kind = (story.summary, "test") if story.summary else (row, "val" if f"val_{metric}" in row else "test")
    left = sum(int(weight.count_nonzero()) for weight in story.weights.values())
    found = {
        f"{kind} {metric}": metric_text(source, kind).split(" ", 1)[1],
        "weights left": f"{left:,}",
        "of all": f"{row['density']:.2%}",
        "epochs": f"{len(story.rows)} of {story.conf.epochs}",
        "seconds of training": f"{sum(each['seconds'] for each in story.rows):,.0f}",
    }
    if row.get("layer_rank"):
        found["ranks"] = ", ".join(str(rank) for rank in row["layer_rank"].values())
    return facts(found)


def _compact(story: RunStory) -> list[str]:
    report = story.compact
    if report is None:
        return [paragraph(_HOW_TO_COMPACT.format(story.folder.path))]
    sizes = [
        [Cell(name), *(Cell(f"{value:,}", value) for value in report[key]), _share(report[key])]
        for key, name in (("parameters", "parameters"), ("bytes", "bytes"), ("macs", "multiply-adds"))
    ]
    times = [
        [Cell(f"ms at batch {e['batch']}"), *(Cell(f"{e[k]:.3f}", e[k]) for k in ("dense", "compact")), _faster(e)]
        for e in report["latencies"]
    ]
    about = f"Median milliseconds of a forward pass of both models in turns, {report['threads']} threads."
    header = ["", "dense", "compact", ""]
    return [table(header, [*sizes, *times], "The compact model beside the dense one"), paragraph(about, "small")]


def _share(pair: Sequence[float]) -> Cell:
    return Cell(f"{pair[1] / max(pair[0], 1):.1%}")


def _faster(latency: dict[str, float]) -> Cell:
    return Cell(f"{latency['dense'] / latency['compact']:.1f} × as fast")
