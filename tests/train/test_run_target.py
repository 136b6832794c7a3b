"""A size on request, as a user types it: one flag, and the network has that size."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commands import bregman
from torch import nn

import torch_bregman as tb
from torch_bregman.metrics import cost_report, rank
from torch_bregman.train import Conf, TargetConf, fit
from torch_bregman.train.command_line import parse_conf
from torch_bregman.train.setup import set_up
from torch_bregman.train.target_conf import ramp_start
from torch_bregman.train.targets import build_rates
from torch_bregman.views import get_view

WEIGHTS = 784 * 16 + 16 * 10


def nonzeros(model: Any) -> int:
    return sum(int(p.count_nonzero()) for p in model.parameters() if p.ndim > 1)


@pytest.mark.parametrize("optimizer", ["adabreg", "linbreg"])
@pytest.mark.parametrize("goal", [0.01, 0.05, 0.3, 500])
def test_a_density_is_met_to_the_weight(goal: float, optimizer: str, tiny: Callable[..., Conf]) -> None:
    start = ramp_start(goal)
    conf = tiny(target={"density": goal}, optim={"name": optimizer}, start={"density": start}, epochs=4)
    result = fit(conf, observers=[])
    assert result.summary["weights_left"] == nonzeros(result.model) == (round(goal * WEIGHTS) if goal <= 1 else goal)
    assert [row["lam"]["0"] for row in result.rows][-1] == 0


@pytest.mark.parametrize("ramp", ["cubic", "linear", "log", "none"])
@pytest.mark.parametrize("controller", ["quantile", "feedback"])
def test_every_ramp_and_controller_ends_there(controller: str, ramp: str, tiny: Callable[..., Conf]) -> None:
    target = {"density": 0.05, "controller": controller, "ramp": ramp, "every": 2}
    result = fit(tiny(target=target, optim={"name": "adabreg", "lr": 0.01}), observers=[])
    assert nonzeros(result.model) == round(0.05 * WEIGHTS)


def test_each_layer_meets_the_target_by_itself(tiny: Callable[..., Conf]) -> None:
    conf = tiny(target={"density": 0.1, "scope": "layer"}, optim={"name": "adabreg", "lr": 0.01})
    result = fit(conf, observers=[])
    assert [int(p.count_nonzero()) for p in result.model.parameters() if p.ndim > 1] == [1254, 16]


def test_proxsgd_keeps_its_lam_and_is_cut_at_the_freeze(tiny: Callable[..., Conf]) -> None:
    conf = tiny(
        target={"density": 0.05, "controller": "none"},
        optim={"name": "proxsgd"},
        regularizer={"lam": 1e-3},
        start={"density": 0.3},
    )
    result = fit(conf, observers=[])
    assert [row["lam"]["0"] for row in result.rows] == [1e-3, 1e-3, 0]
    assert nonzeros(result.model) == round(0.05 * WEIGHTS)


@pytest.mark.parametrize("goal", [{"rank": 7}, {"params": 2000}, {"macs": 0.15}, {"bytes": 8000}])
def test_low_rank_is_met_within_a_rank(goal: dict[str, float], tiny: Callable[..., Conf]) -> None:
    conf = tiny(
        target=goal,
        regularizer={"name": "nuclear"},
        optim={"name": "adabreg", "lr": 0.003},
        start={"density": 0.01},  # which is none of a low-rank start
        epochs=4,
    )
    result = fit(conf, observers=[])
    weights = [p for p in result.model.parameters() if p.ndim > 1]
    ranks = [rank(p) for p in weights]
    stored = sum(min(r * sum(p.shape), p.numel()) for r, p in zip(ranks, weights, strict=True))
    size, wanted = {
        "rank": (sum(ranks), 7),
        "params": (stored, 2000),
        "macs": (stored, 0.15 * WEIGHTS),
        "bytes": (4 * stored, 8000),
    }[next(iter(goal))]
    unit = {"rank": 0, "bytes": 4 * 800}.get(next(iter(goal)), 800)
    assert wanted - unit <= size <= wanted
    assert result.summary["stored"] == stored
    assert list(result.rows[-1]["layer_rank"].values()) == [r for r, p in zip(ranks, weights, strict=True) if r < 10]


def test_with_convolutions_numbers_are_met_by_the_same_rank_in_every_layer(tiny: Callable[..., Conf]) -> None:
    plain = tiny(model={"name": "lenet5_caffe", "hidden": None}, epochs=2).to_dict()
    rules = {name: {"name": "none", "lam": 0.0} for name in ("features.conv1", "classifier.fc2")}
    goal = {"regularizer": {"name": "nuclear"}, "rules": rules, "target": {"params": 13_500}}
    conf = Conf.from_dict({key: value for key, value in plain.items() if key not in ("optim", "start")} | goal)
    assert conf.target.scope == "layer"
    result = fit(conf, observers=[])
    named = dict(result.model.named_parameters())
    ranks = [rank(named[name]) for name in ("features.conv2.weight", "classifier.fc1.weight")]
    assert ranks == [5, 4]  # 13,450 numbers: 500 + 5,000 beside, 550 and 1,300 for each direction
    assert result.summary["stored"] == 5_500 + 5 * 550 + 4 * 1_300


def test_kernels_of_a_conv_net_are_met_within_one(tiny: Callable[..., Conf]) -> None:
    conf = tiny(
        model={"name": "convnet", "hidden": None},
        regularizer={"name": "l1"},
        rules={"Conv2d": {"name": "group_l2", "options": {"view": "kernels"}}, "Linear": {"name": "none", "lam": 0.0}},
        target={"units": 0.1},
        optim={"name": "adabreg", "lr": 0.01},
        start={"density": 0.5},
        epochs=2,
    )
    result = fit(conf, observers=[])
    kernels = [p.flatten(2).any(2) for p in result.model.parameters() if p.ndim == 4]
    assert sum(int(k.sum()) for k in kernels) == round(0.1 * sum(k.numel() for k in kernels))


def test_multiply_adds_of_a_conv_net_are_met_within_an_entry(tiny: Callable[..., Conf]) -> None:
    conf = tiny(
        model={"name": "convnet", "hidden": None},
        target={"macs": 0.2},
        optim={"name": "adabreg", "lr": 0.01},
        start={"density": 0.5},
        epochs=2,
    )
    result = fit(conf, observers=[])
    report = cost_report(result.model, torch.zeros(1, 1, 28, 28))
    positions = max(each.macs for each in report.weights)
    assert 0.2 * report.macs - positions < report.nonzero_macs <= 0.2 * report.macs


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_whole_units_are_met_and_can_be_cut_off(name: str, tiny: Callable[..., Conf]) -> None:
    few = tiny(
        model={"name": name, "hidden": [16] if name == "mlp" else None}, start={"kind": "dense", "density": 0.01}
    )
    plain = {**few.to_dict(), "target": {"units": 0.5}, "epochs": 2}
    plain["regularizer"] = {"name": "outgoing"}
    result = fit(Conf.from_dict({**plain, "optim": {"name": "adabreg", "lr": 0.01}}), observers=[])
    image = torch.zeros(1, 1, 28, 28)
    rules = tb.outgoing_groups(result.model, image)
    named = dict(result.model.named_parameters())
    live = [get_view(reg.view).live(named[key].detach()) for key, reg in rules.items()]
    assert sum(int(each.sum()) for each in live) == round(0.5 * sum(each.numel() for each in live))


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("goal", [0.3, 60_000])
def test_multiply_adds_by_whole_units_are_those_of_the_compact_network(
    goal: float, scope: str, tiny: Callable[..., Conf]
) -> None:
    few = tiny(model={"name": "mlp", "hidden": [120, 60]}, start={"kind": "dense", "density": 0.01}).to_dict()
    few.pop("optim")
    plain = {**few, "regularizer": {"name": "outgoing"}, "target": {"macs": goal, "scope": scope}, "epochs": 2}
    result = fit(Conf.from_dict(plain), observers=[])
    image = torch.zeros(1, 1, 28, 28)
    small, _ = tb.compact(result.model, image, batch_sizes=())
    widths = [layer.out_features for layer in small.modules() if isinstance(layer, nn.Linear)]
    assert scope == "global" or abs(widths[0] / 120 - widths[1] / 60) <= 1 / 60
    budget = 0.3 * cost_report(result.model, image).macs if goal == 0.3 else goal
    assert budget - 784 - 60 < cost_report(small, image).macs <= budget


@pytest.mark.parametrize("key", ["classifier", "Linear", "classifier.fc?.weight"])
def test_layers_that_a_rule_sets_free_keep_all_their_units(key: str, tiny: Callable[..., Conf]) -> None:
    plain = tiny(
        model={"name": "convnet", "hidden": None}, start={"kind": "units", "density": 0.25}, epochs=1
    ).to_dict()
    plain |= {"target": {"units": 0.25, "ramp": "none"}, "rules": {key: {"name": "none", "lam": 0.0}}}
    plain |= {"regularizer": {"name": "outgoing"}, "optim": {"name": "linbreg", "lr": 0.01, "multilevel": {"m": 2}}}
    conf = Conf.from_dict(plain)
    begun = set_up(conf).model
    assert isinstance(begun, nn.Module)
    weights = {name: p for name, p in begun.named_parameters() if p.ndim > 1}
    assert all(bool((p != 0).all()) for name, p in weights.items() if name != "features.conv2.weight")
    model = fit(conf, observers=[]).model
    reads = model.features.conv2.weight.detach()
    assert int(reads.movedim(1, 0).flatten(1).any(1).sum()) == 16
    assert bool((model.classifier.fc1.weight.detach() != 0).all())


@pytest.mark.parametrize(("norm", "again"), [("nuclear", True), ("l1", False)])
def test_the_rate_rises_at_the_start_and_where_the_moments_of_factors_start(norm: str, again: bool) -> None:
    goal = {"params": 5000} if again else {"density": 0.01}
    plain = {"target": {**goal, "warm_up": 0.1, "consolidate": 0.5, "consolidate_lr": 0.02}, "epochs": 1}
    conf = Conf.from_dict({**plain, "regularizer": {"name": norm}, "optim": {"name": "adabreg", "lr": 0.01}})
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.01)
    schedule, rates = build_rates(conf, optimizer, 100), []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:3] == pytest.approx([0.001, 0.002, 0.003], rel=0.02)
    falling = [0.02 * (1 + math.cos(math.pi * k / 50)) / 2 for k in range(50)]
    rising = [min((k + 1) / 10, 1.0) if again else 1.0 for k in range(50)]
    assert rates[50:] == pytest.approx([one * other for one, other in zip(falling, rising, strict=True)])


def test_one_flag_chooses_the_rest_and_each_part_can_be_set_by_hand() -> None:
    conf = parse_conf(["--target.density", "0.02"])
    assert (conf.optim.name, conf.optim.lr, conf.start.density) == ("adabreg", 0.01, 0.2)
    conf = parse_conf(["--target.density", "0.25", "--optim.lr", "0.02", "--optim.name", "linbreg"])
    assert (conf.optim.name, conf.optim.lr, conf.optim.momentum, conf.start.density) == ("linbreg", 0.02, 0.9, 0.5)
    conf = parse_conf(["--target.units", "0.5"])
    assert (conf.regularizer.name, conf.start.kind, conf.target.scope) == ("outgoing", "dense", "layer")
    conf = parse_conf(["--target.rank", "30", "--start.rank", "6"])
    assert (conf.regularizer.name, conf.start.kind, conf.start.rank) == ("nuclear", "low_rank", 6)
    conf = parse_conf(["--target.density", "0.02", "--start.density", "0.02", "--target.start", "0.02"])
    assert (conf.start.density, conf.target.start) == (0.02, 0.02)
    assert Conf.from_dict(conf.to_dict()) == conf
    assert parse_conf([]) == Conf()


def test_a_learning_rate_falls_twice(tiny: Callable[..., Conf]) -> None:
    conf = tiny(target={"density": 0.1}, optim={"name": "adabreg", "lr": 0.01}, epochs=10)
    rates = [row["lr"]["0"] for row in fit(conf, observers=[]).rows]
    assert rates[0] == 0.01
    assert rates[:7] == sorted(rates[:7], reverse=True)
    assert rates[6] < rates[7] == pytest.approx(0.005)
    assert rates[7:] == sorted(rates[7:], reverse=True)
    by_hand = tiny(target={"density": 0.04}, schedule={"name": "StepLR", "options": {"step_size": 1}}, epochs=2)
    assert [row["lr"]["0"] for row in fit(by_hand, observers=[]).rows] == pytest.approx([0.01, 0.001])


def test_targets_in_code_need_a_goal() -> None:
    assert not TargetConf().asked
    with pytest.raises(ValueError, match=r"target.every has no effect with no goal"):
        TargetConf(every=3)


@pytest.mark.parametrize("goal", [["--target.density", "0.03"], ["--target.params", "3000"]])
def test_the_command_gives_the_size_that_was_asked_for(goal: list[str], tmp_path: Path, few: Path) -> None:
    options = ["--epochs", "2", "--model.hidden", "[16]", "--data.dir", str(few), "--threads", "1"]
    done = bregman("train", "--name", "small", *options, *goal, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    left = round(0.03 * WEIGHTS) if goal[0] == "--target.density" else 3000
    summary = json.loads((tmp_path / "runs" / "small" / "summary.json").read_text(encoding="utf-8"))
    assert summary["weights_left"] == left
    assert f"{left:,}" in done.stdout


def test_any_module_meets_a_target_in_a_loop_of_ones_own() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    groups = tb.param_groups(model, {torch.nn.Linear: tb.L1(0.01)})
    optimizer, size = tb.AdaBreg(groups, lr=0.01), tb.schedulers.Density(0.2)
    control = tb.schedulers.LamByQuantile(optimizer, size)
    end = tb.schedulers.Consolidation(optimizer, size, at=80)
    x = torch.randn(64, 8)
    for _ in range(100):
        optimizer.zero_grad()
        (model(x) - x[:, :1] * x[:, 1:2]).square().mean().backward()
        optimizer.step()
        control.step()
        end.step()
    assert nonzeros(model) == round(0.2 * 288)
