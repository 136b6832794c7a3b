"""The length of cycles, by calendar."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_bregman as tb
from torch_bregman.schedulers import CycleSchedule, Density, LamByQuantile, linear


def cycles(m: int = 9) -> tb.MultilevelLinBreg:
    groups = [{"params": [nn.Parameter(torch.randn(6, 5))], "regularizer": tb.L1(0.1)} for _ in range(2)]
    return tb.MultilevelLinBreg(groups, lr=0.1, m=m)


def test_it_sets_all_groups_and_goes_on_from_its_state() -> None:
    optimizer = cycles()
    schedule = CycleSchedule(optimizer, linear(1, 9, 4))
    lengths = []
    for _ in range(5):
        schedule.step()
        lengths.append({group["m"] for group in optimizer.param_groups})
    assert lengths == [{3}, {5}, {7}, {9}, {9}]
    again = CycleSchedule(cycles(), linear(1, 9, 4))
    again.load_state_dict({"steps": 1})
    again.step()
    assert again.cycles.m == 5


def test_what_is_no_cycle_is_refused() -> None:
    with pytest.raises(ValueError, match="needs MultilevelLinBreg, got LinBreg"):
        CycleSchedule(tb.LinBreg([nn.Parameter(torch.ones(2))]), linear(1, 9, 4))  # pyright: ignore
    with pytest.raises(ValueError, match="at least 1 coarse step, got 0 at 0"):
        CycleSchedule(cycles(), lambda _: 0)
    with pytest.raises(ValueError, match="from a whole number >= 1 to another, got 0 and 3"):
        CycleSchedule(cycles(0), lambda _: 3)


@pytest.mark.parametrize("every", [1, 4, 10])
def test_controllers_look_after_fine_steps_however_long_the_cycles_are(every: int) -> None:
    torch.manual_seed(0)
    optimizer = cycles()
    schedule = CycleSchedule(optimizer, linear(1, 9, 40))
    control = LamByQuantile(optimizer, Density(0.3), every=every)
    looks, was_fine, last = [], [], 0
    for number in range(1, 81):
        was_fine.append(optimizer.fine)
        for group in optimizer.param_groups:
            group["params"][0].grad = torch.randn(6, 5)
        optimizer.step()
        before = control.turns
        control.step()
        schedule.step()
        if control.turns > before:
            assert was_fine[-1]
            assert number - last >= every
            looks.append(number)
            last = number
    due, last = [], 0
    for number, fine in enumerate(was_fine, start=1):
        if fine and number - last >= every:
            due.append(number)
            last = number
    assert looks == due
    assert len(looks) >= 4


def test_a_controller_saved_without_its_last_look_goes_on() -> None:
    control = LamByQuantile(cycles(), Density(0.3))
    control.load_state_dict({"steps": 30, "turns": 3})
    assert control.looked == 30
