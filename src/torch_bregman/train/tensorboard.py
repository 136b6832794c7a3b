"""TensorBoard events of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch_bregman.train.conf import Conf
from torch_bregman.train.history import Row, flatten
from torch_bregman.train.observer import Result
from torch_bregman.train.run_folder import RunFolder

if TYPE_CHECKING:
    from torch_bregman.train.setup import Parts


class TensorBoard:
    """Writes every number of the log as a scalar to `<run>/tensorboard`.

    Raises:
        ValueError: where the package tensorboard is missing.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError("tensorboard is not installed: pip install 'torch-bregman[track]'") from None
        self._writer_class = SummaryWriter
        self._writer: Any = None

    def started(self, folder: RunFolder, conf: Conf, parts: Parts, epochs_done: int) -> None:
        """Open the event file; of a run that goes on all is written anew, for a kill may have come between."""
        self._writer = self._writer_class(folder.path / "tensorboard", purge_step=1)
        for row in folder.read_log() if epochs_done else []:
            self.epoch(row)

    def epoch(self, row: Row) -> None:
        """Write one row."""
        for key, value in flatten(row).items():
            if key != "epoch" and isinstance(value, (int, float)):
                self._writer.add_scalar(key, value, row["epoch"])
        self._writer.flush()

    def finished(self, result: Result) -> None:
        """Nothing more is written: the summary has a file of its own."""

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
