"""What a run has left behind, read for its report: no data set is needed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch_bregman.train import Conf, RunFolder
from torch_bregman.train.history import Row

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class RunStory:
    """A run, as far as it came.

    Args:
        folder: of the run.
        conf: what it was made from.
        rows: its log, at least one epoch.
        summary: final numbers, empty where it is not finished.
        weights: by name, after the last epoch.
        times: steps at which entries woke by name of the weight, 0 at the start, −1 never; empty where not noted.
        steps: of the whole run so far; 0 where not known.
        compact: what `bregman compact` reported, or None.
    """

    folder: RunFolder
    conf: Conf
    rows: list[Row]
    summary: dict[str, Any]
    weights: dict[str, Tensor]
    times: dict[str, Tensor]
    steps: int
    compact: dict[str, Any] | None

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.folder.path.name


def read_run(run: str, out: str = "runs") -> RunStory:
    """Read a run by its folder or its name in `out`.

    Raises:
        ValueError: where there is no such run, it has no epoch yet, or its checkpoint is damaged.
    """
    import torch

    from torch_bregman.train import load_checkpoint

    folder, conf = RunFolder.open(run, out)
    rows = folder.read_log() if folder.jsonl.is_file() else []
    if not rows or not folder.last.is_file():
        raise ValueError(f"run {folder.path} has no finished epoch yet: there is nothing to report")
    saved = load_checkpoint(folder.last, torch.device("cpu"))
    watching = [each for each in saved["controls"].values() if "times" in each]
    times = {watching[0]["names"][key]: found for key, found in watching[0]["times"].items()} if watching else {}
    weights = {name: tensor for name, tensor in saved["model"].items() if name.endswith("weight") and tensor.ndim > 1}
    steps = watching[0]["steps"] if watching else 0
    return RunStory(folder, conf, rows, folder.read_summary() or {}, weights, times, steps, _compact(folder))


def _compact(folder: RunFolder) -> dict[str, Any] | None:
    from torch_bregman.train.compact_command import REPORT

    path = folder.path / "compact" / REPORT
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{path} is damaged: make the folder anew with bregman compact {folder.path}") from None
