"""Operations of training against the formula of the literature, and a count by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from torch_bregman.metrics import TrainingFlops, training_flops


@given(st.integers(0, 40), st.floats(0, 1))
def test_a_cycle_costs_the_share_that_the_formula_says(m: int, density: float):
    flops = TrainingFlops({"a": 3, "b": 1}, {"a": 1000, "b": 500})
    awake = {"a": int(1000 * density), "b": 500}
    f_s, f_d = flops.forward(awake), flops.forward(flops.entries)
    cycle = sum(flops.step(awake, fine=k == 0, samples=7) for k in range(m + 1))
    share = ((2 * f_s + f_d) + m * 3 * f_s) / (3 * f_d * (m + 1))
    assert cycle == pytest.approx(share * (m + 1) * flops.dense(7))


def test_shared_and_convolutional_weights_count_at_every_use():
    shared = nn.Linear(4, 4, bias=False)
    model = nn.Sequential(nn.Conv2d(1, 1, 3, bias=False), nn.Flatten(), shared, nn.ReLU(), shared)
    flops = training_flops(model, torch.zeros(1, 1, 4, 4))
    assert flops.times == {"0.weight": 4, "2.weight": 2}
    assert flops.forward({}) == 2 * (9 * 4 + 16 * 2)
    assert flops.dense(5) == 3 * 5 * 2 * (9 * 4 + 16 * 2)
