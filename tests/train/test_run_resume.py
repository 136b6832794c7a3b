"""A run that is stopped goes on bit for bit as if it never had been, wherever it stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.commands import results

from torch_bregman.train import Conf, RunFolder, fit, resume, saving
from torch_bregman.train.history import History, Row


class StoppedError(Exception):
    """What stops a run."""


class StopAfterEpoch:
    """An observer that stops a run after each epoch."""

    def started(self, *_: object) -> None: ...

    def epoch(self, row: Row) -> None:
        raise StoppedError

    def finished(self, *_: object) -> None: ...

    def close(self) -> None: ...


FULL_BATCH = {"batch_size": 0}
VARIANTS: dict[str, dict[str, Any]] = {
    "linbreg": {"optim": {"name": "linbreg", "momentum": 0.9, "nesterov": True, "delta": 2.0, "weight_decay": 1e-3}},
    "linbreg accelerated": {"optim": {"name": "linbreg", "accelerated": True}, "data": FULL_BATCH},
    "adabreg": {"optim": {"name": "adabreg", "lr": 0.01, "amsgrad": True}},
    "proxsgd": {"optim": {"name": "proxsgd", "momentum": 0.5}, "regularizer": {"name": "l1", "lam": 1e-3}},
    "pgd": {"optim": {"name": "pgd", "accelerated": True}, "data": FULL_BATCH, "epochs": 5},
    "bregman": {"optim": {"name": "bregman", "base": "RMSprop", "lr": 0.01, "options": {"momentum": 0.9}}},
    "sgd": {"optim": {"name": "sgd", "momentum": 0.9}, "regularizer": {"name": "elastic_net", "lam": 1e-3}},
    "adam": {"optim": {"name": "adam"}, "start": {"kind": "dense", "density": 0.01}},
    "adamw": {"optim": {"name": "adamw", "weight_decay": 0.3}, "start": {"kind": "dense", "density": 0.01}},
    "float64": {"dtype": "float64"},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
    "dropout and shift": {"model": {"options": {"dropout": 0.3}}, "data": {"shift": 2, "flip": True}},
    "cosine": {"schedule": {"name": "CosineAnnealingLR"}},
    "warm restarts": {"schedule": {"name": "CosineAnnealingWarmRestarts", "options": {"T_0": 2}}},
    "one cycle by step": {
        "schedule": {"name": "OneCycleLR", "options": {"max_lr": 0.3}, "every": "step"},
        "optim": {"momentum": 0.9},
    },
    "cyclic by step": {
        "schedule": {"name": "CyclicLR", "options": {"base_lr": 0.01, "max_lr": 0.1}, "every": "step"},
        "optim": {"momentum": 0.9},
    },
    "plateau": {"schedule": {"name": "ReduceLROnPlateau", "options": {"patience": 0}}, "epochs": 4},
    "soft_bernoulli": {"regularizer": {"name": "soft_bernoulli", "options": {"seed": 5}}},
    "nuclear": {"regularizer": {"name": "nuclear", "lam": 0.05}, "start": {"kind": "low_rank", "density": 0.01}},
    "nonnegative_l1": {"regularizer": {"name": "nonnegative_l1", "lam": 0.01}},
    "rules": {"rules": {"fc1": {"name": "group_l2", "lam": 0.01, "options": {"view": "columns"}}, "*": {"lam": 0.02}}},
    "lam by calendar": {"lam_schedule": {"name": "cosine", "options": {"start": 2, "end": 0.5}}, "epochs": 4},
    "lam on plateau": {"lam_schedule": {"name": "plateau", "options": {"patience": 0, "threshold": 10}}, "epochs": 5},
    "rank on plateau": {
        "regularizer": {"name": "dynamic_rank_nuclear", "lam": 0.05, "options": {"rank": 3}},
        "start": {"kind": "low_rank", "rank": 2, "density": 0.01},
        "rank_schedule": {"name": "plateau", "options": {"increase": 2, "patience": 0, "threshold": 10}},
        "epochs": 5,
    },
    "cycles": {"optim": {"momentum": 0.9, "nesterov": True, "multilevel": {"m": 3, "below": 1.0}}},
    "cycles by masks": {"optim": {"momentum": 0.9, "multilevel": {"m": 3, "form": "masks"}}},
    "target in cycles": {
        "optim": {"multilevel": {"m": 3, "below": 1.0}},
        "target": {"density": 0.05, "every": 2},
        "epochs": 5,
    },
    "cycles over units": {
        "optim": {"momentum": 0.9, "multilevel": {"m": 3}},
        "regularizer": {"name": "outgoing", "lam": 0.05},
        "start": {"kind": "units", "density": 0.3},
    },
    "target of units in cycles": {
        "optim": {"multilevel": {"m": 3}},
        "target": {"units": 0.3, "every": 2, "ramp": "none"},
        "start": {"kind": "units", "density": 0.3},
        "epochs": 5,
    },
    "no validation": {"data": {"validation": 0.0}},
    "target of density": {"target": {"density": 0.05, "every": 2}, "epochs": 5},
    "target by feedback in each layer": {
        "target": {"density": 0.05, "every": 1, "controller": "feedback", "scope": "layer"},
        "optim": {"name": "linbreg", "momentum": 0.9, "delta": 2.0},
        "epochs": 5,
    },
    "target of proxsgd": {
        "target": {"density": 0.05, "controller": "none"},
        "optim": {"name": "proxsgd", "momentum": 0.5},
        "epochs": 5,
    },
    "target of rank": {"target": {"rank": 6, "every": 2}, "start": {"density": 0.01}, "epochs": 5},
    "target of multiply-adds by units": {
        "target": {"macs": 0.3, "every": 2, "scope": "layer"},
        "regularizer": {"name": "outgoing", "lam": 0.01},
        "start": {"kind": "dense", "density": 0.01},
        "epochs": 5,
    },
    "target of units": {
        "target": {"units": 8, "every": 2},
        "regularizer": {"name": "group_l2", "options": {"view": "rows"}},
        "epochs": 5,
    },
}


def stop_and_go(conf: Conf) -> Path:
    """Train with a stop after every epoch."""
    with pytest.raises(StoppedError):
        fit(conf, observers=[StopAfterEpoch()])
    run = Path(conf.out) / conf.name
    for _ in range(conf.epochs - 1):
        with pytest.raises(StoppedError):
            resume(str(run), observers=[StopAfterEpoch()])
    return resume(str(run), observers=[]).path


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_after_every_epoch(variant: str, tiny: Callable[..., Conf]) -> None:
    whole = fit(tiny(name="whole", **VARIANTS[variant]), observers=[])
    stopped = stop_and_go(tiny(name="stopped", **VARIANTS[variant]))
    assert results(stopped) == results(whole.path)
    assert len(whole.rows) == whole.conf.epochs


def test_runs_that_differ_are_told_apart(tiny: Callable[..., Conf]) -> None:
    one, other = (fit(tiny(name="run", seed=seed), observers=[]) for seed in (0, 1))
    for key, value in results(one.path).items():
        assert value != results(other.path)[key], key


def stop_when(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, when: Callable[..., bool], *, after: bool
) -> None:
    """Stop a run before or after the first call of a function for which `when` holds."""
    function, armed = getattr(owner, name), [True]

    def stopping(*arguments: Any) -> None:
        stop = armed[0] and when(*arguments)
        if not stop or after:
            function(*arguments)
        if stop:
            armed[0] = False
            raise StoppedError

    monkeypatch.setattr(owner, name, stopping)


MOMENTS: dict[str, tuple[Any, str, Callable[..., bool], bool]] = {
    "before the first best.pt": (saving, "save_checkpoint", lambda path, _: path.name == "best.pt", False),
    "between the first best.pt and last.pt": (saving, "save_checkpoint", lambda path, _: path.name == "best.pt", True),
    "before the second last.pt": (
        saving,
        "save_checkpoint",
        lambda path, content: path.name == "last.pt" and content["epoch"] == 2,
        False,
    ),
    "between last.pt and the log": (History, "append", lambda _, row: row["epoch"] == 2, False),
    "after the log": (History, "append", lambda _, row: row["epoch"] == 2, True),
    "after the last epoch": (History, "append", lambda _, row: row["epoch"] == 3, True),
    "before the summary": (RunFolder, "finish", lambda *_: True, False),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_stopped_while_saving(moment: str, tiny: Callable[..., Conf], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(tiny(name="whole"), observers=[])
    owner, name, when, after = MOMENTS[moment]
    stop_when(monkeypatch, owner, name, when, after=after)
    conf = tiny(name="stopped")
    with pytest.raises(StoppedError):
        fit(conf, observers=[])
    resumed = resume(conf.name, conf.out, observers=[])
    assert results(resumed.path) == results(whole.path)


def test_a_log_cut_short_or_ahead_is_made_good(tiny: Callable[..., Conf]) -> None:
    whole = fit(tiny(name="whole"), observers=[])
    conf = tiny(name="stopped")
    with pytest.raises(StoppedError):
        fit(conf, observers=[StopAfterEpoch()])
    run = Path(conf.out) / conf.name
    run.joinpath("log.jsonl").write_bytes(whole.folder.jsonl.read_bytes()[:-20])
    run.joinpath("log.csv").unlink()
    resume(str(run), observers=[])
    assert results(run) == results(whole.path)


def test_what_a_kill_left_half_written_is_no_obstacle(tiny: Callable[..., Conf]) -> None:
    whole = fit(tiny(name="whole"), observers=[])
    conf = tiny(name="stopped")
    with pytest.raises(StoppedError):
        fit(conf, observers=[StopAfterEpoch()])
    run = Path(conf.out) / conf.name
    for name in ("last.pt", "best.pt", "summary.json", "log.jsonl"):
        run.joinpath(f"{name}.partial").write_bytes(whole.folder.last.read_bytes()[:1000])
    resume(str(run), observers=[])
    assert results(run) == results(whole.path)
    assert not list(run.glob("*.partial"))


def test_a_run_that_never_finished_an_epoch_begins_anew(tiny: Callable[..., Conf]) -> None:
    whole, conf = fit(tiny(name="whole"), observers=[]), tiny(name="stopped")
    folder = RunFolder.create(conf)
    folder.jsonl.write_text("not even a line")
    resume(str(folder.path), observers=[])
    assert results(folder.path) == results(whole.path)


def test_resume_of_a_finished_run_changes_nothing(tiny: Callable[..., Conf]) -> None:
    whole = fit(tiny(), observers=[])
    before = results(whole.path)
    again = resume("tiny", whole.conf.out, observers=[])
    assert results(again.path) == before
    assert again.rows == whole.rows


def test_a_run_moved_elsewhere_goes_on(tiny: Callable[..., Conf], tmp_path: Path) -> None:
    whole, conf = fit(tiny(name="whole"), observers=[]), tiny(name="stopped")
    with pytest.raises(StoppedError):
        fit(conf, observers=[StopAfterEpoch()])
    moved = (Path(conf.out) / conf.name).rename(tmp_path / "elsewhere")
    assert resume(str(moved), observers=[]).path == moved
    assert results(moved) == results(whole.path)
