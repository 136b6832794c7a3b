"""Whether one variant is better than another: differences seed by seed, and how sure their mean is."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from torch_bregman.experiments.recipe import Quantity
from torch_bregman.experiments.results import Results

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences with its t-interval, in the unit shown.

    Args:
        first, second: variants; the differences are the first less the second.
        seeds: how many pairs there are.
        mean: of the differences.
        low, high: 95 % confidence interval of the mean; None with fewer than two pairs.
    """

    first: str
    second: str
    seeds: int
    mean: float
    low: float | None
    high: float | None

    @property
    def sure(self) -> int:
        """1 where the first is larger beyond the interval, −1 where the second is, 0 where it may be either."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def paired(results: Results, first: str, second: str, quantity: Quantity) -> Difference | None:
    """Return the difference of two variants over the seeds that both have, None where there are none.

    mean ± t·s/√n with s over n − 1 and t the Student quantile of n − 1 degrees of freedom: it supposes that differences
    are about normal. Of twenty such intervals one leaves out the truth; nothing is corrected for many comparisons.
    """
    numbers = {
        name: {run.seed: run.numbers[quantity.key] for run in results.of(name) if quantity.key in run.numbers}
        for name in (first, second)
    }
    shared = sorted(numbers[first].keys() & numbers[second].keys())
    found = [quantity.factor * (numbers[first][seed] - numbers[second][seed]) for seed in shared]
    if not found:
        return None
    mean = statistics.fmean(found)
    if len(found) == 1:
        return Difference(first, second, 1, mean, None, None)
    half = student_quantile(0.5 + CONFIDENCE / 2, len(found) - 1) * statistics.stdev(found) / math.sqrt(len(found))
    return Difference(first, second, len(found), mean, mean - half, mean + half)


def differences(results: Results) -> list[Difference]:
    """Return the differences that the experiment asks for, of those variants that have run."""
    experiment = results.experiment
    found = [paired(results, first, second, experiment.judged) for first, second in experiment.pairs]
    return [each for each in found if each is not None]


def student_probability(t: float, degrees: int) -> float:
    """Return P(T ≤ t) of Student's distribution with a whole number of degrees of freedom, in closed form.

    References:
        Abramowitz, Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.

    Example:
        >>> student_probability(0.0, 4), round(student_probability(1.0, 1), 6)
        (0.5, 0.75)
    """
    if degrees < 1:
        raise ValueError(f"degrees must be a whole number >= 1, got {degrees!r}")
    angle = math.atan(t / math.sqrt(degrees))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = degrees % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= square * k / (k + 1)
    within = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 + within / 2


def student_quantile(probability: float, degrees: int) -> float:
    """Return the t with P(T ≤ t) = probability, by bisection.

    Raises:
        ValueError: for a probability outside (0, 1) or fewer than 1 degree.

    Example:
        >>> round(student_quantile(0.975, 4), 4)
        2.7764
    """
    if not 0 < probability < 1:
        raise ValueError(f"probability must lie in (0, 1), got {probability!r}")
    low, high = -1.0, 1.0
    while student_probability(low, degrees) > probability:
        low *= 2
    while student_probability(high, degrees) < probability:
        high *= 2
    while high - low > 1e-13 * max(1.0, abs(low)):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if student_probability(middle, degrees) < probability else (low, middle)
    return (low + high) / 2
