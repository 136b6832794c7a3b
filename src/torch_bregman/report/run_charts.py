"""A run as charts: how it learned, how it grew, what woke when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_bregman.report.charts import Chart, Figure, Images, Line
from torch_bregman.report.run_story import RunStory
from torch_bregman.train.history import metric_of

_UNIT = {"accuracy": ("accuracy, %", 100.0), "psnr": ("PSNR, dB", 1.0)}
_SHAPES = {"cifar10": (3, 32, 32)}
_TILES = 16


def together(stories: Sequence[RunStory]) -> list[Figure]:
    """Return the charts that compare runs: accuracy and density by epoch, accuracy by seconds."""
    metric = metric_of(stories[0].rows[0])
    alike = [story for story in stories if metric_of(story.rows[0]) == metric]
    label, factor = _UNIT[metric]
    curves = [(story, [factor * _held_out(row, metric) for row in story.rows]) for story in alike]
    cost = [_elapsed(story) for story in alike]
    return [
        Chart(
            "runs-accuracy",
            f"Held-out {label.split(',')[0]}",
            "On validation images where some are held out, else on test images, after each epoch.",
            "epoch",
            label,
            tuple(Line(story.name, _epochs(story), y, style=i) for i, (story, y) in enumerate(curves)),
        ),
        Chart(
            "runs-density",
            "How they grew",
            "Weights that are not zero, of all, after each epoch.",
            "epoch",
            "weights left, %",
            tuple(
                Line(story.name, _epochs(story), [100 * row["density"] for row in story.rows], style=i)
                for i, story in enumerate(alike)
            ),
            from_zero=True,
        ),
        Chart(
            "runs-cost",
            "Cost of training",
            "The same against the seconds of training so far, evaluation included, on the machine that each ran on.",
            "seconds of training",
            label,
            tuple(
                Line(story.name, seconds, y, style=i)
                for i, ((story, y), seconds) in enumerate(zip(curves, cost, strict=True))
            ),
        ),
    ]


def run_charts(story: RunStory) -> list[Figure]:
    """Return the charts of one run."""
    found: list[Figure] = [_learning(story), _size(story)]
    for key, title, y_label, factor in (
        ("layer_density", "Density of each layer", "weights left, %", 100),
        ("layer_rank", "Rank of each layer", "rank", 1),
        ("layer_rows", "Live units of each layer", "rows that are not zero", 1),
        ("layer_columns", "Inputs that each layer reads", "columns that are not zero", 1),
    ):
        if story.rows[0].get(key):
            found.append(_layers(story, key, title, y_label, factor))
    return [*found, *_lam(story), *_waking(story), *_first_layer(story)]


def _learning(story: RunStory) -> Chart:
    metric = metric_of(story.rows[0])
    label, factor = _UNIT[metric]
    kind = "val" if f"val_{metric}" in story.rows[0] else "test"
    words = {"val": "validation", "test": "test", "train": "training"}
    lines = [
        Line(words[which], _epochs(story), [factor * row[f"{which}_{metric}"] for row in story.rows], style=i)
        for i, which in enumerate((kind, "train"))
    ]
    about = "After each epoch; in training the mean over the epoch, while weights still move."
    return Chart(f"{story.name}-learning", "How it learned", about, "epoch", label, tuple(lines))


def _size(story: RunStory) -> Chart:
    goal = story.conf.target.density
    share = None if goal is None else goal if goal <= 1 else goal / sum(w.numel() for w in story.weights.values())
    return Chart(
        f"{story.name}-size",
        "Size and target",
        "Weights that are not zero, of all, after each epoch"
        + ("." if share is None else "; the level is the size that was asked for."),
        "epoch",
        "weights left, %",
        (Line("density", _epochs(story), [100 * row["density"] for row in story.rows]),),
        from_zero=True,
        levels={} if share is None else {f"target {100 * share:.3g} %": 100 * share},
    )


def _layers(story: RunStory, key: str, title: str, y_label: str, factor: float) -> Chart:
    names = list(dict.fromkeys(name for row in story.rows for name in row.get(key, {})))
    rows = [row for row in story.rows if row.get(key)]
    lines = tuple(
        Line(
            name.removesuffix(".weight"),
            [row["epoch"] for row in rows if name in row[key]],
            [factor * row[key][name] for row in rows if name in row[key]],
            style=i,
        )
        for i, name in enumerate(names)
    )
    return Chart(f"{story.name}-{key}", title, "After each epoch.", "epoch", y_label, lines, from_zero=True)


def _lam(story: RunStory) -> list[Chart]:
    groups = [key for key in story.rows[0].get("lam", {}) if any(row["lam"][key] > 0 for row in story.rows)]
    if not groups:
        return []
    lines = tuple(
        Line(
            "λ" if len(groups) == 1 else f"λ of group {key}",
            [row["epoch"] for row in story.rows if row["lam"][key] > 0],
            [row["lam"][key] for row in story.rows if row["lam"][key] > 0],
            style=i,
        )
        for i, key in enumerate(groups)
    )
    frozen = any(row["lam"][key] == 0 for row in story.rows for key in groups)
    end = " It ends where the support is frozen and the regulariser dropped." if frozen else ""
    about = f"The strength of the regulariser after each epoch.{end}"
    seen = [y for line in lines for y in line.y]
    log = max(seen) > 30 * min(seen)
    return [Chart(f"{story.name}-lam", "λ", about, "epoch", "λ", lines, y_log=log, from_zero=not log)]


def _waking(story: RunStory) -> list[Chart]:
    if not any(bool((times > 0).any()) for times in story.times.values()):
        return []
    lines = []
    for i, (name, times) in enumerate(story.times.items()):
        steps, counts = times[times >= 0].unique(return_counts=True)
        share = 100 * counts.cumsum(0).double() / times.numel()
        x = [int(step) for step in steps]
        y = [round(float(each), 4) for each in share]
        lines.append(
            Line(name.removesuffix(".weight"), [*x, story.steps], [*y, y[-1] if y else 0.0], style=i, marked=False)
        )
    return [
        Chart(
            f"{story.name}-waking",
            "What woke when",
            "Weights that have been other than zero at some time up to a step, of all of the layer; not all stay.",
            "step",
            "weights woken so far, %",
            tuple(lines),
        )
    ]


def _first_layer(story: RunStory) -> list[Figure]:
    """Return pictures of the weight that reads the images, where it does."""
    if not story.weights:
        return []
    name, weight = next(iter(story.weights.items()))
    shape = (weight.shape[1], *weight.shape[2:]) if weight.ndim == 4 else _SHAPES.get(story.conf.data.name, (1, 28, 28))
    channels, height, width = shape
    if weight[0].numel() != channels * height * width:
        return []
    images = weight.reshape(len(weight), channels, height, width).sum(1)
    found: list[Figure] = []
    if name in story.times:
        found += _times_of(story, story.times[name].reshape(len(weight), channels, height, width).amax(1))
    if story.rows[-1].get("layer_rank", {}).get(name):
        return [*found, _directions(story, name, weight.flatten(1), shape)]
    largest = images.flatten(1).norm(dim=1).argsort(descending=True)[:_TILES]
    return [
        *found,
        Images(
            f"{story.name}-first-layer",
            "The first layer",
            f"Incoming weights of the {len(largest)} units with the largest; blank where a weight is zero.",
            tuple(_tile(images[i], images[i] != 0) for i in largest),
            tuple(f"unit {int(i)}" for i in largest),
            "weight",
            signed=True,
        ),
    ]


def _times_of(story: RunStory, times: Any) -> list[Figure]:
    """Return when each pixel was first read by any unit, and when the weights of the first units woke."""
    if not bool((times > 0).any()):
        return []
    never = times.max() + 1
    woke = times.masked_fill(times <= 0, never)
    first = woke.amin(0)
    order = woke.flatten(1).double().mean(1).argsort()[:_TILES]
    scale = f"step, of {story.steps}"
    found: list[Figure] = [
        Images(
            f"{story.name}-units",
            "When weights of the first layer woke",
            f"Incoming weights of the {len(order)} units of which most woke; blank what was awake from the start "
            "or never woke.",
            tuple(_tile(times[i], times[i] > 0) for i in order),
            tuple(f"unit {int(i)}" for i in order),
            scale,
        )
    ]
    if first.numel() > 100:  # of a kernel there is nothing to see
        pixels = "For each pixel the step at which the first weight woke that reads it; blank where none did."
        tile = (_tile(first, first < never),)
        found.insert(0, Images(f"{story.name}-pixels", "When more of each pixel was read", pixels, tile, ("",), scale))
    return found


def _directions(story: RunStory, name: str, matrix: Any, shape: tuple[int, ...]) -> Images:
    import torch

    rank = int(story.rows[-1]["layer_rank"][name])
    _, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    shown = min(rank, _TILES)
    woke = [_epoch_of_rank(story, name, i + 1) for i in range(shown)]
    tiles = [right[i].reshape(shape).sum(0) for i in range(shown)]
    return Images(
        f"{story.name}-directions",
        "Singular directions of the first layer",
        f"What the layer looks for, by falling singular value, from {float(values[0]):.3g} to "
        f"{float(values[shown - 1]):.3g}; it had rank {_in_words(woke)}.",
        tuple(_tile(tile, tile == tile) for tile in tiles),
        tuple(f"direction {i + 1}" for i in range(shown)),
        "entry of the direction",
        signed=True,
    )


def _in_words(woke: Sequence[int]) -> str:
    """Return from which epoch on there were how many directions, given the epoch of each."""
    ends = {epoch: number for number, epoch in enumerate(woke, start=1)}
    return ", ".join(f"{number} or more from epoch {epoch}" for epoch, number in ends.items())


def _epoch_of_rank(story: RunStory, name: str, rank: int) -> int:
    return next((row["epoch"] for row in story.rows if row["layer_rank"].get(name, 0) >= rank), story.rows[-1]["epoch"])


def _tile(values: Any, shown: Any) -> list[list[float | None]]:
    return [
        [float(f"{float(v):.4g}") if s else None for v, s in zip(row, mask, strict=True)]
        for row, mask in zip(values, shown, strict=True)
    ]


def _epochs(story: RunStory) -> list[float]:
    return [row["epoch"] for row in story.rows]


def _held_out(row: dict[str, Any], metric: str) -> float:
    return row[f"val_{metric}" if f"val_{metric}" in row else f"test_{metric}"]


def _elapsed(story: RunStory) -> list[float]:
    total, found = 0.0, []
    for row in story.rows:
        total += row["seconds"]
        found.append(round(total, 3))
    return found
