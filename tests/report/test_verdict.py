"""What is said of differences: losses first, and only what is sure as sure."""

from __future__ import annotations

from pathlib import Path

from torch_bregman.experiments import Experiment, Quantity, Scale, Variant
from torch_bregman.experiments.results import Results, Run
from torch_bregman.report.experiment_page import section
from torch_bregman.report.verdict import difference_table, verdict


def results_of(folder: Path, numbers: dict[str, list[float]], scale: str = "small") -> Results:
    (folder / "base.yaml").write_text("epochs: 3\n")
    every = Scale("All.", 3, {})
    experiment = Experiment(
        name="toy",
        title="A toy",
        about="About it.",
        config=str(folder / "base.yaml"),
        variants=tuple(Variant(name, name.upper(), {"epochs": 3 + i}) for i, name in enumerate(("a", "b", "c", "d"))),
        scales={"smoke": every, "small": every, "full": every},
        columns=(Quantity("test_accuracy", "accuracy, %", 100),),
        pairs=(("a", "b"), ("a", "c"), ("a", "d")),
        judged=Quantity("test_accuracy", "accuracy, %", 100),
    )
    results = Results(folder / f"toy-{scale}.json", experiment, scale)
    for name, values in numbers.items():
        results.runs += [Run(name, seed, {}, {"test_accuracy": value}, {}) for seed, value in enumerate(values)]
    return results


NUMBERS = {"a": [0.90, 0.91, 0.92], "b": [0.91, 0.92, 0.9301], "c": [0.80, 0.811, 0.82], "d": [0.90, 0.95, 0.88]}


def test_losses_come_first_and_are_counted(tmp_path: Path) -> None:
    text = verdict(results_of(tmp_path, NUMBERS))
    assert text.startswith("Behind in the mean: A is 1.00 behind B (interval -1.02 … -0.99).")
    assert "In favour of the first: 2 of 3 paired differences, 1 of them beyond" in text
    assert text.endswith("against the first: 1; not sure: 1.")


def test_who_wins_everything_is_said_to(tmp_path: Path) -> None:
    text = verdict(results_of(tmp_path, {"a": NUMBERS["a"], "c": NUMBERS["c"]}))
    assert text.startswith("No other method is ahead in the mean. In favour of the first: 1 of 1 paired")


def test_the_table_has_a_line_a_pair_that_has_run(tmp_path: Path) -> None:
    lines = difference_table(results_of(tmp_path, {**NUMBERS, "d": [0.5]})).splitlines()
    assert lines[2] == "| A | B | 3 | -1.00 | -1.02 … -0.99 | second ahead |"
    assert lines[4] == "| A | D | 1 | +40.00 | – | not sure |"
    assert len(lines) == 5


def test_a_section_begins_with_the_verdict_but_not_of_a_smoke_test(tmp_path: Path) -> None:
    shown = section(results_of(tmp_path, NUMBERS)).split("\n\n")
    assert shown[1].startswith("Behind in the mean")
    assert section(results_of(tmp_path, NUMBERS, "smoke")).split("\n\n")[1] == "About it."


def test_without_pairs_nothing_is_said(tmp_path: Path) -> None:
    results = results_of(tmp_path, {"a": [0.5]})
    assert (verdict(results), difference_table(results)) == ("", "")
