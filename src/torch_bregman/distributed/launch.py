"""The command started in many processes of this machine, by PyTorch's own torchrun."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path


def without_launch(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command without those that say in how many processes it runs.

    Example:
        >>> without_launch(["train", "--launch", "2", "--epochs=3", "--restarts=0"])
        ['train', '--epochs=3']
    """
    kept, skip = [], False
    for each in arguments:
        if not skip and each.split("=")[0] not in ("--launch", "--restarts"):
            kept.append(each)
        skip = not skip and each in ("--launch", "--restarts")
    return kept


def check_launch(processes: int, restarts: int) -> None:
    """Raise ValueError for numbers out of range, or inside a process that was launched itself."""
    if processes < 1:
        raise ValueError(f"--launch must be a whole number of processes >= 1, got {processes}")
    if restarts < 0:
        raise ValueError(f"--restarts must be a whole number >= 0, got {restarts}: 0 gives up at once")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise ValueError("--launch does not go with torchrun, which starts the processes: leave one of them out")


def launch(arguments: Sequence[str], processes: int, restarts: int) -> int:
    """Run `bregman` with these arguments in many processes, anew where one dies.

    Args:
        arguments: of the command, without --launch.
        processes: at least 1.
        restarts: how often all are started anew, at least 0.

    Returns:
        0, else the exit status of the process that failed first, 130 when interrupted.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes say themselves what is
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=restarts,
            monitor_interval=0.2,
            start_method="spawn",
            local_addr="localhost",
            log_line_prefix_template="",
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        status = Path(folder) / "status"
        os.environ[_STATUS] = str(status)
        try:
            elastic_launch(config, sys.executable)("-m", "torch_bregman", *arguments)
        except ChildFailedError as error:
            first = error.get_first_failure()[1]
            return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
        except (SignalException, KeyboardInterrupt):
            return 130
        finally:
            del os.environ[_STATUS]
        return int(status.read_text()) if status.is_file() else 0


_STATUS = "BREGMAN_LAUNCH_STATUS"


def reported(status: int) -> int:
    """Return the exit status with which a process that `launch` has started ends.

    An error of the user would be the same after a restart: it is handed over in a file, and the process ends as if all
    were well.
    """
    if status and _STATUS in os.environ:
        Path(os.environ[_STATUS]).write_text(str(status))
        return 0
    return status
