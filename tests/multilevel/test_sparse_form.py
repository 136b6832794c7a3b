"""ℓ1 in compact form does what the masks do."""

from __future__ import annotations

import copy
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import torch_bregman as tb
from tests.multilevel.agreement import assert_checkpoints_move, assert_same, by_masks
from torch_bregman.multilevel import SparseForm, Unsuited
from torch_bregman.multilevel.sparse_weight import carried
from torch_bregman.optim.native.build import COMPILERS

VARIANTS = [
    {"momentum": 0.9, "nesterov": True, "m": 3},
    {"momentum": 0.8, "dampening": 0.5, "m": 2},
    {"m": 4},
    {"momentum": 0.5, "delta": 2.0, "weight_decay": 0.1, "m": 1},
    {"maximize": True, "lr": 0.05, "m": 3},
]


needs_compiler = pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="needs a C compiler")
ALL = dict.fromkeys(["1", "3.0", "4", "6"], 1.0)


def chain(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(20, 30),
        nn.ReLU(),
        nn.Sequential(nn.Linear(30, 25, bias=False), nn.BatchNorm1d(25), nn.Tanh(), nn.Identity()),
        nn.Linear(25, 12),
        nn.LayerNorm(12),
        nn.Linear(12, 4),
    ).to(dtype)
    return tb.sparsify_(model, density=0.2, seed=0)


def setting(**options: Any) -> tuple[nn.Module, tb.MultilevelLinBreg]:
    model = chain()
    groups = tb.param_groups(model, {nn.Linear: tb.L1(0.05), "6.weight": tb.NoRegularizer()})
    return model, tb.MultilevelLinBreg(groups, **{"lr": 0.1, **options})


def batches(count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    rng = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(16, 4, 5, generator=rng).double(), torch.randint(0, 4, (16,), generator=rng)) for _ in range(count)
    ]


@pytest.mark.parametrize("options", VARIANTS)
def test_it_agrees_with_the_masks_step_by_step(options: dict[str, Any]):
    (model, optimizer), (twin, other) = setting(**options), setting(**options)
    form = SparseForm(twin, other, ALL)
    woken = []
    for number, (x, y) in enumerate(batches(26)):
        expected = by_masks(model, optimizer, x, y)
        found, outputs = form.step(x, y, cross_entropy)
        assert outputs.shape == (16, 4)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
        if number % 4 == 3:
            assert form.awake()["1.weight"] == int(optimizer.state[model[1].weight]["awake"].sum())
            form.write()
            assert_same((model, optimizer), (twin, other))
        woken.append(form.awake()["1.weight"])
    assert len(set(woken)) > 1


@needs_compiler
def test_the_c_program_trains_as_torch_does():
    models = []
    for compiled in (False, True):
        model = chain(torch.float32)
        groups = tb.param_groups(model, {nn.Linear: tb.L1(0.05)})
        optimizer = tb.MultilevelLinBreg(groups, lr=0.1, momentum=0.9, m=3)
        form = SparseForm(model, optimizer, ALL, compiled=compiled)
        for x, y in batches(12):
            form.step(x.float(), y, cross_entropy)
        form.write()
        models.append(model)
    for left, right in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("below", [0.0, 0.25, 1.0])
def test_layers_change_their_form_as_they_fill_up(below: float):
    options = {"momentum": 0.9, "nesterov": True, "m": 2, "lr": 0.3}
    (model, optimizer), (twin, other) = setting(**options), setting(**options)
    form = SparseForm(twin, other, dict.fromkeys(ALL, below))
    compact = set()
    for x, y in batches(24):
        by_masks(model, optimizer, x, y)
        form.step(x, y, cross_entropy)
        compact.add(sum(place.compact is not None for place in form.places))
    form.write()
    assert_same((model, optimizer), (twin, other))
    assert compact == {0.0: {0}, 1.0: {3}}.get(below, compact)
    if below == 0.25:
        assert len(compact) > 1


def test_plain_linbreg_without_coarse_steps():
    """m = 0 and no momentum: every step is full, and the compact form is LinBreg with the same support."""
    model, twin = chain(), chain()
    optimizer = tb.LinBreg(tb.param_groups(model, {nn.Linear: tb.L1(0.05)}), lr=0.1)
    groups = tb.param_groups(twin, {nn.Linear: tb.L1(0.05)})
    form = SparseForm(twin, tb.MultilevelLinBreg(groups, lr=0.1, m=1), ALL)
    for x, y in batches(12):
        expected = by_masks(model, optimizer, x, y)
        for group in form.optimizer.param_groups:
            group["phase"] = 1  # always at the end of a cycle
        found, _ = form.step(x, y, cross_entropy)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    form.write()
    for left, right in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-10)


def test_a_run_resumed_within_a_cycle_ends_bit_for_bit_the_same():
    options = {"momentum": 0.9, "nesterov": True, "m": 4}
    (model, optimizer), data = setting(**options), batches(23)
    form = SparseForm(model, optimizer, ALL)
    for x, y in data[:7]:
        form.step(x, y, cross_entropy)
    form.write()
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    for x, y in data[7:]:
        form.step(x, y, cross_entropy)
    form.write()
    twin, other = setting(**options)
    again = SparseForm(twin, other, ALL)
    twin.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    for x, y in data[7:]:
        again.step(x, y, cross_entropy)
    again.write()
    assert_same((model, optimizer), (twin, other), tolerance=0.0)


@pytest.mark.parametrize("first", ["masks", "compact"])
def test_checkpoints_move_between_both_forms(first: str):
    options = {"momentum": 0.9, "m": 3}
    assert_checkpoints_move(lambda: setting(**options), lambda *own: SparseForm(*own, ALL), batches(17), first)


def test_a_lower_lam_within_a_cycle_is_what_it_is_by_masks():
    (model, optimizer), (twin, other) = setting(m=5, momentum=0.9), setting(m=5, momentum=0.9)
    form = SparseForm(twin, other, ALL)
    for number, (x, y) in enumerate(batches(20)):
        by_masks(model, optimizer, x, y)
        form.step(x, y, cross_entropy)
        if number in (2, 8, 9):
            for each in (optimizer, other):
                each.param_groups[0]["lam"] *= 0.5 if number < 9 else 3
            form.write()
            assert_same((model, optimizer), (twin, other))
    form.write()
    assert_same((model, optimizer), (twin, other))


def test_outputs_are_those_of_the_model():
    model, optimizer = setting(m=3)
    form = SparseForm(model, optimizer, ALL)
    for x, y in batches(5):
        form.step(x, y, cross_entropy)
    form.network.eval()
    assert not model.training
    with torch.no_grad():
        found = form.network(batches(1)[0][0])
        form.write()
        torch.testing.assert_close(found, model(batches(1)[0][0]))


def test_a_frozen_support_goes_on_without_a_regulariser():
    (model, optimizer), (twin, other) = setting(m=2, momentum=0.9), setting(m=2, momentum=0.9)
    form = SparseForm(twin, other, ALL)
    ends = [tb.schedulers.Consolidation(each, tb.schedulers.Density(0.1)) for each in (optimizer, other)]
    for number, (x, y) in enumerate(batches(14)):
        by_masks(model, optimizer, x, y)
        form.step(x, y, cross_entropy)
        if number == 6:
            form.write()
            for end in ends:
                end.freeze()
            form.freeze({id(each.param): each.mask for each in ends[1].frozen})
    assert all(place.compact is not None for place in form.places[:3])
    form.write()
    assert_same((model, optimizer), (twin, other))
    assert tb.density(twin) < 0.2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (tb.models.convnet(), r"module 'features.conv1' \(Conv2d\) is no part of a chain"),
        (nn.Sequential(nn.Linear(3, 3), nn.Softmax(1)), r"module '1' \(Softmax\) is no part"),
        (nn.Sequential(nn.Flatten(2), nn.Linear(3, 3)), r"module '0' \(Flatten\) flattens some"),
        (nn.Bilinear(3, 3, 3), r"module '' \(Bilinear\) is no part"),
        (nn.Sequential(*[nn.Linear(3, 3)] * 2), r"module '1' \(Linear\) is used twice"),
        (nn.Sequential(nn.Linear(3, 3).half()), r"module '0' \(Linear\) has torch.float16 weights"),
        (
            nn.Sequential(nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 3)),
            r"module '0' \(Linear\) has a weight",
        ),
    ],
)
def test_other_models_are_refused_by_the_name_of_the_module(model: nn.Module, message: str):
    optimizer = tb.MultilevelLinBreg(tb.param_groups(model, {nn.Module: tb.L1(0.1)}))
    with pytest.raises(Unsuited, match=message):
        SparseForm(model, optimizer, ALL)


def test_momentum_is_carried_over_by_position():
    room = torch.randn(6)
    before, none = room.clone(), torch.tensor([], dtype=torch.long)
    assert carried(none, torch.tensor([]), torch.tensor([2]), room).tolist() == [0.0]
    assert carried(torch.tensor([3]), torch.tensor([5.0]), torch.tensor([1, 3, 4]), room).tolist() == [0.0, 5.0, 0.0]
    assert carried(torch.tensor([1, 3]), torch.tensor([5.0, 6.0]), none, room).tolist() == []
    assert torch.equal(room, before)
