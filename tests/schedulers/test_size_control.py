"""Controllers: they reach the size asked for, rest at it, and go on from a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch_bregman as tb
from torch_bregman.schedulers import (
    Density,
    LamByFeedback,
    LamByQuantile,
    MultiplyAdds,
    Parameters,
    Rank,
    SizeControl,
    Units,
    cubic,
)
from torch_bregman.schedulers.watched import dual

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "linbreg": lambda groups: tb.LinBreg(groups, lr=0.2, momentum=0.5, delta=2.0),
    "adabreg": lambda groups: tb.AdaBreg(groups, lr=0.05),
    "bregman": lambda groups: tb.Bregman(torch.optim.RMSprop(groups, lr=0.05)),
}
CONTROLS: dict[str, Callable[..., SizeControl]] = {
    "quantile": lambda *args, **options: LamByQuantile(*args, relaxation=0.5, every=2, **options),
    "feedback": lambda *args, **options: LamByFeedback(*args, relaxation=0.05, every=1, **options),
}
TARGETS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "l1": lambda: (tb.L1(0.1), Density(0.25)),
    "l1 number": lambda: (tb.L1(0.1), Density(60)),
    "l1 rows": lambda: (tb.L1(0.1), Units(0.5)),
    "elastic net": lambda: (tb.ElasticNet(0.1, l1_ratio=0.7), Density(0.25)),
    "nonnegative": lambda: (tb.NonNegativeL1(0.1), Density(0.25)),
    "rows": lambda: (tb.GroupL2(0.1), Units(0.4)),
    "columns": lambda: (tb.GroupL2(0.1, view="columns"), Density(0.5)),
    "sparse group": lambda: (tb.SparseGroup(0.1, l1_ratio=0.8), Density(0.25)),
    "macs": lambda: (tb.L1(0.1), MultiplyAdds(0.25)),
    "rank": lambda: (tb.Nuclear(0.1), Rank(9)),
    "params": lambda: (tb.Nuclear(0.1), Parameters(120)),
}


def weights(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(12, 10, generator=generator).abs()) for _ in range(2)]


def step(optimizer: Any, params: list[nn.Parameter], number: int) -> None:
    """Take a step downhill towards numbers of very different size, with noise."""
    generator = torch.Generator().manual_seed(number)
    for i, param in enumerate(params):
        goal = 3 * torch.rand(param.shape, generator=torch.Generator().manual_seed(i)).square()
        param.grad = param.detach() - goal + 0.05 * torch.randn(param.shape, generator=generator)
    optimizer.step()


def live(control: SizeControl) -> float:
    """Return the size, counted on the weights themselves."""
    size, total = control.watched[0].sizes[0], 0.0
    for _, group, param in control.watched[0].members():
        regularizer, theta = group["regularizer"], param.detach()
        if isinstance(regularizer, tb.Nuclear):
            rank = int(torch.linalg.matrix_rank(theta, rtol=1e-5))
            total += float(size.directions(rank, regularizer, param).sum())
        elif isinstance(size, Units):
            total += int(size._view(regularizer).live(theta).sum())
        else:
            total += int(theta.count_nonzero())
    return total


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_size_asked_for_is_reached(name: str, control: str, target: str) -> None:
    regularizer, size = TARGETS[target]()
    params = weights()
    optimizer = OPTIMIZERS[name]([{"params": params, "regularizer": regularizer}])
    steered = CONTROLS[control](optimizer, size)
    for number in range(300):
        optimizer.param_groups[0]["lr"] *= 0.96  # while the weights move, λ runs after them
        step(optimizer, params, number)
        steered.step()
    budget = steered.watched[0].budgets()[0]
    unit = {"params": 22, "l1 rows": 1, "rows": 1, "columns": 12, "rank": 1}.get(target, 3)
    slack = unit * (1 if control == "quantile" else 3)
    assert abs(live(steered) - budget) <= slack, (live(steered), budget)
    assert torch.isfinite(torch.tensor(optimizer.param_groups[0]["lam"]))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("kind", [LamByQuantile, LamByFeedback])
def test_at_its_fixed_point_a_controller_changes_nothing(kind: Any, name: str) -> None:
    def train(*, steer: bool) -> tuple[list[Tensor], float]:
        params = weights()
        optimizer = OPTIMIZERS[name]([{"params": params, "regularizer": tb.L1(0.3)}])
        step(optimizer, params, 0)
        probe = LamByQuantile(optimizer, Density(0.3))
        probe.watched[0].set_lam(probe.watched[0].lam_wanted())
        control = kind(optimizer, Density(0.3), every=1)
        for _ in range(5 if steer else 0):
            control.step()
        step(optimizer, params, 1)
        return [param.detach().clone() for param in params], optimizer.param_groups[0]["lam"]

    (with_it, lam), (without, expected) = train(steer=True), train(steer=False)
    assert lam == expected
    assert all(torch.equal(a, b) for a, b in zip(with_it, without, strict=True))


def test_the_dual_is_left_alone() -> None:
    params = weights()
    optimizer = tb.LinBreg(params, lr=0.1, regularizer=tb.L1(0.3))
    step(optimizer, params, 0)
    before = [optimizer.state[param]["subgrad"].clone() for param in params]
    control = LamByQuantile(optimizer, Density(0.1), every=1, relaxation=1.0)
    control.step()
    assert optimizer.param_groups[0]["lam"] != 0.3
    assert all(torch.equal(optimizer.state[p]["subgrad"], v) for p, v in zip(params, before, strict=True))


def test_several_targets_are_all_met_by_the_tightest() -> None:
    params = weights()
    optimizer = tb.LinBreg(params, lr=0.1, regularizer=tb.L1(0.3))
    step(optimizer, params, 0)
    lams = {}
    for name, sizes in {"one": [Density(0.2)], "two": [Units(0.1)], "both": [Density(0.2), Units(0.1)]}.items():
        lams[name] = LamByQuantile(optimizer, *sizes).watched[0].lam_wanted()
    assert lams["both"] == max(lams["one"], lams["two"])
    assert lams["one"] != lams["two"]


def test_by_group_each_meets_the_target_by_itself() -> None:
    one, other = weights()
    groups = [{"params": [one], "regularizer": tb.L1(0.1)}, {"params": [other], "regularizer": tb.L1(0.2)}]
    optimizer = tb.LinBreg(groups, lr=0.2)
    control = LamByQuantile(optimizer, Density(0.25), relaxation=0.5, every=1, scope="group")
    for number in range(200):
        for group in optimizer.param_groups:
            group["lr"] *= 0.96
        step(optimizer, [one, other], number)
        control.step()
    assert [int(p.count_nonzero()) for p in (one, other)] == pytest.approx([30, 30], abs=3)


def test_globally_lams_keep_their_proportion() -> None:
    one, other = weights()
    groups = [{"params": [one], "regularizer": tb.L1(0.1)}, {"params": [other], "regularizer": tb.GroupL2(0.2)}]
    optimizer = tb.LinBreg(groups, lr=0.2)
    control = LamByQuantile(optimizer, Density(0.25), every=1)
    for number in range(20):
        step(optimizer, [one, other], number)
        control.step()
        lams = [group["lam"] for group in optimizer.param_groups]
        assert lams[1] == pytest.approx(2 * lams[0])


@pytest.mark.parametrize("seen", ["awake", "all"])
def test_weighted_directions_of_a_small_weight_are_seen_as_under_a_smaller_lam(seen: str) -> None:
    def found(weighted: bool) -> tuple[float, list[Tensor]]:
        generator = torch.Generator().manual_seed(0)
        params = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((16, 16), (4, 4))]
        lams = [0.1, 0.1] if weighted else [1.6, 0.4]  # √(mn) is 16 and 4
        groups = [
            {"params": [param], "regularizer": tb.Nuclear(lam, weighted=weighted)}
            for param, lam in zip(params, lams, strict=True)
        ]
        optimizer = tb.LinBreg(groups, lr=0.2, delta=2.0)
        watched = LamByQuantile(optimizer, Rank(6), relaxation=1.0, every=1).watched[0]
        for number in range(5):
            step(optimizer, params, number)
        levels = [each.levels for each in watched.rated(0, awake=seen == "awake")]
        return watched.lam_wanted(), levels

    (lam, levels), (expected, other) = found(True), found(False)
    assert lam == pytest.approx(expected / 16)
    for mine, theirs in zip(levels, other, strict=True):
        torch.testing.assert_close(mine, theirs / 16, rtol=1e-4, atol=1e-5)


def test_only_the_groups_named_are_steered_and_counted() -> None:
    one, other = weights()
    groups = [{"params": [one], "regularizer": tb.L1(0.1)}, {"params": [other], "regularizer": tb.L1(0.2)}]
    optimizer = tb.LinBreg(groups, lr=0.2)
    control = LamByQuantile(optimizer, Density(0.25), every=1, groups=[1])
    step(optimizer, [one, other], 0)
    control.step()
    assert control.watched[0].budgets() == [30]
    assert optimizer.param_groups[0]["lam"] == 0.1
    assert optimizer.param_groups[1]["lam"] != 0.2


def test_weights_without_a_regularizer_count_to_the_whole() -> None:
    one, other = weights()
    optimizer = tb.LinBreg([{"params": [one], "regularizer": tb.L1(0.1)}, {"params": [other]}], lr=0.2)
    assert LamByQuantile(optimizer, Density(0.75)).watched[0].budgets() == [60]  # 180 of 240, 120 of them are fixed
    with pytest.raises(ValueError, match=r"a target of density 0.5 cannot be met: weights without a regularizer alone"):
        LamByQuantile(optimizer, Density(0.5))


@pytest.mark.parametrize("start", [8.0, 0.125])
def test_a_ramp_comes_from_more_or_from_less(start: float) -> None:
    params = weights()
    optimizer = tb.LinBreg(params, lr=0.1, regularizer=tb.L1(0.3))
    control = LamByQuantile(optimizer, Density(0.1), relaxation=1.0, every=1, ramp=cubic(start, 1.0, 40))
    sizes = []
    for number in range(150):
        optimizer.param_groups[0]["lr"] *= 1.0 if number < 40 else 0.95
        step(optimizer, params, number)
        sizes.append(sum(int(p.count_nonzero()) for p in params))
        control.step()
    assert (sizes[2] > 80) == (start > 1)
    assert (sizes[2] < 12) == (start < 1)
    assert sizes[-1] == pytest.approx(24, abs=3)


def test_a_target_of_everything_wakes_everything() -> None:
    params = weights()
    optimizer = tb.LinBreg(params, lr=0.1, regularizer=tb.L1(0.3))
    control = LamByQuantile(optimizer, Density(1.0), relaxation=1.0, every=1)
    for number in range(5):
        step(optimizer, params, number)
        control.step()
    assert sum(int(p.count_nonzero()) for p in params) == 240


def test_feedback_leaves_zero() -> None:
    params = weights()
    optimizer = tb.LinBreg(params, lr=0.1, regularizer=tb.L1(0.0))
    control = LamByFeedback(optimizer, Density(0.25), every=1)
    step(optimizer, params, 0)
    control.step()
    assert optimizer.param_groups[0]["lam"] == LamByQuantile(optimizer, Density(0.25)).watched[0].lam_wanted() > 0


def test_lam_is_kept_within_its_clamps() -> None:
    params = weights()
    optimizer = tb.LinBreg(params, lr=0.1, regularizer=tb.L1(0.3))
    for options, expected in (({"most": 0.31}, 0.31), ({"least": 0.9}, 0.9)):
        control = LamByQuantile(
            optimizer, Density(0.1 if "most" in options else 1.0), every=1, relaxation=1.0, **options
        )
        step(optimizer, params, 0)
        control.step()
        assert optimizer.param_groups[0]["lam"] == expected


def test_of_very_many_weights_some_rows_are_enough() -> None:
    weight = nn.Parameter(torch.zeros(1024, 1024))
    optimizer = tb.LinBreg([weight], lr=1.0, regularizer=tb.L1(1.0))
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    watched = LamByQuantile(optimizer, Density(0.05)).watched[0]
    looked_at = [len(watched.rated(0, turn=turn)[0].levels) for turn in range(3)]
    assert max(looked_at) < weight.numel() / 8
    exact = watched.lam_wanted()
    v = dual(optimizer, optimizer.param_groups[0], weight).abs().flatten()
    assert int((v > exact).sum()) == watched.budgets()[0]
    guesses = [watched.lam_wanted(turn=turn) for turn in range(8)]
    assert len(set(guesses)) == 8
    assert guesses == pytest.approx([exact] * 8, rel=0.03)


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_checkpoint_goes_on_bit_for_bit(name: str, control: str) -> None:
    def build() -> tuple[list[nn.Parameter], Any, SizeControl]:
        params = weights()
        optimizer = OPTIMIZERS[name]([{"params": params, "regularizer": tb.L1(0.3)}])
        return params, optimizer, CONTROLS[control](optimizer, Density(0.2), ramp=cubic(4.0, 1.0, 20))

    params, optimizer, steered = build()
    for number in range(9):
        step(optimizer, params, number)
        steered.step()
    saved = copy.deepcopy(([p.detach() for p in params], optimizer.state_dict(), steered.state_dict()))
    others, its, other = build()
    with torch.no_grad():
        for param, value in zip(others, saved[0], strict=True):
            param.copy_(value)
    its.load_state_dict(saved[1])
    other.load_state_dict(saved[2])
    for which, of, by in ((params, optimizer, steered), (others, its, other)):
        for number in range(9, 20):
            step(of, which, number)
            by.step()
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))
    assert optimizer.param_groups[0]["lam"] == its.param_groups[0]["lam"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relaxation": 0.0}, r"relaxation must lie in \(0, 1\], got 0.0"),
        ({"relaxation": 1.5}, r"relaxation must lie in \(0, 1\], got 1.5"),
        ({"every": 0}, "every must be a whole number of steps >= 1, got 0"),
        ({"least": 2.0, "most": 1.0}, "least and most must be numbers with 0 <= least <= most, got 2.0 and 1.0"),
        ({"scope": "layer"}, "scope must be global or group, got 'layer'"),
    ],
)
def test_wrong_numbers_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LamByQuantile(tb.LinBreg(weights(), regularizer=tb.L1(0.1)), Density(0.1), **options)


@pytest.mark.parametrize(
    ("optimizer", "sizes", "message"),
    [
        (lambda: tb.ProxSGD(weights(), regularizer=tb.L1(0.1)), [Density(0.1)], "ProxSGD keeps its λ fixed"),
        (lambda: tb.PGD(weights(), regularizer=tb.L1(0.1)), [Density(0.1)], "PGD keeps its λ fixed"),
        (lambda: tb.LinBreg(weights()), [Density(0.1)], "a target needs a group with a regularizer"),
        (lambda: tb.LinBreg(weights(), regularizer=tb.L1(0.1)), [], "a controller needs a target"),
        (lambda: tb.LinBreg(weights(), regularizer=tb.L1(0.1)), [0.05], "a target must be a size such as Density"),
        (lambda: tb.LinBreg(weights(), regularizer=tb.SoftBernoulli(0.1)), [Density(0.1)], "soft_bernoulli nothing"),
        (lambda: tb.LinBreg([nn.Parameter(torch.ones(3))], regularizer=tb.L1(0.1)), [Density(0.1)], "found none"),
        (lambda: tb.LinBreg(weights(), regularizer=tb.Nuclear(0.1)), [Density(0.1)], "set a target of rank or params"),
    ],
)
def test_what_cannot_be_steered_is_refused(optimizer: Any, sizes: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LamByQuantile(optimizer(), *sizes)
