"""One run of an experiment, from wherever it stopped to its numbers."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch_bregman.experiments.measures import training_cost
from torch_bregman.experiments.recipe import Curves, Experiment, Variant, settings
from torch_bregman.experiments.results import Run
from torch_bregman.train import Conf, RunFolder, TrainingDivergedError, fit, resume
from torch_bregman.train.history import Row, flatten


@dataclass(frozen=True)
class Job:
    """A run that is still to be done.

    Args:
        experiment: whose.
        scale: at which.
        variant: of which.
        seed: of the run.
        out: folder of all runs.
        data: folder of the data sets, or None for the usual places.
    """

    experiment: Experiment
    scale: str
    variant: Variant
    seed: int
    out: str
    data: str | None

    def __str__(self) -> str:
        return f"{self.experiment.name} {self.variant.name} seed {self.seed}"

    def conf(self) -> Conf:
        """Return the run's configuration."""
        conf = self.experiment.conf(self.scale, self.variant)
        out = Path(self.out) / f"{self.experiment.name}-{self.scale}"
        data = replace(conf.data, dir=_data_folder(self.data, conf.data.name))
        return replace(
            conf, name=f"{self.variant.name}-{self.seed}{self._mark()}", seed=self.seed, out=str(out), data=data
        )

    def _mark(self) -> str:
        """Return a mark of what the configuration does not say: a folder made with other settings is another's."""
        if not self.variant.beside:
            return ""
        text = json.dumps(self.variant.beside, sort_keys=True)
        return f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def complete(job: Job) -> Run:
    """Do a run, or the rest of it, and return what it came to.

    Raises:
        ValueError: for data that is missing, or a run that diverges where the experiment tries no settings.
    """
    conf = job.conf()
    folder = _started(conf)
    try:
        if folder is None:
            folder = fit(conf, observers=[], controls=job.variant.controls).folder
        elif folder.read_summary() is None:
            resume(str(folder.path), observers=[], controls=job.variant.controls)
    except TrainingDivergedError as error:
        begun = _started(conf)
        if not job.experiment.tunes or begun is None:
            raise
        return Run(job.variant.name, job.seed, _environment(begun), {}, {}, str(error).partition(",")[0])
    return _outcome(job, folder)


def _data_folder(root: str | None, name: str) -> str | None:
    """Return the folder of a set: below the root where it has one of that name; the sample needs none."""
    if root is None or name == "sample":
        return None
    own = Path(root) / name
    return str(own if own.is_dir() else root)


def _started(conf: Conf) -> RunFolder | None:
    """Return the folder of the same run, made earlier; one whose configuration was another is passed over."""
    for path in sorted(Path(conf.out).glob(f"{conf.name}*")):
        folder = RunFolder(path)
        if folder.config.is_file() and _same(Conf.from_yaml(folder.config), conf):
            return folder
    return None


def _same(one: Conf, other: Conf) -> bool:
    return one.seed == other.seed and settings(one) == settings(other)


def _outcome(job: Job, folder: RunFolder) -> Run:
    rows, summary = folder.read_log(), folder.read_summary() or {}
    measured = job.experiment.measure(folder) if job.experiment.measure else {}
    if job.variant.gradients is not None:
        measured = {**measured, **training_cost(folder, job.variant.gradients)}
    numbers = {**flatten(rows[-1]), **summary, **measured}
    plain = {key: _short(value) for key, value in numbers.items() if isinstance(value, (int, float))}
    return Run(job.variant.name, job.seed, _environment(folder), plain, _curves(job.experiment, rows))


def _environment(folder: RunFolder) -> dict[str, Any]:
    return {**json.loads(folder.environment.read_text(encoding="utf-8")), **_machine()}


def _curves(experiment: Experiment, rows: list[Row]) -> dict[str, list[float]]:
    figures = [figure for figure in experiment.figures if isinstance(figure, Curves)]
    flat = [flatten(row) for row in rows]
    keys = dict.fromkeys(panel.key for figure in figures for panel in figure.panels)
    return {key: [_short(row[key]) for row in flat] for key in keys if all(key in row for row in flat)}


def _short(value: float) -> float:
    """Return a number as exact as anyone will look at it."""
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {"processor": named[0] if named else platform.machine(), "cores": os.cpu_count()}
