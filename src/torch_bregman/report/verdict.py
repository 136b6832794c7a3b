"""Who is ahead, and how sure that is: paired differences as a table, and in words."""

from __future__ import annotations

from torch_bregman.experiments.results import Results
from torch_bregman.experiments.significance import Difference, differences

_SURE = {1: "first ahead", 0: "not sure", -1: "second ahead"}


def difference_table(results: Results) -> str:
    """Return a Markdown table of the paired differences that the experiment asks for, "" where there are none."""
    found = differences(results)
    if not found:
        return ""
    header = [
        "first",
        "second",
        "seeds",
        f"difference in {results.experiment.judged.label}",
        "95 % interval",
        "beyond it",
    ]
    lines = [header, ["---", "---", "---:", "---:", "---:", "---"]]
    lines += [
        [*_labels(results, each), str(each.seeds), mean(results, each), interval(results, each), sure(each)]
        for each in found
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def verdict(results: Results) -> str:
    """Return in words where the first of the pairs is behind, and how often it is ahead; "" where there are no pairs.

    Where another method wins, that comes first.
    """
    found = differences(results)
    if not found:
        return ""
    behind = [each for each in found if each.mean < 0]
    count = {sign: sum(each.sure == sign for each in found) for sign in _SURE}
    losses = "; ".join(_loss(results, each) for each in sorted(behind, key=lambda each: each.mean))
    first = f"Behind in the mean: {losses}." if behind else "No other method is ahead in the mean."
    return (
        f"{first} In favour of the first: {len(found) - len(behind)} of {len(found)} paired differences, {count[1]} of "
        f"them beyond their 95 % interval; beyond it against the first: {count[-1]}; not sure: {count[0]}."
    )


def mean(results: Results, each: Difference) -> str:
    """Return the mean difference with its sign."""
    return f"{each.mean:+.{results.experiment.judged.digits}f}"


def interval(results: Results, each: Difference) -> str:
    """Return the interval, a dash with fewer than two seeds."""
    digits = results.experiment.judged.digits
    return "–" if each.low is None else f"{each.low:+.{digits}f} … {each.high:+.{digits}f}"


def sure(each: Difference) -> str:
    """Return in words which is ahead beyond the interval."""
    return _SURE[each.sure]


def _labels(results: Results, each: Difference) -> list[str]:
    return [results.experiment.variant(name).label for name in (each.first, each.second)]


def _loss(results: Results, each: Difference) -> str:
    first, second = _labels(results, each)
    digits = results.experiment.judged.digits
    how = f"interval {interval(results, each)}" if each.low is not None else "one seed"
    return f"{first} is {-each.mean:.{digits}f} behind {second} ({how})"
