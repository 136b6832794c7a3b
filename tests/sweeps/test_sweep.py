"""A sweep as a user runs it: stopped, taken up by several processes, ended with a front; and what it refuses."""

from __future__ import annotations

import csv
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commands import bregman, is_one_error, start
from torch_bregman.sweeps.front import Trial, finished, pareto
from torch_bregman.sweeps.plan import Choice, Numbers, Plan
from torch_bregman.sweeps.study import open_study, work

optuna = pytest.importorskip("optuna", reason="the extra sweep is not installed")

BASE = {"epochs": 2, "threads": 1, "data": {"batch_size": 200}, "model": {"hidden": [8]}, "start": {"density": 0.05}}
SPACE = {"regularizer.lam": {"low": 0.01, "high": 0.3, "log": True}, "model.hidden": [[8], [12, 6]]}
YAML = """
name: small
trials: {trials}
base: {{epochs: 2, threads: 1, data: {{batch_size: 100}}, start: {{density: 0.05}}}}
space:
  regularizer.lam: {{low: 0.01, high: 0.3, log: true}}
  model.hidden: [[8], [12, 6]]
"""


def plan(out: Path, **changes: Any) -> Plan:
    return Plan(**{"out": str(out), "trials": 3, "base": BASE, "space": SPACE, **changes})


def states(one: Plan) -> list[str]:
    return [trial.state.name for trial in open_study(one).get_trials()]


def test_trials_until_there_are_enough_and_more_when_asked(tmp_path: Path):
    one = plan(tmp_path, prune=False)
    said: list[str] = []
    work(one, open_study(one), said.append)
    assert states(one)[:3] == ["COMPLETE"] * 3
    assert len(said) == 3
    work(replace(one, trials=4), open_study(one), said.append)
    found = finished(one, open_study(one))
    assert len(found) == 4
    for trial in found:
        assert Plan.conf(one, trial.values, trial.run).regularizer.lam == trial.values["regularizer.lam"]
        assert trial.values["model.hidden"] in ([8], [12, 6])
        assert (tmp_path / "sweep" / trial.run / "summary.json").is_file()


def test_the_same_seed_gives_the_same_trials(tmp_path: Path):
    both = [plan(tmp_path / name, trials=2, sampler="random", prune=False) for name in "ab"]
    for one in both:
        work(one, open_study(one), lambda _: None)
    first, second = (finished(one, open_study(one)) for one in both)
    assert first == second


@pytest.mark.parametrize("size", ["macs", "stored", "latency"])
def test_other_sizes(size: Any, tmp_path: Path):
    one = plan(tmp_path, trials=1, size=size, space={"regularizer.lam": [0.05]})
    work(one, open_study(one), lambda _: None)
    (trial,) = finished(one, open_study(one))
    assert trial.size > 0
    if size != "latency":
        assert trial.size == int(trial.size) <= 784 * 8 + 8 * 10


def test_a_trial_that_others_beat_is_stopped(tmp_path: Path):
    """With λ too large nothing wakes; with many better and smaller ones before it, it is not worth its second epoch."""
    one = plan(tmp_path, trials=1, base={**BASE, "start": {"kind": "dense"}}, space={"regularizer.lam": [0.0]})
    study = open_study(one)
    for _ in range(3):
        trial = study.ask()
        trial.set_user_attr("epoch-1", [0.99, 0.01])
        study.tell(trial, [0.99, 0.01])
    said: list[str] = []
    work(replace(one, trials=4), study, said.append)
    assert "beaten by 3 trials at epoch 1" in said[0]
    assert states(one)[3] == "PRUNED"


def test_values_that_do_not_go_together_and_divergence_end_a_trial_and_not_the_sweep(tmp_path: Path):
    one = plan(tmp_path, trials=3, sampler="random", space={"optim.lr": [0.1, 1e30]}, prune=False)
    said: list[str] = []
    work(one, open_study(one), said.append)
    assert len(said) == 3
    assert any("diverged" in line for line in said)
    other = plan(
        tmp_path, name="other", trials=4, sampler="random", space={"optim.nesterov": [False, True]}, prune=False
    )
    work(other, open_study(other), said.append)
    assert any("cannot be run: optim.nesterov needs momentum" in line for line in said)
    assert any("accuracy" in line for line in said)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_front_is_what_no_other_beats(points: list[tuple[int, int]]):
    trials = [Trial(n, "", float(q), float(s), 0.0, {}) for n, (q, s) in enumerate(points)]
    front = {(each.quality, each.size) for each in pareto(trials)}
    for q, s in points:
        beaten = any((a >= q and b <= s) and (a, b) != (q, s) for a, b in points)
        assert ((q, s) in front) == (not beaten)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": {}}, "space must name at least one field"),
        ({"space": {"optim.lr": {"low": 1, "high": 1}}}, "space.optim.lr must have low < high, got 1 and 1"),
        ({"space": {"optim.lr": {"low": 0, "high": 1, "log": True}}}, "space.optim.lr must have low > 0 with log"),
        ({"space": {"optim.lr": 3}}, "space.optim.lr must be a list of values, or low, high"),
        ({"space": {"optim.rate": [1]}}, "unknown field optim.rate"),
        ({"space": {"name": ["a"]}}, "base and space must not set name"),
        ({"trials": 0}, "trials must be a whole number >= 1, got 0"),
        ({"size": "weight"}, "size must be one of density, macs, stored, latency"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(changes: dict[str, Any], said: str, tmp_path: Path):
    with pytest.raises(ValueError, match=said):
        plan(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def test_ranges_of_whole_numbers_are_whole_by_themselves(tmp_path: Path):
    one = plan(
        tmp_path, space={"start.rank": {"low": 1, "high": 8}, "optim.lr": [0.1]}, base={"start": {"kind": "low_rank"}}
    )
    assert one.parts() == {"start.rank": Numbers(1, 8, False, True), "optim.lr": Choice((0.1,))}


def test_another_sweep_of_the_same_name_is_refused(tmp_path: Path):
    open_study(plan(tmp_path))
    with pytest.raises(ValueError, match=r"sweep.yaml is of another sweep"):
        open_study(plan(tmp_path, seed=5))


def test_the_command(tmp_path: Path):
    (tmp_path / "s.yaml").write_text(YAML.format(trials=2), encoding="utf-8")
    done = bregman("sweep", "s.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "those that no other beats" in done.stdout
    assert (tmp_path / "runs" / "small" / "front.png").read_bytes().startswith(b"\x89PNG")
    bad = bregman("sweep", "absent.yaml", cwd=tmp_path)
    assert bad.returncode == 2
    assert is_one_error(bad.stderr)


def test_killed_it_leaves_no_processes_behind(tmp_path: Path):
    (tmp_path / "s.yaml").write_text(YAML.format(trials=200), encoding="utf-8")
    process = start("sweep", "s.yaml", "--jobs", "2", cwd=tmp_path)
    runs = tmp_path / "runs" / "small"
    end = time.monotonic() + 120
    while time.monotonic() < end and len(list(runs.glob("trial-*/summary.json"))) < 2:
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=60)  # pipes close only when the last process has gone
    assert 2 <= len(list(runs.glob("trial-*/summary.json"))) < 100


@pytest.mark.slow
def test_thirty_trials_killed_half_way_and_resumed_by_two_processes(tmp_path: Path):
    (tmp_path / "s.yaml").write_text(YAML.format(trials=30), encoding="utf-8")
    first = start("sweep", "s.yaml", cwd=tmp_path)
    runs = tmp_path / "runs" / "small"
    end = time.monotonic() + 120
    while time.monotonic() < end and len(list(runs.glob("trial-*/log.jsonl"))) < 12:
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    before = sum(path.with_name("summary.json").exists() for path in runs.glob("trial-*/log.jsonl"))
    assert 5 < before < 29
    pair = [start("sweep", "s.yaml", cwd=tmp_path) for _ in range(2)]
    ends = [process.communicate(timeout=300) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], ends
    assert all(out.count("\ntrial ") >= 2 for out, _ in ends), "both have done trials"

    one = Plan.from_yaml(tmp_path / "s.yaml")
    one.out = str(tmp_path / "runs")
    counted = [state for state in states(one) if state in ("COMPLETE", "PRUNED")]
    assert len(counted) == 30
    assert "RUNNING" not in states(one)
    assert (runs / "front.png").read_bytes().startswith(b"\x89PNG")
    with (runs / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert any(row["front"] == "1" for row in rows)
    assert max(float(row["accuracy"]) for row in rows) > 0.5
