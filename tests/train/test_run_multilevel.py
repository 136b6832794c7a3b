"""Cycles of coarse steps, as a user asks for them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commands import bregman, is_one_error

import torch_bregman as tb
from torch_bregman.multilevel import SparseForm
from torch_bregman.schedulers import CycleSchedule
from torch_bregman.train import Conf, fit
from torch_bregman.train.optim_conf import OptimConf
from torch_bregman.train.setup import set_up
from torch_bregman.train.targets import build_rates

MASKS = {"m": 2, "form": "masks"}
CYCLES = {"momentum": 0.9, "nesterov": True, "multilevel": {"m": 3, "below": 1.0}}
RISING = {**CYCLES, "multilevel": {"m": 6, "m_start": 1, "m_over": 0.6, "below": 1.0}}


def by_masks(optim: dict[str, Any]) -> dict[str, Any]:
    cycles = {key: value for key, value in optim["multilevel"].items() if key != "below"}
    return {**optim, "multilevel": {**cycles, "form": "masks"}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target": {"density": 0.06, "every": 2}},
        {"regularizer": {"lam": 0.02}},
        {"optim": RISING},
        {"optim": RISING, "target": {"density": 0.06, "every": 3}},
    ],
)
def test_compact_training_and_masks_agree(changes: dict[str, Any], tiny: Callable[..., Conf]) -> None:
    optim = changes.get("optim", CYCLES)
    runs = [
        fit(tiny(dtype="float64", epochs=4, **{**changes, "optim": own}), observers=[])
        for own in (optim, by_masks(optim))
    ]
    assert runs[0].rows[-1]["density"] == runs[1].rows[-1]["density"]
    for left, right in zip(*(run.model.parameters() for run in runs), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-10)
    for left, right in zip(*(run.rows for run in runs), strict=True):
        assert left["flops"] == right["flops"]
        assert left["lam"] == pytest.approx(right["lam"], abs=1e-9)
        assert left["val_loss"] == pytest.approx(right["val_loss"], abs=1e-9)


@pytest.mark.parametrize("model", [{"hidden": [24, 16]}, {"name": "lenet5_caffe", "hidden": None}])
def test_units_in_compact_form_and_by_masks_agree(model: dict[str, Any], tiny: Callable[..., Conf]) -> None:
    changes = {
        "model": model,
        "target": {"units": 0.3, "every": 2, "ramp": "none"},
        "start": {"kind": "units", "density": 0.4},
        "dtype": "float64",
    }
    runs = [fit(tiny(optim={"multilevel": cycles}, **changes), observers=[]) for cycles in ({"m": 2}, MASKS)]
    for left, right in zip(*(run.model.parameters() for run in runs), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-10)
    assert runs[0].summary["flops"] < 0.9 * runs[0].summary["flops_dense"]


def test_rising_cycles_take_full_gradients_early(tiny: Callable[..., Conf]) -> None:
    """Fine steps where m rises by the calendar, counted by hand from what every step costs."""
    data = {"validation": 0.0, "batch_size": 50}
    conf = tiny(epochs=4, data=data, optim={"multilevel": {"m": 7, "m_start": 1, "m_over": 0.5, "below": 1.0}})
    parts, fine = set_up(conf), []
    schedule = next(each for each in parts.controls if isinstance(each, CycleSchedule))
    for _ in range(16):
        fine.append(parts.optimizer.fine)  # pyright: ignore
        parts.form.step(parts.train.images[:50], parts.train.labels[:50], torch.nn.functional.cross_entropy)  # pyright: ignore
        schedule.step()
    m, phase, by_hand = [round(1 + 6 * min(k / 8, 1)) for k in range(16)], 0, []
    for length in m:
        by_hand.append(phase >= length)
        phase = 0 if by_hand[-1] else phase + 1
    assert fine == by_hand
    assert fine.index(True) < 7


def test_without_coarse_steps_it_is_linbreg(tiny: Callable[..., Conf]) -> None:
    plain = {"momentum": 0.9, "nesterov": True}
    runs = [fit(tiny(optim=optim), observers=[]) for optim in (plain, {**plain, "multilevel": {"m": 0}})]
    for left, right in zip(*(run.model.parameters() for run in runs), strict=True):
        assert torch.equal(left, right)


def test_the_log_has_operations_beside_seconds(tiny: Callable[..., Conf]) -> None:
    """One layer after the other by hand: 6 steps an epoch, the fourth of every four is fine."""
    conf = tiny(epochs=1, data={"validation": 0.0, "batch_size": 50}, optim={"multilevel": {"m": 3, "below": 1.0}})
    parts = set_up(conf)
    f_d = 2 * (784 * 16 + 16 * 10)
    f_s = 2 * sum(int(p.count_nonzero()) for p in parts.model.parameters() if p.ndim > 1)
    row = fit(conf, observers=[]).rows[-1]
    assert row["flops_dense"] == 3 * f_d * 200
    assert row["flops"] == 200 * 3 * f_s - 50 * f_s + 50 * f_d
    assert row["seconds"] > 0


def test_operations_of_other_methods(tiny: Callable[..., Conf]) -> None:
    dense = fit(tiny(epochs=1, optim={"name": "sgd"}, regularizer={"name": "none", "lam": 0.0}), observers=[])
    assert dense.summary["flops"] == dense.summary["flops_dense"]
    plain = fit(tiny(epochs=2), observers=[]).rows
    assert plain[0]["flops_dense"] / 3 < plain[0]["flops"] < plain[0]["flops_dense"]
    assert plain[1]["flops_dense"] == 2 * plain[0]["flops_dense"]
    pgd = fit(tiny(epochs=1, optim={"name": "pgd"}, data={"batch_size": 0}), observers=[])
    assert "flops" not in pgd.summary


def test_the_form_is_chosen_by_measurement(tiny: Callable[..., Conf]) -> None:
    parts = set_up(tiny(optim={"multilevel": {"m": 3}}))
    assert isinstance(parts.form, SparseForm)
    assert all(0 <= below <= 0.2 for below in parts.form.state_dict()["below"].values())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": {"name": "convnet", "hidden": None}}, "module 'features.conv1' (Conv2d) is no part of a chain"),
        ({"regularizer": {"name": "elastic_net"}}, "the regularizer elastic_net has no compact form"),
        ({"dtype": "bfloat16"}, "dtype bfloat16 is autocast"),
    ],
)
def test_what_has_no_compact_form_is_trained_by_masks(
    changes: dict[str, Any], reason: str, tiny: Callable[..., Conf]
) -> None:
    conf = tiny(epochs=1, optim={"multilevel": {"m": 2}}, **changes)
    parts = set_up(conf)
    assert parts.form is None
    assert isinstance(parts.optimizer, tb.MultilevelLinBreg)
    assert reason in parts.notes[0]


def test_the_command_says_what_it_does(few: Path, tmp_path: Path) -> None:
    options = ["--epochs", "2", "--model.hidden", "[16]", "--data.dir", str(few), "--threads", "1"]
    done = bregman("train", *options, "--optim.multilevel.m", "3", "--regularizer.name", "elastic_net", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("note: trained by masks, which saves no time: the regularizer elastic_net") == 1
    done = bregman("train", *options, "--optim.multilevel.m", "3", "--data.batch_size", "30", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "trained by masks" not in done.stdout
    summary = json.loads((tmp_path / "runs" / "run-2" / "summary.json").read_text(encoding="utf-8"))
    assert f"{summary['flops'] / summary['flops_dense']:.1%} of a dense network's" in done.stdout


@pytest.mark.parametrize(
    ("optim", "message"),
    [
        ({"multilevel": {"m": -1}}, "optim.multilevel.m must be a number >= 0, got -1"),
        ({"multilevel": {"clip": 2.0}}, "optim.multilevel.clip has no effect with no optim.multilevel.m"),
        ({"multilevel": {"m": 5, "m_start": 6}}, "optim.multilevel.m_start must be a number >= 1 and <= 5, got 6"),
        ({"multilevel": {"m": 5, "m_over": 0.3}}, "optim.multilevel.m_over has no effect with no m_start, got 0.3"),
        ({"multilevel": {"m": 5, "m_start": 2, "m_over": 0.0}}, "optim.multilevel.m_over must lie in"),
        ({"multilevel": {"m": 2, "clip": 1.0}}, "optim.multilevel.clip must be a number > 1, got 1.0"),
        ({"multilevel": {"m": 2, "below": 3}}, "optim.multilevel.below must be a number >= 0 and <= 1, got 3"),
        (
            {"multilevel": {"m": 2, "size": 3}},
            "unknown field optim.multilevel.size: use one of below, clip, compiled",
        ),
        ({"multilevel": {"m": 2}, "compiled": True}, "compiled=True does not go with m 2"),
    ],
)
def test_what_does_not_go_together_is_refused(optim: dict[str, Any], message: str, tiny: Callable[..., Conf]) -> None:
    with pytest.raises(ValueError, match=message):
        set_up(tiny(optim=optim))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--optim.name", "adabreg"], "optim.multilevel is for linbreg, got adabreg"),
        (["--regularizer.name", "nuclear"], "under nuclear no entries or groups are asleep"),
    ],
)
def test_the_command_refuses_in_one_line(flags: list[str], message: str, tmp_path: Path) -> None:
    done = bregman("train", *flags, "--optim.multilevel.m", "3", cwd=tmp_path)
    assert done.returncode == 2
    assert is_one_error(done.stderr), done.stderr
    assert message in done.stderr


def test_a_target_in_cycles_is_met_by_linbreg(tiny: Callable[..., Conf]) -> None:
    conf = tiny(epochs=5, target={"density": 0.04}, optim={"multilevel": {"m": 2, "below": 1.0}})
    assert conf.optim.name == "linbreg"
    result = fit(conf, observers=[])
    assert result.summary["weights_left"] == round(0.04 * (784 * 16 + 160))
    assert math.isfinite(result.rows[-1]["train_loss"])


def test_the_recipe_in_cycles_starts_with_short_ones_and_a_small_lam() -> None:
    conf = Conf.from_dict({"optim": {"multilevel": {"m": 25}}, "target": {"density": 0.05}})
    cycles = conf.optim.multilevel
    assert (cycles.m_start, cycles.m_over, conf.regularizer.lam, conf.optim.lr) == (1, 0.7, 0.003, 0.2)
    assert conf.target.ramp == "linear"
    assert conf.target.start == conf.start.density == pytest.approx(0.07)
    assert (conf.target.ramp_over, conf.target.consolidate, conf.target.consolidate_lr) == (0.4, 0.5, 0.2)
    target = {"density": 0.05, "consolidate": 0.2, "consolidate_lr": 0.03}
    small = Conf.from_dict({"optim": {"multilevel": {"m": 25}}, "target": {"density": 0.02}})
    assert small.optim.multilevel.m_over == 0.5
    by_hand = {"optim": {"multilevel": {"m": 25, "m_start": 25}}, "target": target}
    conf = Conf.from_dict({**by_hand, "regularizer": {"lam": 0.3}})
    assert (conf.optim.multilevel.m_start, conf.regularizer.lam) == (25, 0.3)
    assert (conf.target.consolidate, conf.target.consolidate_lr) == (0.2, 0.03)
    conf = Conf.from_dict({**by_hand, "model": {"name": "convnet"}, "target": {"density": 0.05}})
    assert conf.target.consolidate_lr == pytest.approx(0.1 * conf.optim.lr)
    plain = Conf.from_dict({"optim": {"multilevel": {"m": 0}}, "target": {"density": 0.05}})
    assert (plain.optim.name, plain.optim.lr, plain.optim.multilevel.m_start) == ("linbreg", 0.1, None)
    units = Conf.from_dict({"optim": {"multilevel": {"m": 25}}, "target": {"units": 0.2}})
    assert units.optim.multilevel.m_start is None


SHORT = {"epochs": 1, "optim": {"name": "linbreg", "multilevel": {"m": 25}}, "target": {"density": 0.01}}


@pytest.mark.parametrize(
    ("changes", "steps"), [({}, 40), ({"epochs": 5}, 60), ({"target": {"density": 0.01, "warm_up": 0.2}}, 80)]
)
def test_the_rate_rises_over_some_steps_also_in_a_short_run(changes: dict[str, Any], steps: int) -> None:
    """A wide network diverged where three percent were fourteen steps."""
    conf = Conf.from_dict({**SHORT, **changes})
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=conf.optim.lr or 0.0)
    schedule, rates = build_rates(conf, optimizer, 400), []
    for _ in range(400 * conf.epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    before = rates[: len(rates) // 2]  # the freeze starts with the full rate once more
    assert abs(before.index(max(before)) + 1 - steps) <= 1
    assert rates[0] == pytest.approx(0.2 / steps, rel=0.01)


def test_settings_survive_a_round_trip() -> None:
    conf = Conf.from_dict({"optim": {"multilevel": {"m": 7}}})
    assert isinstance(conf.optim, OptimConf)
    assert conf.optim.multilevel.m == 7
    assert Conf.from_dict(conf.to_dict()) == conf
