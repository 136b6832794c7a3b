"""What a sweep has come to: the trials that no other beats in both quality and size."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_bregman.metrics import text_table
from torch_bregman.sweeps.plan import Choice, Plan
from torch_bregman.train.atomic import replace_file


@dataclass(frozen=True)
class Trial:
    """A finished trial.

    Args:
        number: in the study.
        run: its folder.
        quality: on the images held out.
        size: as the plan measures it.
        test: quality on the test images; nothing was chosen by it.
        values: of the fields in the space.
    """

    number: int
    run: str
    quality: float
    size: float
    test: float
    values: dict[str, Any]


def finished(plan: Plan, study: Any) -> list[Trial]:
    """Return the trials that came to an end, by size."""
    from optuna.trial import TrialState

    found = []
    for each in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        values = {key: _value(part, each.params[key]) for key, part in plan.parts().items()}
        run, test = each.user_attrs["run"], each.user_attrs["test"]
        found.append(Trial(each.number, run, each.values[0], each.values[1], test, values))
    return sorted(found, key=lambda trial: (trial.size, -trial.quality))


def pareto(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that no other beats: none is as small and better, or smaller and as good.

    Example:
        >>> made = [Trial(n, "", quality, size, 0.0, {}) for n, (quality, size) in enumerate([(1, 3), (2, 4), (1, 4)])]
        >>> [trial.number for trial in pareto(made)]
        [0, 1]
    """
    front: list[Trial] = []
    for trial in sorted(trials, key=lambda each: (each.size, -each.quality)):
        if not front or trial.quality > front[-1].quality:
            front.append(trial)
    return front


def front_table(plan: Plan, front: Sequence[Trial]) -> str:
    """Return the front as a table."""
    header = ["trial", plan.size, plan.quality, f"test {plan.quality}", *plan.space]
    rows = [[*map(_cell, (each.number, each.size, each.quality, each.test, *each.values.values()))] for each in front]
    return "\n".join(text_table(header, rows, ">>>>" + ">" * len(plan.space)))


def save_trials(plan: Plan, trials: Sequence[Trial]) -> Path:
    """Write all finished trials as CSV; column `front` says which no other beats."""
    best = {trial.number for trial in pareto(trials)}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "run", plan.size, plan.quality, f"test_{plan.quality}", "front", *plan.space])
    for each in trials:
        numbers = [each.number, each.run, each.size, each.quality, each.test, int(each.number in best)]
        writer.writerow([*numbers, *each.values.values()])
    path = plan.folder / "trials.csv"
    replace_file(path, lambda file: file.write(text.getvalue().encode()), shared=True)
    return path


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _value(part: Any, stored: Any) -> Any:
    return part.values[stored] if isinstance(part, Choice) else stored
