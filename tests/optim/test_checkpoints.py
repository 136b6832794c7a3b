"""What a checkpoint holds, and that training goes on from it as if nothing had happened."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import torch_bregman as tb
from torch_bregman.regularizers import Regularizer

from .zoo import REGULARIZERS, ROWS, Problem, Row, each, label, named, packed, pairs, same, start

FEW = named("linbreg", "linbreg-momentum", "adabreg", "proxsgd-nesterov", "pgd", "bregman-sgd", "bregman-adagrad")


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, (str, int)) and plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(plain, value))
    return value is None or type(value) in (int, float, bool, str, torch.Tensor)


def through_disk(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def equal(a, b):
    """Whether two values of a state, tensors, numbers or dicts of them, agree in every bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return torch.equal(torch.as_tensor(a), torch.as_tensor(b))


@pairs()
def test_a_checkpoint_holds_plain_values_and_loads_without_pickle(row: Row, regularizer: Regularizer):
    problem, optimizer = start(row, regularizer)
    problem.step(optimizer, 2)
    state = optimizer.state_dict()
    assert plain(state)
    loaded = through_disk(state)
    assert loaded["param_groups"][0]["regularizer"]["name"] == regularizer.name
    assert loaded["param_groups"][0]["lam"] == regularizer.lam


@pairs()
def test_resuming_from_a_checkpoint_changes_no_bit(row: Row, regularizer: Regularizer):
    problem, optimizer = start(row, regularizer)
    problem.step(optimizer, 4)
    weights, state = copy.deepcopy(problem.model.state_dict()), through_disk(optimizer.state_dict())
    problem.step(optimizer, 4)

    other, resumed = start(row, regularizer, seed=5)
    other.model.load_state_dict(weights)
    other.x, other.y = problem.x, problem.y
    resumed.load_state_dict(state)
    other.step(resumed, 4)
    assert same(problem.values(), other.values())
    theirs, ours = packed(optimizer), packed(resumed)
    assert [name for name, _ in theirs] == [name for name, _ in ours]
    for (name, a), (_, b) in zip(theirs, ours, strict=True):
        assert equal(a, b), name


@pytest.mark.parametrize("order", ["model first", "optimizer first"])
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
@pairs(rows=FEW)
def test_model_and_optimizer_load_in_either_order(row: Row, regularizer: Regularizer, order: str, used: bool):
    """No warning (they are errors here), no bit changed, whether or not the optimizer has taken steps before."""
    problem, optimizer = start(row, regularizer)
    problem.step(optimizer, 3)
    weights, state = copy.deepcopy(problem.model.state_dict()), copy.deepcopy(optimizer.state_dict())
    problem.step(optimizer, 2)

    other, resumed = start(row, regularizer, seed=5)
    if used:
        other.step(resumed, 2)
    loads = [lambda: other.model.load_state_dict(weights), lambda: resumed.load_state_dict(state)]
    for load in loads if order == "model first" else loads[::-1]:
        load()
    other.x, other.y = problem.x, problem.y
    other.step(resumed, 2)
    assert same(problem.values(), other.values())


def by_deepcopy(pair: tuple[Problem, Any]) -> tuple[Problem, Any]:
    return copy.deepcopy(pair)


def by_pickle(pair: tuple[Problem, Any]) -> tuple[Problem, Any]:
    return pickle.loads(pickle.dumps(pair))


@pytest.mark.parametrize("clone", [by_deepcopy, by_pickle])
@pairs()
def test_a_copy_made_in_mid_run_goes_on_alike(row: Row, regularizer: Regularizer, clone: Any):
    problem, optimizer = start(row, regularizer)
    problem.step(optimizer, 3)
    twin, copied = clone((problem, optimizer))
    problem.step(optimizer, 3)
    twin.step(copied, 3)
    assert same(problem.values(), twin.values())
    assert not {p.data_ptr() for p in problem.params()} & {p.data_ptr() for p in twin.params()}


@each()
def test_loading_copies(row: Row):
    """A step after loading leaves the checkpoint as it was, and no tensor of the state is shared with it."""
    problem, optimizer = start(row, tb.L1(0.03))
    problem.step(optimizer, 2)
    state = optimizer.state_dict()
    before = copy.deepcopy(state)
    other, resumed = start(row, tb.L1(0.03))
    other.model.load_state_dict(problem.model.state_dict())
    resumed.load_state_dict(state)
    shared = {v.data_ptr() for _, v in packed(optimizer) if isinstance(v, torch.Tensor)}
    assert not shared & {v.data_ptr() for _, v in packed(resumed) if isinstance(v, torch.Tensor)}
    other.step(resumed, 2)
    for index, entries in before["state"].items():
        for key, value in entries.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(state["state"][index][key]))


@each(where=lambda row: row.mirror)
def test_the_dual_of_half_precision_weights_is_float32_before_and_after_loading(row: Row):
    problem = Problem(dtype=torch.bfloat16)
    optimizer = row.build(problem.groups(tb.L1(0.03)))
    problem.step(optimizer, 3)
    duals = [value for name, value in packed(optimizer) if name.endswith("subgrad")]
    assert len(duals) == 4
    assert all(dual.dtype is torch.float32 for dual in duals)
    assert any((dual != dual.bfloat16().float()).any() for dual in duals)

    other = Problem(dtype=torch.bfloat16)
    other.model.load_state_dict(problem.model.state_dict())
    resumed = row.build(other.groups(tb.L1(0.03)))
    resumed.load_state_dict(through_disk(optimizer.state_dict()))
    for (name, a), (_, b) in zip(packed(optimizer), packed(resumed), strict=True):
        if isinstance(a, torch.Tensor):
            assert a.dtype is b.dtype, name
            assert torch.equal(a, b), name
    problem.step(optimizer, 2)
    other.step(resumed, 2)
    assert same(problem.values(), other.values())


@pytest.mark.parametrize("theirs", REGULARIZERS, ids=label)
@pytest.mark.parametrize("ours", REGULARIZERS, ids=label)
def test_a_checkpoint_of_another_regulariser_is_refused(ours: Regularizer, theirs: Regularizer):
    row = named("linbreg")[0]
    problem, optimizer = start(row, theirs)
    problem.step(optimizer)
    _, other = start(row, ours)
    if ours.spec() == theirs.spec():
        other.load_state_dict(optimizer.state_dict())
        return
    with pytest.raises(ValueError, match=r"group 0 .* was trained with .*build it with the same regularizer"):
        other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["regularizer"].spec() == ours.spec()
    assert not other.state


@each(where=lambda row: row.name != "proxsgd")  # which keeps no state
def test_a_checkpoint_of_other_shapes_is_refused(row: Row):
    weight, wider = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3, 4))
    optimizer = row.build([weight], tb.L1(0.1))
    optimizer.step(lambda: _ones(weight))
    with pytest.raises(ValueError, match=r"shape \(3, 2\) for a parameter of shape \(3, 4\)"):
        row.build([wider], tb.L1(0.1)).load_state_dict(optimizer.state_dict())


def _ones(*params: nn.Parameter) -> torch.Tensor:
    for param in params:
        param.grad = torch.ones_like(param)
    return sum((param.detach().sum() for param in params), torch.zeros(()))


def test_a_checkpoint_of_other_groups_is_refused():
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    state = tb.LinBreg([{"params": [a]}, {"params": [b]}]).state_dict()
    with pytest.raises(ValueError, match="2 parameter groups, this optimizer 1"):
        tb.LinBreg([a, b]).load_state_dict(state)
    with pytest.raises(ValueError, match="has 1 parameters, this optimizer 2"):
        tb.LinBreg([a, b]).load_state_dict(tb.LinBreg([a]).state_dict())


@each()
def test_a_checkpoint_of_torch_is_refused(row: Row):
    weight = nn.Parameter(torch.ones(2, 2))
    state = torch.optim.SGD([weight], lr=0.1).state_dict()
    with pytest.raises(ValueError, match="has no regularizer: it was saved by an optimizer of another library"):
        row.build([weight]).load_state_dict(state)


def test_options_unknown_to_an_old_checkpoint_keep_their_value():
    weight = nn.Parameter(torch.ones(2))
    state = tb.LinBreg([weight], lr=0.5, accelerated=True).state_dict()
    for key in ("accelerated", "t", "look_ahead", "maximize"):
        del state["param_groups"][0][key]
    optimizer = tb.LinBreg([weight], lr=0.1, accelerated=True, maximize=True)
    optimizer.load_state_dict(state)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["accelerated"], group["maximize"], group["t"]) == (0.5, True, True, 1.0)


def test_numbers_in_force_travel_with_the_checkpoint():
    weight = nn.Parameter(torch.ones(2))
    optimizer = tb.LinBreg([weight], lr=0.1, regularizer=tb.L1(0.5))
    optimizer.param_groups[0].update(lam=0.2, lr=0.7)
    other = tb.LinBreg([weight], lr=0.1, regularizer=tb.L1(0.5))
    other.load_state_dict(through_disk(optimizer.state_dict()))
    assert (other.param_groups[0]["lam"], other.param_groups[0]["lr"]) == (0.2, 0.7)


def test_named_parameters_keep_their_names():
    model = nn.Linear(3, 2)
    optimizer = tb.AdaBreg(model.named_parameters(), regularizer=tb.L1(0.1))
    _ones(*model.parameters())
    optimizer.step()
    state = through_disk(optimizer.state_dict())
    assert state["param_groups"][0]["param_names"] == ["weight", "bias"]
    tb.AdaBreg(model.named_parameters(), regularizer=tb.L1(0.1)).load_state_dict(state)


@pytest.mark.parametrize("saved", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("loaded", [torch.contiguous_format, torch.channels_last])
@pairs(regularizers=[tb.L1(0.02), tb.NoRegularizer()])
def test_memory_formats_may_differ_between_saving_and_loading(
    row: Row, regularizer: Regularizer, saved: Any, loaded: Any
):
    def build(form: Any) -> tuple[nn.Parameter, Any]:
        values = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
        param = nn.Parameter(values.contiguous(memory_format=form))
        return param, row.build([param], regularizer)

    def steps(param: nn.Parameter, optimizer: Any) -> None:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = (param.sin() - 0.1).square().mean()
            loss.backward()
            return loss

        for _ in range(2):
            optimizer.step(closure)

    (a, first), (b, second) = build(saved), build(loaded)
    steps(a, first)
    state = copy.deepcopy(first.state_dict())
    with torch.no_grad():
        b.copy_(a)
    second.load_state_dict(state)
    steps(a, first)
    steps(b, second)
    torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-5, atol=1e-6)


def test_two_groups_may_share_a_regulariser():
    """λ is the group's, so that the shared object never sees it change."""
    shared = tb.L1(0.5)
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimizer = tb.LinBreg([{"params": [a]}, {"params": [b], "lam": 2.0}], lr=1.0, regularizer=shared)
    assert optimizer.param_groups[0]["regularizer"] is optimizer.param_groups[1]["regularizer"] is shared
    optimizer.param_groups[0]["lam"] = 0.25
    _ones(a, b)
    optimizer.step()
    assert a.tolist() == [-0.75, -0.75]
    assert b.tolist() == [0.0, 0.0]
    assert shared.lam == 0.5
    assert [group["lam"] for group in optimizer.state_dict()["param_groups"]] == [0.25, 2.0]


@each(ROWS)
def test_lam_is_a_number_of_the_group(row: Row):
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = row.build([{"params": [weight], "regularizer": tb.L1(0.3)}])
    assert optimizer.param_groups[0]["lam"] == 0.3
    assert row.build([{"params": [weight], "lam": 0.7}], tb.L1(0.3)).param_groups[0]["lam"] == 0.7
    assert row.build([weight]).param_groups[0]["lam"] == 0.0
