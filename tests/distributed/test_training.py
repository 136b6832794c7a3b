"""The loop in many processes: the numbers of one process, checkpoints for any number, errors said once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from torch_bregman.train import Conf, fit, reopen, resume
from torch_bregman.train.run_folder import RunFolder

from .processes import gloo, results

LINEAR = {"name": "linbreg", "lr": 0.1, "momentum": 0.9, "nesterov": True}
RUNS: dict[str, dict[str, Any]] = {
    "l1": {"data": {"shift": 2}, "scale": {"accumulate": 3}},
    "nuclear": {"regularizer": {"name": "nuclear", "lam": 0.2}, "start": {"kind": "low_rank"}, "optim": LINEAR},
    "target": {"target": {"density": 0.05}},
    "adabreg-rows": {
        "optim": {"name": "adabreg", "lr": 0.01},
        "regularizer": {"name": "group_l2", "lam": 0.05},
        "lam_schedule": {"name": "plateau"},
    },
    "sharded-l1": {
        "scale": {"sharded": True, "accumulate": 2},
        "schedule": {"name": "ExponentialLR", "options": {"gamma": 0.7}},
    },
    "sharded-nuclear": {
        "regularizer": {"name": "nuclear", "lam": 0.2},
        "start": {"kind": "low_rank"},
        "optim": LINEAR,
        "scale": {"sharded": True},
    },
}


def conf(name: str, out: Path, epochs: int = 2) -> Conf:
    """A run whose batches no number of processes divides, the last one smaller."""
    plain = {"name": name, "epochs": epochs, "out": str(out), "dtype": "float64", "model": {"hidden": [17]}}
    data = {"batch_size": 701}
    return Conf.from_dict({**plain, **RUNS[name], "data": {**data, **RUNS[name].get("data", {})}, "threads": 1})


def trained(out: str, names: list[str]) -> list[dict[str, Tensor]]:
    return [fit(conf(name, Path(out)), observers=[]).model.state_dict() for name in names]


def gone_on(out: str, names: list[str]) -> list[dict[str, Tensor]]:
    return [resume(name, out, observers=[]).model.state_dict() for name in names]


def log(out: Path, name: str) -> list[dict[str, Any]]:
    lines = (out / name / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Tensor]]]:
    out = tmp_path_factory.mktemp("alone")
    return out, trained(str(out), list(RUNS))


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    out = tmp_path_factory.mktemp("together")
    return out, results(trained, request.param, tmp_path_factory.mktemp("ranks"), str(out), list(RUNS))


def close(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            close(ours[key], theirs[key])
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=1e-9)
    else:
        assert ours == theirs


@gloo
@pytest.mark.parametrize("name", RUNS)
def test_weights_and_log_are_those_of_one_process(name: str, alone: Any, together: Any):
    number = list(RUNS).index(name)
    for rank in together[1]:
        for key, value in alone[1][number].items():
            torch.testing.assert_close(rank[number][key], value, rtol=0, atol=1e-10)
    assert len(log(together[0], name)) == 2
    for ours, theirs in zip(log(together[0], name), log(alone[0], name), strict=True):
        close(ours, theirs)


@gloo
@pytest.mark.parametrize("name", ["nuclear", "sharded-l1", "sharded-nuclear"])
def test_what_many_wrote_one_goes_on_with(name: str, together: Any, tmp_path: Path):
    """A checkpoint is read by one process, and two more epochs are those of a run that never was stopped."""
    folder, path = RunFolder(together[0] / name), tmp_path / name
    assert bool(list(folder.path.glob("parts-*"))) == name.startswith("sharded")
    copy_of(folder.path, path, epochs=3)
    whole = fit(conf(name, tmp_path / "whole", epochs=3), observers=[])
    went_on = resume(str(path), observers=[])
    for ours, theirs in zip(went_on.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    again = reopen(RunFolder(path)).model
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), went_on.model.parameters(), strict=True))


@gloo
@pytest.mark.slow
def test_what_four_wrote_two_go_on_with(together: Any, tmp_path: Path):
    names = ["nuclear", "sharded-l1", "sharded-nuclear"]
    (tmp_path / "out").mkdir()
    for name in names:
        copy_of(together[0] / name, tmp_path / "out" / name, epochs=3)
    found = results(gone_on, 2, tmp_path, str(tmp_path / "out"), names)
    for number, name in enumerate(names):
        whole = fit(conf(name, tmp_path / "whole", epochs=3), observers=[]).model.state_dict()
        for key, value in whole.items():
            torch.testing.assert_close(found[0][number][key], value, rtol=0, atol=1e-10)


def copy_of(run: Path, path: Path, epochs: int) -> None:
    """A run that is to go on for longer than it was asked to."""
    import shutil

    shutil.copytree(run, path)
    text = (path / "config.yaml").read_text(encoding="utf-8").replace("epochs: 2", f"epochs: {epochs}")
    (path / "config.yaml").write_text(text, encoding="utf-8")
    (path / "summary.json").unlink()


def failing(out: str) -> list[str]:
    found = []
    for changes in ({"data": {"dir": out, "name": "mnist"}}, {"optim": {"lr": 1e30}}, {"optim": {"name": "pgd"}}):
        plain = {"name": "fails", "epochs": 1, "out": out, "model": {"hidden": [4]}, "data": {"batch_size": 0}}
        try:
            fit(Conf.from_dict({**plain, **changes}), observers=[])
        except ValueError as error:
            found.append(f"{error} {getattr(error, 'agreed', False)}")
    return found


@gloo
def test_every_process_hears_of_an_error(tmp_path: Path):
    first, second = results(failing, 2, tmp_path, str(tmp_path))
    assert first == second
    assert len(first) == 3
    assert all(each.endswith("True") for each in first)
    assert "epoch 1 diverged" in first[1]
    assert "pgd searches its step in one process" in first[2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optim": {"name": "pgd"}, "data": {"batch_size": 0}}, "scale.sharded does not go with optim.name pgd"),
        ({"dtype": "float16"}, "scale.sharded does not go with dtype float16"),
        ({"target": {"density": 0.1}}, "scale.sharded does not go with a target"),
        ({"regularizer": {"name": "outgoing"}}, "scale.sharded does not go with regularizer outgoing"),
        ({"scale": {"accumulate": 0}}, "scale.accumulate must be a whole number >= 1, got 0"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        Conf.from_dict({"scale": {"sharded": True}, **changes})
