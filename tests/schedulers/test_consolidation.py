"""Consolidation: exactly what was asked for is kept, momentum is masked and carried, and training goes on plainly."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch_bregman as tb
from torch_bregman.schedulers import Consolidation, Density, Parameters, Rank, Units
from torch_bregman.schedulers.factors import Factors
from torch_bregman.schedulers.support import Support

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "linbreg": lambda groups: tb.LinBreg(groups, lr=0.01, momentum=0.9, nesterov=True),
    "linbreg delta": lambda groups: tb.LinBreg(groups, lr=0.01, momentum=0.9, delta=2.0),
    "adabreg": lambda groups: tb.AdaBreg(groups, lr=0.02),
    "bregman": lambda groups: tb.Bregman(torch.optim.RMSprop(groups, lr=0.02, momentum=0.9)),
    "proxsgd": lambda groups: tb.ProxSGD(groups, lr=0.01, momentum=0.9),
}


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(12, 10, generator=generator)) for _ in range(2)]


def step(optimizer: Any, params: list[nn.Parameter], number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    optimizer.zero_grad()
    goals = [2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(9 + i)) for i, p in enumerate(params)]
    noise = [0.1 * torch.randn(p.shape, generator=generator) for p in params]
    loss = torch.stack([(0.5 * (p - g - e).square()).sum() for p, g, e in zip(params, goals, noise, strict=True)])
    loss.sum().backward()
    optimizer.step()


def trained(name: str, regularizer: Any, steps: int = 20) -> tuple[list[nn.Parameter], Any]:
    params = weights()
    optimizer = OPTIMIZERS[name]([{"params": params, "regularizer": regularizer}])
    for number in range(steps):
        step(optimizer, params, number)
    return params, optimizer


@pytest.mark.parametrize("goal", [0.02, 0.1, 0.5, 0.9, 7, 1.0])
@pytest.mark.parametrize("name", [key for key in OPTIMIZERS if key != "proxsgd"])
def test_exactly_k_weights_are_kept_and_stay(name: str, goal: float) -> None:
    params, optimizer = trained(name, tb.L1(0.5))
    kept = round(goal * 240) if goal <= 1 else goal
    Consolidation(optimizer, Density(goal)).freeze()
    assert sum(int(p.count_nonzero()) for p in params) == kept
    masks = [p.detach() != 0 for p in params]
    for number in range(20, 30):
        step(optimizer, params, number)
        assert all(not p[~mask].any() for p, mask in zip(params, masks, strict=True))
    assert sum(int(p.count_nonzero()) for p in params) == kept
    for param, mask in zip(params, masks, strict=True):
        for value in optimizer.state[param].values():
            if isinstance(value, Tensor) and value.shape == param.shape:
                assert not value[~mask].any()


def test_what_is_kept_is_what_is_largest_and_keeps_its_value() -> None:
    params, optimizer = trained("adabreg", tb.L1(0.3))
    before = torch.cat([p.detach().flatten() for p in params])
    Consolidation(optimizer, Density(0.1)).freeze()
    after = torch.cat([p.detach().flatten() for p in params])
    largest = before.abs().topk(24).indices
    expected = torch.zeros_like(before)
    expected[largest] = before[largest]
    assert torch.equal(after, expected)


def test_equal_levels_do_not_break_the_count() -> None:
    weight = nn.Parameter(torch.ones(10, 10))
    optimizer = tb.LinBreg([weight], lr=0.1, regularizer=tb.L1(0.1))
    Consolidation(optimizer, Density(0.37)).freeze()
    assert int(weight.count_nonzero()) == 37


def test_proxsgd_keeps_the_largest_of_what_is_awake() -> None:
    params, optimizer = trained("proxsgd", tb.L1(0.3))
    Consolidation(optimizer, Density(0.1)).freeze()
    assert sum(int(p.count_nonzero()) for p in params) == 24


@pytest.mark.parametrize(
    ("regularizer", "goal", "view"),
    [(tb.GroupL2(0.3), 7, "rows"), (tb.GroupL2(0.3, view="columns"), 5, "columns"), (tb.L1(0.3), 7, "rows")],
)
def test_units_are_kept_whole(regularizer: Any, goal: int, view: str) -> None:
    params, optimizer = trained("linbreg", regularizer)
    Consolidation(optimizer, Units(goal, view=view)).freeze()
    assert sum(int(tb.views.get_view(view).live(p.detach()).sum()) for p in params) == goal
    assert sum(int(p.count_nonzero()) for p in params) == goal * (10 if view == "rows" else 12)


def test_without_a_target_all_that_is_awake_is_kept() -> None:
    params, optimizer = trained("adabreg", tb.L1(0.2))
    before = [p.detach().clone() for p in params]
    Consolidation(optimizer).freeze()
    assert all(torch.equal(p, old) for p, old in zip(params, before, strict=True))
    assert 0 < sum(int(p.count_nonzero()) for p in params) < 240


@pytest.mark.parametrize(("name", "plain"), [("linbreg", torch.optim.SGD), ("adabreg", torch.optim.Adam)])
def test_the_rest_is_the_plain_optimizer_with_its_momentum(name: str, plain: Any) -> None:
    params, optimizer = trained(name, tb.L1(0.3))
    Consolidation(optimizer, Density(0.2)).freeze()
    copies = [nn.Parameter(p.detach().clone()) for p in params]
    masks = [p.detach() != 0 for p in params]
    options = {"momentum": 0.9, "nesterov": True, "lr": 0.01} if name == "linbreg" else {"lr": 0.02}
    other = plain(copies, **options)
    for mine, theirs in zip(params, copies, strict=True):
        kept = {key: value for key, value in optimizer.state[mine].items() if key not in ("subgrad", "lam")}
        other.state[theirs] = copy.deepcopy(kept)
        assert any(isinstance(value, Tensor) and value.shape == mine.shape and value.any() for value in kept.values())
    for number in range(20, 25):
        step(optimizer, params, number)
        other.zero_grad()
        for mine, theirs, mask in zip(params, copies, masks, strict=True):
            assert mine.grad is not None
            theirs.grad = mine.grad * mask
        other.step()
    for mine, theirs in zip(params, copies, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert optimizer.param_groups[0]["lam"] == 0
    assert isinstance(optimizer.param_groups[0]["regularizer"], tb.NoRegularizer)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_a_rank_is_kept_and_trained_by_its_factors(name: str) -> None:
    params, optimizer = trained(name, tb.Nuclear(0.5))
    end = Consolidation(optimizer, Rank(5))
    end.freeze()
    found = [len(left) for left, _ in end.factors().values()]
    assert sum(found) == 5
    ranks = [int(torch.linalg.matrix_rank(p.detach(), rtol=1e-5)) for p in params]
    assert sum(ranks) == 5
    before = [p.detach().clone() for p in params]
    for number in range(20, 30):
        step(optimizer, params, number)
    assert [int(torch.linalg.matrix_rank(p.detach(), rtol=1e-5)) for p in params] == ranks
    assert all(not torch.equal(p, old) for p, old in zip(params, before, strict=True))
    assert all(p.grad is None for p in params)


def test_a_step_of_the_factors_is_that_of_two_linear_layers() -> None:
    weight = nn.Parameter(tb.low_rank_(nn.Linear(8, 6, bias=False), 2).weight.detach().clone())
    optimizer = tb.LinBreg([weight], lr=0.1, regularizer=tb.Nuclear(0.0))
    end = Consolidation(optimizer, Rank(2))
    end.freeze()
    (left, right) = (factor.clone().requires_grad_() for factor in next(iter(end.factors().values())))
    x, y = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), torch.ones(5, 6)
    (x @ weight.T - y).square().sum().backward()
    (x @ right.T @ left - y).square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        expected = (left - 0.1 * left.grad).T @ (right - 0.1 * right.grad)  # pyright: ignore
    torch.testing.assert_close(weight.detach(), expected)


def frozen_after_steps_that_move_all_entries_alike(
    kind: Callable[..., Any], **options: Any
) -> tuple[Any, Consolidation, Callable[[], None]]:
    """Return an optimizer, its freeze two steps later and what gives gradients anew."""
    x = torch.randn(64, 1, generator=torch.Generator().manual_seed(0)) @ torch.ones(1, 40)
    weight = nn.Parameter(tb.low_rank_(nn.Linear(40, 30, bias=False), 6, seed=0).weight.detach().clone())
    optimizer = kind([weight], regularizer=tb.Nuclear(1e-4), **options)

    def backward() -> None:
        optimizer.zero_grad()
        (x @ weight.T - 1).square().sum().backward()

    end = Consolidation(optimizer, Rank(2))
    for _ in range(2):
        backward()
        optimizer.step()
    return optimizer, end, backward


def test_the_moments_of_adabreg_start_anew_with_the_factors() -> None:
    """Taken from those of W, whose entries move together, they were too small, and the first step as much too long."""
    optimizer, end, backward = frozen_after_steps_that_move_all_entries_alike(tb.AdaBreg, lr=0.002)
    end.freeze()
    factors = next(iter(end.factors().values()))
    before = [factor.clone() for factor in factors]
    backward()
    optimizer.step()
    for factor, old in zip(factors, before, strict=True):
        assert float((factor - old).abs().max()) == pytest.approx(0.002, rel=1e-3)


def test_the_momentum_of_linbreg_goes_on_in_the_factors() -> None:
    optimizer, end, _ = frozen_after_steps_that_move_all_entries_alike(tb.LinBreg, lr=1e-5, momentum=0.9)
    (weight,) = optimizer.param_groups[0]["params"]
    momentum = optimizer.state[weight]["momentum_buffer"]
    end.freeze()
    (frozen,) = (each for each in end.frozen if isinstance(each, Factors))
    torch.testing.assert_close(optimizer.state[frozen.left]["momentum_buffer"], frozen.right @ momentum.T)
    torch.testing.assert_close(optimizer.state[frozen.right]["momentum_buffer"], frozen.left @ momentum)


def test_stored_parameters_are_met_and_no_factor_costs_more_than_its_weight() -> None:
    params, optimizer = trained("adabreg", tb.Nuclear(0.05))
    end = Consolidation(optimizer, Parameters(160))
    end.freeze()
    frozen = {id(each.param): each for each in end.frozen if isinstance(each, Factors)}
    stored = sum(
        sum(factor.numel() for factor in (frozen[id(p)].left, frozen[id(p)].right)) if frozen[id(p)].pays else p.numel()
        for p in params
    )
    assert 160 - 22 < stored <= 160


def build(name: str, regularizer: Any, size: Any) -> tuple[list[nn.Parameter], Any, Consolidation]:
    params = weights()
    optimizer = OPTIMIZERS[name]([{"params": params, "regularizer": regularizer}])
    return params, optimizer, Consolidation(optimizer, size, at=8)


@pytest.mark.parametrize("stop", [5, 8, 12])
@pytest.mark.parametrize(
    ("regularizer", "size"),
    [(tb.L1(0.3), Density(0.1)), (tb.GroupL2(0.3), Units(6)), (tb.Nuclear(0.5), Rank(4))],
    ids=["l1", "rows", "nuclear"],
)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_checkpoint_goes_on_bit_for_bit_before_and_after_the_freeze(
    name: str, regularizer: Any, size: Any, stop: int
) -> None:
    params, optimizer, end = build(name, regularizer, size)
    for number in range(stop):
        step(optimizer, params, number)
        end.step()
    saved = copy.deepcopy(([p.detach() for p in params], end.state_dict(), optimizer.state_dict()))
    others, its, other = build(name, regularizer, size)
    with torch.no_grad():
        for param, value in zip(others, saved[0], strict=True):
            param.copy_(value)
    other.load_state_dict(saved[1])
    its.load_state_dict(saved[2])
    for which, of, by in ((params, optimizer, end), (others, its, other)):
        for number in range(stop, 16):
            step(of, which, number)
            by.step()
    assert end.done
    assert other.done
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))


def test_the_state_loads_with_weights_only(tmp_path: Any) -> None:
    _, optimizer = trained("adabreg", tb.L1(0.3))
    end = Consolidation(optimizer, Density(0.1))
    end.freeze()
    torch.save(end.state_dict(), tmp_path / "end.pt")
    assert len(torch.load(tmp_path / "end.pt", weights_only=True)["frozen"]) == 2


def test_a_second_freeze_does_nothing_and_takes_up_no_other() -> None:
    params, optimizer = trained("adabreg", tb.L1(0.3))
    end = Consolidation(optimizer, Density(0.1))
    end.freeze()
    masks = [each.mask for each in end.frozen if isinstance(each, Support)]
    step(optimizer, params, 30)
    end.freeze()
    assert all(each.mask is mask for each, mask in zip(end.frozen, masks, strict=True) if isinstance(each, Support))
    with pytest.raises(ValueError, match="takes up no other: build model and optimizer anew"):
        end.load_state_dict(end.state_dict())


def test_masks_of_other_weights_are_refused() -> None:
    _, optimizer = trained("adabreg", tb.L1(0.3))
    end = Consolidation(optimizer, Density(0.1))
    end.freeze()
    small = tb.AdaBreg([nn.Parameter(torch.ones(3, 4)) for _ in range(2)], regularizer=tb.L1(0.3))
    with pytest.raises(ValueError, match=r"a mask of shape \(12, 10\) for \(3, 4\)"):
        Consolidation(small, Density(0.1)).load_state_dict(end.state_dict())
    one = tb.AdaBreg([nn.Parameter(torch.ones(12, 10))], regularizer=tb.L1(0.3))
    with pytest.raises(ValueError, match="has 2 frozen weights, this optimizer 1"):
        Consolidation(one, Density(0.1)).load_state_dict(end.state_dict())


@pytest.mark.parametrize("at", [0, -3, 1.5, True])
def test_a_wrong_step_is_refused(at: Any) -> None:
    with pytest.raises(ValueError, match=f"at must be a whole number of steps >= 1, got {at!r}"):
        Consolidation(tb.AdaBreg(weights(), regularizer=tb.L1(0.3)), Density(0.1), at=at)


def test_pgd_does_not_go_on_in_factors() -> None:
    with pytest.raises(ValueError, match="PGD does not go on with factors"):
        Consolidation(tb.PGD(weights(), regularizer=tb.Nuclear(0.3)), Rank(3))


@pytest.mark.parametrize("make", [lambda: tb.L1(0.1), lambda: tb.GroupL2(0.1, view="columns"), lambda: tb.Nuclear(0.1)])
def test_a_freeze_empties_no_weight(make: Callable[[], Any]) -> None:
    one, other = weights()
    other.data.mul_(1e-3)  # all its levels are far below those of the first
    optimizer = tb.LinBreg([one, other], lr=0.01, regularizer=make())
    step(optimizer, [one, other], 0)
    size = Rank(5) if isinstance(make(), tb.Nuclear) else Units(5) if isinstance(make(), tb.GroupL2) else Density(5)
    end = Consolidation(optimizer, size)
    end.freeze()
    kept = [len(each.left) if isinstance(each, Factors) else each.mask for each in end.frozen]
    levels = [each if isinstance(each, int) else int(make().levels(each.float()).count_nonzero()) for each in kept]
    assert levels == [4, 1]


def test_less_than_one_level_a_weight_is_refused() -> None:
    one, other = weights()
    optimizer = tb.LinBreg([one, other], lr=0.01, regularizer=tb.Nuclear(0.1))
    with pytest.raises(
        ValueError, match="it is 43 of 240, and the least that keeps every weight alive is 44: raise it"
    ):
        Consolidation(optimizer, Parameters(43))
    Consolidation(optimizer, Parameters(44))
