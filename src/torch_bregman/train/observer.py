"""What is told how a run goes, and what it is told at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch_bregman.train.conf import Conf
from torch_bregman.train.history import Row
from torch_bregman.train.run_folder import RunFolder

if TYPE_CHECKING:
    from torch import nn

    from torch_bregman.train.setup import Parts


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run.

    Args:
        folder: all its files.
        conf: what it was made from.
        model: the network after the last epoch.
        rows: the log.
        summary: final numbers, as in `summary.json`.
    """

    folder: RunFolder
    conf: Conf
    model: nn.Module
    rows: list[Row]
    summary: dict[str, Any]

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return self.folder.path


class Observer(Protocol):
    """What is told how a run goes: terminal, trackers, or a class of your own with these methods."""

    def started(self, folder: RunFolder, conf: Conf, parts: Parts, epochs_done: int) -> None:
        """Training begins, or goes on after `epochs_done`."""

    def epoch(self, row: Row) -> None:
        """An epoch is over; `row` is its line of the log."""

    def finished(self, result: Result) -> None:
        """Training is over."""

    def close(self) -> None:
        """Nothing more will come, whether the run finished or failed."""
