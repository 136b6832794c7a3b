from __future__ import annotations

import time

import torch
from torch import nn

from torch_bregman.compaction.latency import measure_latency, side_by_side


def test_calls_take_turns_and_each_is_warmed_up_in_its_turn() -> None:
    seen: list[str] = []
    side_by_side([lambda: seen.append("a"), lambda: seen.append("b")], seconds=0, least=3)
    assert seen == ["a", "b"] + ["a", "a", "b", "b"] * 3


def test_only_the_second_call_of_a_turn_counts() -> None:
    calls = iter(range(100))

    def slow_at_first() -> None:
        if next(calls) % 2:  # the call before all turns is number 0, the first of each turn is odd
            time.sleep(0.05)

    (took,) = side_by_side([slow_at_first], seconds=0, least=3)
    assert took < 50


def test_modes_are_left_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout()).train()
    model[1].eval()
    assert len(measure_latency([model, nn.Linear(3, 2)], torch.zeros(4, 3), batch=2, seconds=0)) == 2
    assert (model.training, model[0].training, model[1].training) == (True, True, False)
