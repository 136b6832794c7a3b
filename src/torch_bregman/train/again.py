"""Where a run goes on whose processes torchrun has started anew."""

from __future__ import annotations

import os
import re
from pathlib import Path

from torch_bregman.distributed.processes import is_launched
from torch_bregman.train.atomic import replace_file
from torch_bregman.train.conf import Conf
from torch_bregman.train.run_folder import RunFolder


class Launch:
    """What one call of torchrun is working on, kept in a small file beside the runs.

    torchrun starts all processes anew where one has died, with the same arguments: `fit` must then go on with its run,
    and not begin another. The launch is known by its rendezvous id (`--rdzv-id`), else by the process of torchrun.

    Args:
        out: folder of all runs.
    """

    def __init__(self, out: str) -> None:
        name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
        self._named = name != "none"
        key = name if self._named else f"process-{os.getppid()}"
        self._file = Path(out) / ".launches" / re.sub(r"[^\w.-]", "_", key)

    @classmethod
    def current(cls, out: str) -> Launch | None:
        """Return the launch this process belongs to, None where no torchrun has started it."""
        return cls(out) if is_launched() and "TORCHELASTIC_RUN_ID" in os.environ else None

    def unfinished(self, conf: Conf) -> RunFolder | None:
        """Return the run that an earlier start of this launch has begun with the same configuration."""
        restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
        if not self._file.is_file() or not (restarted or self._named):
            return None
        folder = RunFolder(Path(self._file.read_text(encoding="utf-8")))
        if not folder.config.is_file() or folder.read_summary() is not None:
            return None
        return folder if Conf.from_yaml(folder.config).to_dict() == conf.to_dict() else None

    def begin(self, folder: RunFolder) -> None:
        """Remember the run."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._file, lambda file: file.write(str(folder.path).encode()))

    def end(self) -> None:
        """Forget it."""
        self._file.unlink(missing_ok=True)
