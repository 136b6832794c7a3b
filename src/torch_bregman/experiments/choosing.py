"""Settings chosen on held-out images: the rule, and the file that keeps what it chose. Without torch."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch_bregman.experiments.methods import Setting
from torch_bregman.experiments.recipe import VALIDATION, Scale, merged
from torch_bregman.experiments.results import Results
from torch_bregman.train.atomic import replace_file

CHOSEN = Path(__file__).parent / "frontier_chosen.json"
"""By experiment that tunes, method, and size at which it was tuned."""


class Tuned(Protocol):
    """A method with a grid."""

    @property
    def name(self) -> str:
        """For the file that keeps what was chosen."""
        ...

    @property
    def label(self) -> str:
        """In words."""
        ...

    @property
    def grid(self) -> tuple[Setting, ...]:
        """What is tried."""
        ...

    @property
    def usual(self) -> Setting:
        """One of the grid, taken until something was chosen."""
        ...


_M = TypeVar("_M", bound=Tuned)


@dataclass(frozen=True)
class Candidate(Generic[_M]):
    """One of a grid.

    Args:
        variant: of the experiment that tunes.
        method: of which.
        tuned_at: size: a density, 1 for dense training, or numbers stored.
        setting: what is tried.
        size: in words.
    """

    variant: str
    method: _M
    tuned_at: float
    setting: Setting
    size: str

    @property
    def at_the_edge(self) -> bool:
        """Whether the learning rate is the first or the last of its grid."""
        rates = [setting.lr for setting in self.method.grid]
        return self.setting.lr in (min(rates), max(rates))


def best(results: Results, candidates: Sequence[Candidate[_M]]) -> list[Candidate[_M]]:
    """Return for each method and size the candidate with the best mean validation accuracy after the last epoch.

    Of equal ones the first of the grid; one that diverged is the worst. What has not run whole, all of the grid with
    all seeds, is left out.
    """
    grids: dict[tuple[str, float], list[Candidate[_M]]] = {}
    for candidate in candidates:
        grids.setdefault((candidate.method.name, candidate.tuned_at), []).append(candidate)
    seeds = results.experiment.at(results.scale).seeds
    whole = [grid for grid in grids.values() if all(len(results.of(each.variant)) >= seeds for each in grid)]
    return [max(grid, key=lambda each: _mean(results, each.variant)) for grid in whole]


def write_chosen(tuning: str, scale: str, found: Sequence[Candidate[Any]], path: Path = CHOSEN) -> None:
    """Keep what was chosen, in the place of what this experiment chose before.

    Raises:
        ValueError: where the file cannot be written.
    """
    picks: dict[str, Any] = {"scale": scale}
    for each in found:
        picks.setdefault(each.method.name, {})[f"{each.tuned_at:g}"] = {
            key: value for key, value in asdict(each.setting).items() if value is not None
        }
    text = json.dumps({**read_chosen(path), tuning: picks}, indent=1, sort_keys=True) + "\n"
    try:
        replace_file(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise ValueError(
            f"cannot write to {path} ({error.strerror}): install the sources in a place of yours"
        ) from None


def read_chosen(path: Path = CHOSEN) -> dict[str, Any]:
    """Return all that was chosen."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def setting_for(tuning: str, method: Tuned, tuned_at: float, chosen: dict[str, Any]) -> Setting:
    """Return what was chosen for a method, its usual setting where nothing was yet."""
    found = chosen.get(tuning, {}).get(method.name, {}).get(f"{tuned_at:g}")
    return method.usual if found is None else Setting(**found)


def not_yet(tuning: str, methods: Sequence[Tuned], chosen: dict[str, Any]) -> str:
    """Return, as the end of a sentence, which methods have usual settings so far; nothing where all were chosen."""
    untuned = [method.label for method in methods if method.name not in chosen.get(tuning, {})]
    return f"; not yet chosen, and usual values so far: {', '.join(untuned)}" if untuned else ""


def tuned_for(goal: float, tuned_at: Sequence[float]) -> float:
    """Return the size whose setting a goal has: the largest up to it, the smallest where there is none.

    Example:
        >>> [tuned_for(goal, (0.01, 0.05)) for goal in (0.005, 0.02, 0.05)]
        [0.01, 0.01, 0.05]
    """
    return max((each for each in tuned_at if each <= goal), default=min(tuned_at))


def held_out(scale: Scale) -> Scale:
    """Return a scale with a tenth of the training images held out."""
    data = {**scale.changes.get("data", {}), "validation": 0.1}
    return Scale(scale.about, scale.seeds, merged(scale.changes, {"data": data}))


def _mean(results: Results, variant: str) -> float:
    return statistics.fmean(run.numbers.get(VALIDATION.key, -math.inf) for run in results.of(variant))
