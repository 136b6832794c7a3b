"""Where else the log goes: TensorBoard, MLflow, trackio. CSV and JSON lines are always written."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch_bregman.train.atomic import replace_file
from torch_bregman.train.conf import TRACKERS, Conf
from torch_bregman.train.history import Row, flatten
from torch_bregman.train.observer import Observer, Result
from torch_bregman.train.run_folder import RunFolder

if TYPE_CHECKING:
    from torch_bregman.train.setup import Parts


def tracker(name: str) -> Observer:
    """Return the observer that sends the log to a tracker.

    Args:
        name: tensorboard, mlflow or trackio.

    Raises:
        ValueError: for another name, or one whose package is missing.

    Example:
        >>> tracker("abacus")
        Traceback (most recent call last):
        ValueError: track must name some of tensorboard, mlflow, trackio, got 'abacus'
    """
    if name not in TRACKERS:
        raise ValueError(f"track must name some of {', '.join(TRACKERS)}, got {name!r}")
    return {"tensorboard": TensorBoard, "mlflow": MLflow, "trackio": Trackio}[name]()


def _need(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise ValueError(f"{package} is not installed: pip install 'torch-bregman[track]'") from None


def _scalars(row: Row) -> Iterator[tuple[str, float]]:
    for key, value in flatten(row).items():
        if key != "epoch" and isinstance(value, (int, float)):
            yield key, value


class Tracker(ABC):
    """What trackers share: a run that goes on is told again from its first epoch, for a kill may have come between."""

    def started(self, folder: RunFolder, conf: Conf, parts: Parts, epochs_done: int) -> None:
        """Open the run, and tell what the log already holds."""
        self._open(folder, conf)
        for row in folder.read_log() if epochs_done else []:
            self.epoch(row)

    @abstractmethod
    def _open(self, folder: RunFolder, conf: Conf) -> None:
        """Open the run."""

    @abstractmethod
    def epoch(self, row: Row) -> None:
        """Tell one row."""

    def finished(self, result: Result) -> None:
        """Tell the summary, where the tracker has a place for it."""

    def close(self) -> None:
        """Close the run, finished or not."""


class TensorBoard(Tracker):
    """Writes every number of the log as a scalar to `<run>/tensorboard`.

    Raises:
        ValueError: where the package tensorboard is missing.
    """

    def __init__(self) -> None:
        self._writer_class = _need("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._writer: Any = None

    def _open(self, folder: RunFolder, conf: Conf) -> None:
        self._writer = self._writer_class(folder.path / "tensorboard", purge_step=1)

    def epoch(self, row: Row) -> None:
        """Write one row."""
        for key, value in _scalars(row):
            self._writer.add_scalar(key, value, row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


class _Remote(Tracker):
    """A tracker whose runs lie elsewhere: a note in the run's folder says which, and what it has been told."""

    name: ClassVar[str]

    def __init__(self) -> None:
        self._note = Path()
        self._run, self._told = "", 0

    def started(self, folder: RunFolder, conf: Conf, parts: Parts, epochs_done: int) -> None:
        """Open the run, or that of before, and tell what it does not know."""
        self._note = folder.path / f"{self.name}.json"
        if self._note.is_file():
            known = json.loads(self._note.read_text(encoding="utf-8"))
            self._run, self._told = known["run"], known["told"]
        super().started(folder, conf, parts, epochs_done)

    def epoch(self, row: Row) -> None:
        """Tell one row, once."""
        if row["epoch"] > self._told:
            self._send(dict(_scalars(row)), row["epoch"])
            self._told = row["epoch"]
            self._write_note()

    def _write_note(self) -> None:
        text = json.dumps({"run": self._run, "told": self._told})
        replace_file(self._note, lambda file: file.write(text.encode()))

    @abstractmethod
    def _send(self, values: dict[str, float], epoch: int) -> None:
        """Send the numbers of one epoch."""


class MLflow(_Remote):
    """Sends configuration, log and summary to an MLflow run; a run that goes on goes on there too.

    Where to is MLFLOW_TRACKING_URI, by default a database in the folder of all runs; the experiment is
    MLFLOW_EXPERIMENT_NAME, by default torch-bregman.

    Raises:
        ValueError: where the package mlflow, or mlflow-skinny, is missing.
    """

    name = "mlflow"

    def __init__(self) -> None:
        super().__init__()
        self._mlflow = _need("mlflow", "mlflow")
        self._client: Any = None
        self._is_open = False

    def _open(self, folder: RunFolder, conf: Conf) -> None:
        default = f"sqlite:///{(folder.path.parent / 'mlflow.db').resolve()}"
        self._client = self._mlflow.MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", default))
        if self._run:
            self._client.set_terminated(self._run, status="RUNNING")
        else:
            self._create(folder, conf)
        self._is_open = True

    def _create(self, folder: RunFolder, conf: Conf) -> None:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "torch-bregman")
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment)
        self._run = self._client.create_run(number, run_name=folder.path.name).info.run_id
        self._write_note()
        for key, value in _flat(conf.to_dict()):
            self._client.log_param(self._run, key, value)

    def _send(self, values: dict[str, float], epoch: int) -> None:
        for key, value in values.items():
            self._client.log_metric(self._run, key, value, step=epoch)

    def finished(self, result: Result) -> None:
        """Send the summary."""
        for key, value in _scalars(result.summary):
            self._client.log_metric(self._run, f"final/{key}", value)
        self._client.set_terminated(self._run)
        self._is_open = False

    def close(self) -> None:
        """Mark a run that did not finish."""
        if self._is_open:
            self._client.set_terminated(self._run, status="KILLED")


class Trackio(_Remote):
    """Sends configuration, log and summary to a trackio project: TRACKIO_PROJECT, by default torch-bregman.

    The project is a database in TRACKIO_DIR, by default in the user's cache. Runs are known by their names there: a
    second one of a name has -2 after it.

    Raises:
        ValueError: where the package trackio is missing.
    """

    name = "trackio"

    def __init__(self) -> None:
        super().__init__()
        self._trackio = _need("trackio", "trackio")
        self._handle: Any = None

    def _open(self, folder: RunFolder, conf: Conf) -> None:
        project = os.environ.get("TRACKIO_PROJECT", "torch-bregman")
        goes_on = bool(self._run)
        if not goes_on:
            self._run = self._free_name(project, folder.path.name)
            self._write_note()
        self._handle = self._trackio.init(
            project=project,
            name=self._run,
            config=dict(_flat(conf.to_dict())),
            resume="allow" if goes_on else "never",
        )

    def _free_name(self, project: str, name: str) -> str:
        try:
            taken = {run.name for run in self._trackio.Api().runs(project)}
        except ValueError:  # there is no such project yet
            return name
        names = (f"{name}-{number}" if number > 1 else name for number in count(1))
        return next(each for each in names if each not in taken)

    def _send(self, values: dict[str, float], epoch: int) -> None:
        self._handle.log(values, step=epoch)

    def finished(self, result: Result) -> None:
        """Send the summary."""
        self._handle.log({f"final/{key}": value for key, value in _scalars(result.summary)})

    def close(self) -> None:
        """Wait until all is sent."""
        if self._handle is not None:
            self._trackio.finish()
            self._handle = None


def _flat(plain: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in plain.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, (int, float, str)) else str(value)
