"""How a run shows itself on a terminal: a progress bar, or plain lines where there is no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from torch_bregman.metrics import density_report
from torch_bregman.train.conf import Conf
from torch_bregman.train.history import Row, metric_text
from torch_bregman.train.observer import Result
from torch_bregman.train.run_folder import RunFolder

if TYPE_CHECKING:
    from torch_bregman.train.setup import Parts


class Terminal:
    """Prints what a run is, how it goes and what came out.

    Args:
        console: where to; default standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._progress: Progress | None = None
        self._epochs = 0

    def started(self, folder: RunFolder, conf: Conf, parts: Parts, epochs_done: int) -> None:
        """Say what is about to run."""
        self._epochs = conf.epochs
        weights = sum(p.numel() for p in parts.model.parameters() if p.ndim > 1)
        self._console.print(f"run    {folder.path}", soft_wrap=True)
        self._console.print(
            f"train  {conf.model.name} ({weights:,} weights) on {conf.data.name} ({len(parts.train.labels):,} images, "
            f"{parts.source}) with {conf.optim.name}, {conf.regularizer.name} λ = {conf.regularizer.lam:g}, "
            f"on {parts.device}",
            soft_wrap=True,
        )
        if epochs_done:
            self._console.print(f"resume after epoch {epochs_done} of {conf.epochs}")
        if self._console.is_terminal:
            self._progress = _progress(self._console)
            self._progress.start()
            self._progress.add_task(f"epoch {epochs_done + 1}/{conf.epochs}", total=conf.epochs, completed=epochs_done)

    def epoch(self, row: Row) -> None:
        """Show one row."""
        text = _line(row, self._epochs)
        if self._progress is None:
            self._console.print(text, soft_wrap=True)
        else:
            self._progress.update(self._progress.task_ids[0], completed=row["epoch"], description=text)
        if row.get("remarks"):
            self._console.print(f"note: {row['remarks']}", soft_wrap=True)

    def finished(self, result: Result) -> None:
        """Print the layers and the final numbers."""
        self.close()
        self._console.print(_layers(result))
        for line in _outcome(result):
            self._console.print(line, soft_wrap=True)

    def close(self) -> None:
        """Leave the terminal in order."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _progress(console: Console) -> Progress:
    bar = BarColumn(bar_width=24)
    return Progress(TextColumn("{task.description}"), bar, TimeRemainingColumn(), console=console)


def _line(row: Row, epochs: int) -> str:
    kind = "val" if "val_loss" in row else "test"
    ranks = row.get("layer_rank")
    size = f"ranks {', '.join(map(str, ranks.values()))}" if ranks else f"density {row['density']:6.2%}"
    return (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  loss {row['train_loss']:.4f}  "
        f"{kind} {metric_text(row, kind, wide=True)}  {size}  {row['seconds']:.1f} s"
    )


def _layers(result: Result) -> Table:
    table = Table(title=f"{result.conf.model.name} after {len(result.rows)} epochs", title_justify="left")
    for name in ("weight", "shape"):
        table.add_column(name)
    ranks = result.rows[-1].get("layer_rank", {})
    for name in ("left", "of", "density", *(["rank"] if ranks else [])):
        table.add_column(name, justify="right")
    for layer in density_report(result.model).layers:
        shape = " × ".join(map(str, layer.shape))
        table.add_row(
            layer.name,
            shape,
            f"{layer.nonzeros:,}",
            f"{layer.total:,}",
            f"{layer.density:.2%}",
            *_rank(ranks, layer.name),
        )
    left, total = result.summary["weights_left"], result.summary["weights"]
    table.add_section()
    table.add_row("all", "", f"{left:,}", f"{total:,}", f"{left / total:.2%}", *([""] if ranks else []))
    return table


def _rank(ranks: dict[str, int], name: str) -> list[str]:
    return [str(ranks.get(name, ""))] if ranks else []


def _outcome(result: Result) -> list[str]:
    summary = result.summary
    lines = [f"test {metric_text(summary, 'test')} at density {summary['density']:.2%} (last epoch)"]
    if "best_epoch" in summary:
        lines.append(
            f"test {metric_text(summary, 'best_test')} at density {summary['best_density']:.2%} "
            f"(epoch {summary['best_epoch']}, best on the validation images)"
        )
    if "stored" in summary:
        lines.append(f"{summary['stored']:,} numbers store the weights, those of low rank as two factors")
    if "flops" in summary:
        share = summary["flops"] / summary["flops_dense"]
        lines.append(
            f"{summary['flops']:.2e} floating-point operations were zeros free, {share:.1%} of a dense network's"
        )
    return [*lines, f"{summary['seconds']:.1f} s of training, all files in {result.path}"]
