"""Schedules move the rank cap and λ as documented, and resume."""

from __future__ import annotations

import json

import pytest
import torch

import torch_bregman as tb
from torch_bregman import schedulers


def optimizer(rank=4, lam=0.4, **options):
    weight = torch.nn.Parameter(torch.diag(torch.tensor([5.0, 4.0, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0])))
    return tb.LinBreg([weight], lr=0.1, regularizer=tb.DynamicRankNuclear(lam, rank=rank, **options))


def cap(opt):
    return opt.param_groups[0]["regularizer"].get_rank()


def lam(opt):
    return opt.param_groups[0]["lam"]


def play(schedule, opt, metrics, read):
    seen = []
    for metric in metrics:
        schedule.step(metric)
        seen.append(read(opt))
    return seen


class TestRank:
    def test_calendars(self):
        opt = optimizer()
        assert play(schedulers.RankSchedule(opt, schedulers.linear(4, 8, 4)), opt, [None] * 5, cap) == [5, 6, 7, 8, 8]
        opt = optimizer()
        schedule = schedulers.RankSchedule(opt, schedulers.listed({0: 4, 2: 6, 3: 5}))
        assert play(schedule, opt, [None] * 4, cap) == [4, 6, 5, 5]

    def test_plateau_is_the_dissertations_rule(self):
        opt = optimizer(rank=16)
        schedule = schedulers.RankOnPlateau(opt, times=2)
        losses = [1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
        assert play(schedule, opt, losses, cap) == [16, 16, 16, 32, 32, 48, 48, 48, 48]

    def test_plateau_of_an_accuracy(self):
        opt = optimizer(rank=2)
        schedule = schedulers.RankOnPlateau(opt, 1, patience=0, mode="max")
        assert play(schedule, opt, [0.1, 0.2, 0.2, 0.1, 0.3], cap) == [2, 2, 3, 4, 4]

    def test_the_maximal_rank_holds(self):
        opt = optimizer(rank=4, max_rank=5)
        assert play(schedulers.RankOnPlateau(opt, 8, patience=0), opt, [1.0, 1.0], cap) == [4, 5]

    def test_energy_raises_a_full_cap_and_lowers_an_idle_one(self):
        opt = optimizer(rank=4)
        assert play(schedulers.RankByEnergy(opt, increase=2), opt, [None], cap) == [6]
        opt = optimizer(rank=8)
        assert play(schedulers.RankByEnergy(opt), opt, [None], cap) == [4]
        # σ² = 25, 16, 9, 4 of 54: the rest after one is 0.537, after two 0.241, after three 0.074
        opt = optimizer(rank=8)
        assert play(schedulers.RankByEnergy(opt, tolerance=0.3), opt, [None], cap) == [2]

    def test_two_groups_may_share_a_cap(self):
        regularizer = tb.DynamicRankNuclear(0.1, rank=2)
        weights = [torch.nn.Parameter(torch.zeros(4, 4)) for _ in range(2)]
        opt = tb.LinBreg([{"params": [w], "regularizer": regularizer} for w in weights])
        schedulers.RankOnPlateau(opt, 3, patience=0).step(1.0)
        schedule = schedulers.RankOnPlateau(opt, 3, patience=0)
        assert play(schedule, opt, [1.0, 1.0], cap) == [2, 5]


class TestLam:
    def test_plateau_halves_down_to_the_least(self):
        opt = optimizer(lam=0.4)
        schedule = schedulers.LamOnPlateau(opt, patience=0, least=0.15)
        assert play(schedule, opt, [1.0, 1.0, 1.0, 1.0], lam) == [0.4, 0.2, 0.15, 0.15]

    def test_no_weight_jumps(self):
        opt = optimizer(lam=0.4)
        weight = opt.param_groups[0]["params"][0]
        weight.grad = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
        opt.step()
        before = weight.detach().clone()
        schedulers.LamSchedule(opt, schedulers.cosine(1, 0.1, 3)).step()
        weight.grad = torch.zeros(8, 8)
        opt.step()
        torch.testing.assert_close(weight.detach(), before, rtol=1e-4, atol=1e-4)

    def test_schedules_compose(self):
        opt = optimizer(rank=2)
        both = [schedulers.LamOnPlateau(opt, patience=0), schedulers.RankOnPlateau(opt, 1, patience=0)]
        for _ in range(2):
            for schedule in both:
                schedule.step(1.0)
        assert (lam(opt), cap(opt)) == (0.2, 3)


MAKERS = {
    "lam on plateau": lambda opt: schedulers.LamOnPlateau(opt, patience=1),
    "lam by calendar": lambda opt: schedulers.LamSchedule(opt, schedulers.linear(1, 0.2, 6)),
    "rank on plateau": lambda opt: schedulers.RankOnPlateau(opt, 1),
    "rank by calendar": lambda opt: schedulers.RankSchedule(opt, schedulers.linear(4, 8, 6)),
    "rank by energy": lambda opt: schedulers.RankByEnergy(opt),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_schedule_resumes(make):
    metrics = [1.0, 0.9, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8]
    whole, first, second = optimizer(), optimizer(), optimizer()
    expected = play(make(whole), whole, metrics, lambda opt: (lam(opt), cap(opt)))
    half = make(first)
    play(half, first, metrics[:4], lam)
    resumed = make(second)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(json.loads(json.dumps(half.state_dict())))
    assert play(resumed, second, metrics[4:], lambda opt: (lam(opt), cap(opt))) == expected[4:]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedulers.RankOnPlateau(tb.LinBreg([torch.zeros(2, 2)])), "no group has a rank cap"),
        (
            lambda: schedulers.LamOnPlateau(torch.optim.SGD([torch.zeros(2)])),
            "needs an optimizer of .*, got SGD",
        ),
        (lambda: schedulers.LamOnPlateau(optimizer(), 1.0), "factor must be .* got 1.0"),
        (lambda: schedulers.LamOnPlateau(optimizer(), least=-1.0), "least must be .* got -1.0"),
        (lambda: schedulers.LamOnPlateau(optimizer()).step(), "LamOnPlateau needs a metric"),
        (lambda: schedulers.RankOnPlateau(optimizer()).step(), "RankOnPlateau needs a metric"),
        (lambda: schedulers.RankOnPlateau(optimizer(), 0), "increase and times must be at least 1, got 0"),
        (lambda: schedulers.RankOnPlateau(optimizer(), patience=-1), "patience must be at least 0, got -1"),
        (lambda: schedulers.RankByEnergy(optimizer(), 1.5), r"tolerance must lie in \(0, 1\), got 1.5"),
        (lambda: schedulers.linear(1, 2, 0), "at least 1 step, got 0"),
        (lambda: schedulers.listed({3: 1}), r"step 0, got steps \[3\]"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
