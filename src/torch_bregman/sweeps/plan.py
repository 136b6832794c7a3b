"""What a sweep tries: a YAML file of fixed fields, a space over others, and objectives. Does not need torch."""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch_bregman.train.checked import Checked
from torch_bregman.train.conf import Conf
from torch_bregman.train.yaml_file import read_mapping

QUALITIES = ("accuracy", "psnr")
SIZES = ("density", "macs", "stored", "latency")


@dataclass(frozen=True)
class Numbers:
    """A range of numbers.

    Args:
        low: the least.
        high: the greatest, above `low`.
        log: draw the logarithm evenly; needs low > 0.
        whole: whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Choice:
    """Some values of any kind, one of which is taken."""

    values: tuple[Any, ...]


Space = dict[str, "Numbers | Choice"]


@dataclass
class Plan(Checked):
    """A sweep.

    Args:
        name: folder of the sweep in `out`.
        out: folder of all runs.
        trials: how many runs, over all processes that work on the sweep.
        quality: what shall be high on the images held out: accuracy, or psnr for denoising.
        size: what shall be low: density, macs (multiply-adds an image of what is left), stored (numbers that store the
            weights), latency (milliseconds of the compact model at batch 1, on this machine).
        sampler: tpe, nsga2 or random.
        seed: of the sampler. One process gives the same trials again, several may not.
        prune: stop a run that does worse than others did at the same epoch, while being larger.
        warmup: epochs before which none is stopped.
        base: fields of the configuration all runs share.
        space: what varies, by the dotted name of any field: {low, high, log, whole} or a list of values.

    Raises:
        ValueError: for an unknown field or a wrong value.
    """

    name: str = "sweep"
    out: str = "runs"
    trials: int = 30
    quality: Literal["accuracy", "psnr"] = "accuracy"
    size: Literal["density", "macs", "stored", "latency"] = "density"
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    seed: int = 0
    prune: bool = True
    warmup: int = 1
    base: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Check ranges, and that a run can be made of base and space."""
        for name, number, least in (("trials", self.trials, 1), ("seed", self.seed, 0), ("warmup", self.warmup, 0)):
            if number < least:
                raise ValueError(f"{name} must be a whole number >= {least}, got {number}")
        if not self.space:
            raise ValueError("space must name at least one field, e.g. optim.lr: {low: 0.01, high: 1, log: true}")
        if taken := sorted({"name", "out"} & {*self.base, *self.space}):
            raise ValueError(f"base and space must not set {taken[0]}: each run has a folder in that of the sweep")
        self.conf({key: _first(_part(key, part)) for key, part in self.space.items()}, "trial-0")

    @classmethod
    def from_yaml(cls, path: str | Path) -> Plan:
        """Read a sweep from a file.

        Raises:
            ValueError: for a file that is no YAML mapping, an unknown field or a wrong value.
        """
        content = read_mapping(path)
        known = {each.name for each in dataclasses.fields(cls)}
        if unknown := sorted(content.keys() - known):
            raise ValueError(f"{path}: unknown field {unknown[0]}: use one of {', '.join(sorted(known))}")
        try:
            return cls(**content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @property
    def folder(self) -> Path:
        """Where the sweep and all its runs lie."""
        return Path(self.out) / self.name

    def parts(self) -> Space:
        """Return the space as ranges and choices."""
        return {key: _part(key, part) for key, part in self.space.items()}

    def conf(self, values: dict[str, Any], name: str) -> Conf:
        """Return the configuration of one run.

        Args:
            values: of the fields in the space, by dotted name.
            name: of the run.

        Raises:
            ValueError: for values that do not go together.

        Example:
            >>> plan = Plan(base={"epochs": 2}, space={"optim.lr": [0.1, 0.2]})
            >>> conf = plan.conf({"optim.lr": 0.2}, "trial-7")
            >>> conf.optim.lr, conf.epochs, conf.out
            (0.2, 2, 'runs/sweep')
        """
        plain = {key: dict(value) if isinstance(value, dict) else value for key, value in self.base.items()}
        for key, value in values.items():
            _put(plain, key.split("."), value)
        return Conf.from_dict({**plain, "name": name, "out": str(self.folder)})


def _put(plain: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        plain[key] = dict(plain.get(key) or {})
        plain = plain[key]
    plain[path[-1]] = value


def _part(key: str, part: Any) -> Numbers | Choice:
    if isinstance(part, list) and len(part) > 0:
        return Choice(tuple(part))
    if not isinstance(part, dict) or not {"low", "high"} <= part.keys() <= {"low", "high", "log", "whole"}:
        raise ValueError(f"space.{key} must be a list of values, or low, high and maybe log and whole, got {part!r}")
    low, high, log = part["low"], part["high"], part.get("log", False)
    if not all(isinstance(each, (int, float)) and math.isfinite(each) for each in (low, high)) or not low < high:
        raise ValueError(f"space.{key} must have low < high, got {low!r} and {high!r}")
    if log and not low > 0:
        raise ValueError(f"space.{key} must have low > 0 with log, got {low!r}")
    return Numbers(low, high, bool(log), bool(part.get("whole", _is_whole(key))))


def _is_whole(key: str) -> bool:
    """Return whether the field of that name holds whole numbers."""
    hint: Any = Conf
    for name in key.split("."):
        hint = typing.get_type_hints(hint).get(name) if dataclasses.is_dataclass(hint) else None
    return hint is int


def _first(part: Numbers | Choice) -> Any:
    if isinstance(part, Choice):
        return part.values[0]
    return int(part.low) if part.whole else float(part.low)
