"""The results of an experiment at a scale: one file that says what they were made from."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch_bregman.experiments.recipe import Experiment, settings
from torch_bregman.train import Conf
from torch_bregman.train.atomic import replace_file


@dataclass(frozen=True)
class Run:
    """What one run came to.

    Args:
        variant: its name.
        seed: of the run.
        environment: versions and machine.
        numbers: final ones, by key.
        curves: numbers of the log by key, one an epoch.
        diverged: why it came to nothing, where it did.
    """

    variant: str
    seed: int
    environment: dict[str, Any]
    numbers: dict[str, float]
    curves: dict[str, list[float]]
    diverged: str = ""

    def plain(self) -> dict[str, Any]:
        """Return it for the file."""
        return {key: value for key, value in asdict(self).items() if key != "diverged" or value}


class Results:
    """The runs of an experiment at a scale, in memory and in a file.

    Args:
        path: of the file.
        experiment: whose.
        scale: at which.
    """

    def __init__(self, path: Path, experiment: Experiment, scale: str) -> None:
        self.path, self.experiment, self.scale = path, experiment, scale
        self.runs: list[Run] = []

    @classmethod
    def open(cls, folder: Path, experiment: Experiment, scale: str, *, replace: bool = False) -> Results:
        """Read the results in a folder, none where there is no file yet.

        Args:
            folder: of all results.
            experiment: whose.
            scale: at which.
            replace: leave out what was made by another configuration instead of refusing it.

        Raises:
            ValueError: for a file that is damaged, or made by another configuration.
        """
        experiment.at(scale)
        results = cls(folder / f"{experiment.name}-{scale}.json", experiment, scale)
        if results.path.is_file():
            content = _read(results.path)
            changed = results._changed(content["configs"])
            if changed and not replace:
                name, field = next(iter(changed.items()))
                raise ValueError(
                    f"{results.path} was made by another configuration, variant {name} differs in {field}: "
                    f"bregman experiment run {experiment.name} --scale {scale} --replace makes those runs anew"
                )
            results.runs = [run for run in map(_run, content["runs"]) if run.variant not in changed]
        return results

    @property
    def command(self) -> str:
        """What makes these results."""
        return f"bregman experiment run {self.experiment.name} --scale {self.scale}"

    @property
    def planned(self) -> int:
        """How many runs there are at this scale."""
        return self.experiment.at(self.scale).seeds * len(self.experiment.variants_at(self.scale))

    @property
    def done(self) -> str:
        """In words, how it was done: that of the scale, how much of it where runs are missing, and by which command."""
        missing = f" So far {len(self.runs)} of {self.planned} runs." if len(self.runs) < self.planned else ""
        return f"Scale {self.scale}: {self.experiment.at(self.scale).about}{missing} Made by `{self.command}`"

    def of(self, variant: str) -> list[Run]:
        """Return the runs of a variant, by seed."""
        return [run for run in self.runs if run.variant == variant]

    def has(self, variant: str, seed: int) -> bool:
        """Return whether that run is there."""
        return any(run.seed == seed for run in self.of(variant))

    def add(self, run: Run) -> None:
        """Take in a run and write the file anew."""
        order = {variant.name: place for place, variant in enumerate(self.experiment.variants)}
        self.runs = sorted([*self.runs, run], key=lambda run: (order[run.variant], run.seed))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.path, lambda file: file.write(self._text().encode()))

    def _text(self) -> str:
        """Return the file's content, one line a configuration and a run, so that a change is easy to see."""
        configs = {name: self._settings(name) for name in dict.fromkeys(run.variant for run in self.runs)}
        head = {"experiment": self.experiment.name, "scale": self.scale, "made_by": self.command}
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        named = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in configs.items())
        runs = ",\n".join(json.dumps(run.plain(), allow_nan=False) for run in self.runs)
        return "{\n" + ",\n".join([*lines, f'"configs": {{\n{named}\n}}', f'"runs": [\n{runs}\n]']) + "\n}\n"

    def _settings(self, variant: str) -> dict[str, Any]:
        """Return today's settings as a file gives them back, for JSON knows no numbers as keys."""
        chosen = self.experiment.variant(variant)
        beside = {"beside": dict(chosen.beside)} if chosen.beside else {}
        return json.loads(json.dumps({**settings(self.experiment.conf(self.scale, chosen)), **beside}))

    def _changed(self, configs: dict[str, Any]) -> dict[str, str]:
        """Return the variants that are no longer what they were, each with the first field that differs."""
        known = {variant.name for variant in self.experiment.variants_at(self.scale)}
        changed = {name: "its name, which is gone" for name in configs if name not in known}
        for name in configs.keys() & known:
            saved, now = _completed(configs[name]), self._settings(name)
            if fields := [field for field in {**saved, **now} if saved.get(field) != now.get(field)]:
                changed[name] = fields[0]
        return dict(sorted(changed.items()))


def _completed(saved: dict[str, Any]) -> dict[str, Any]:
    """Return saved settings with the defaults of fields that came later."""
    beside = {key: value for key, value in saved.items() if key == "beside"}
    try:
        return {**settings(Conf.from_dict({key: saved[key] for key in saved.keys() - {"beside"}})), **beside}
    except ValueError:
        return saved  # fields that are gone: other settings than today's


def spread(values: list[float]) -> tuple[float, float | None]:
    """Return mean and standard deviation (over n − 1), None for a single value.

    Example:
        >>> spread([1.0, 3.0])
        (2.0, 1.4142135623730951)
        >>> spread([1.0])
        (1.0, None)
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as results ({error}): restore it, or remove it") from None
    parts = {"configs": dict, "runs": list}
    if not (isinstance(content, dict) and all(isinstance(content.get(key), kind) for key, kind in parts.items())):
        raise ValueError(f"{path} holds no results (configs and runs): restore it, or remove it")
    return content


def _run(entry: dict[str, Any]) -> Run:
    try:
        return Run(**entry)
    except TypeError as error:
        raise ValueError(f"a run of the results cannot be read ({error}): restore the file, or remove it") from None
