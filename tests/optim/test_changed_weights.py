"""Weights changed by other hands: noticed, kept, and as little memory lost as the regulariser allows."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch_bregman as tb
from torch_bregman.regularizers import Regularizer

from .zoo import REGULARIZERS, ROWS, Row, each, named, pairs, start

MIRRORS = [row for row in ROWS if row.mirror]
PENALTIES = [reg for reg in REGULARIZERS if reg.deterministic and not isinstance(reg, tb.NoRegularizer)]


def trained(row: Row, regularizer: Regularizer, **options: Any) -> tuple[nn.Parameter, Any]:
    """Return a weight, part of it asleep, after some steps."""
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(4, 6, generator=draw)
    start[1:3] = start[:2, 4:] = start[:, 5:] = 0
    weight = nn.Parameter(start.abs() if isinstance(regularizer, tb.NonNegativeL1) else start)
    optimizer = row.build([weight], regularizer, **options)
    for _ in range(2):
        weight.grad = torch.randn(4, 6, generator=draw) * 0.01
        optimizer.step()
    return weight, optimizer


def still(weight: nn.Parameter, optimizer: Any) -> list[warnings.WarningMessage]:
    """Take a step that moves nothing: lr is too small to matter, but not 0."""
    for group in optimizer.param_groups:
        group.update(lr=1e-30, weight_decay=0.0)
    weight.grad = torch.zeros_like(weight)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer.step()
    return caught


@pairs(rows=MIRRORS, regularizers=PENALTIES)
def test_a_change_is_kept_with_one_warning(row: Row, regularizer: Regularizer):
    if row.name == "bregman-rprop":
        pytest.skip("its steps have a least length")
    weight, optimizer = trained(row, regularizer)
    if "momentum" in optimizer.param_groups[0]:
        optimizer.param_groups[0]["nesterov"] = False
        optimizer.param_groups[0]["momentum"] = 0.0
    with torch.no_grad():
        weight[1, 2] = 0.75
        weight[3] *= 1.5
    expected = weight.detach().clone()
    caught = still(weight, optimizer)
    assert [item.category for item in caught] == [UserWarning]
    assert "weights were changed outside of the optimizer" in str(caught[0].message)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)
    assert not still(weight, optimizer)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)
    assert optimizer.mirror_residual() < 1e-5


def changed_entries(regularizer: Regularizer) -> Tensor:
    """Return the entries of `trained` whose dual starts anew when entry (1, 2) is changed."""
    mask = torch.zeros(4, 6, dtype=torch.bool)
    if isinstance(regularizer, tb.Nuclear):
        return ~mask
    if isinstance(regularizer, tb.GroupL2) and str(regularizer.view) == "rows":
        mask[1] = True
    elif isinstance(regularizer, tb.GroupL2):
        mask[0:2, 2:4] = True
    elif isinstance(regularizer, tb.SparseGroup):
        mask[:, 2] = True
    else:
        mask[1, 2] = True
    return mask


@pairs(rows=named("linbreg-momentum", "linbreg-delta-decay", "adabreg", "bregman-rmsprop"), regularizers=PENALTIES)
def test_memory_is_lost_only_where_the_change_reaches(row: Row, regularizer: Regularizer):
    weight, optimizer = trained(row, regularizer, lr=5e-4)
    before = optimizer.state[weight]["subgrad"].clone()
    with torch.no_grad():
        weight[1, 2] = 0.75
    optimizer.param_groups[0].update(lr=0.0)
    with pytest.warns(UserWarning, match="of 1 entries was started anew"):
        optimizer.step()
    after, anew = optimizer.state[weight]["subgrad"], changed_entries(regularizer)
    assert torch.equal(after[~anew], before[~anew])
    delta = optimizer.param_groups[0]["delta"]
    fresh = regularizer.inverse_mirror(weight.detach(), delta)
    assert torch.equal(after[anew], fresh[anew])
    asleep = (weight.detach() == 0) & ~anew
    assert asleep.any() or anew.all()
    assert anew.all() or (after[asleep] != 0).any(), "nothing was remembered in the first place"


def test_a_change_over_several_groups_warns_once_and_points_at_the_caller():
    problem, optimizer = start(named("linbreg")[0], tb.L1(0.03))
    problem.step(optimizer, 2)
    problem.model.load_state_dict(problem.fresh_model(9).state_dict())
    problem.loss().backward()
    with pytest.warns(UserWarning, match="weights were changed outside") as caught:
        optimizer.step()
    assert len(caught) == 1
    assert caught[0].filename == __file__


@each(MIRRORS)
def test_writing_the_same_values_is_no_change(row: Row):
    problem, optimizer = start(row, tb.L1(0.03))
    problem.step(optimizer, 2)
    twin, other = copy.deepcopy((problem, optimizer))
    problem.model.load_state_dict(copy.deepcopy(problem.model.state_dict()))
    problem.step(optimizer, 2)
    twin.step(other, 2)
    assert all(torch.equal(a, b) for a, b in zip(problem.values(), twin.values(), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pairs(rows=named("linbreg-momentum", "adabreg"), regularizers=PENALTIES)
def test_rounding_of_half_precision_weights_is_no_change(row: Row, regularizer: Regularizer, dtype: torch.dtype):
    weight = nn.Parameter(torch.rand(4, 6, generator=torch.Generator().manual_seed(1)).to(dtype))
    optimizer = row.build([weight], regularizer)
    for _ in range(3):
        weight.grad = torch.full_like(weight, 0.01)
        optimizer.step()
        with torch.no_grad():
            weight.copy_(weight.clone())
    with torch.no_grad():
        weight[2, 3] += 0.5
    with pytest.warns(UserWarning, match="weights were changed outside"):
        optimizer.step()


def test_lam_changed_at_the_same_time_does_not_confuse_it():
    """θ is compared with its image under the λ it was mapped with, not under the λ of the next step."""
    row = named("linbreg")[0]
    weight, optimizer = trained(row, tb.L1(0.5))
    optimizer.param_groups[0]["lam"] = 0.1
    with torch.no_grad():
        weight.add_(0)
    optimizer.step()
    assert optimizer.mirror_residual() < 1e-6


def test_weights_turned_negative_are_refused_where_they_have_no_dual():
    weight, optimizer = trained(named("linbreg")[0], tb.NonNegativeL1(0.03))
    with torch.no_grad():
        weight[0, 0] = -1.0
    with pytest.raises(ValueError, match=r"cannot start at negative weights.*-1.*abs_"):
        optimizer.step()


def test_a_plain_optimizer_has_no_dual_to_grow_stale():
    problem, optimizer = start(named("linbreg-momentum")[0], tb.NoRegularizer())
    problem.step(optimizer, 2)
    problem.model.load_state_dict(problem.fresh_model(9).state_dict())
    problem.step(optimizer, 2)
    assert not any("subgrad" in state for state in optimizer.state.values())
