"""Units in compact form do what the masks do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

import torch_bregman as tb
from tests.multilevel.agreement import assert_checkpoints_move, assert_same, by_masks
from torch_bregman.multilevel import UnitForm, Unsuited, compact_form

EXAMPLE = torch.zeros(2, 1, 8, 8, dtype=torch.float64)


class Residual(nn.Module):
    """Two convolutions whose channels are one by a sum, and read by a third and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1, bias=False)
        self.norm, self.three, self.last = nn.BatchNorm2d(12), nn.Linear(12 * 16, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = relu(self.one(x))
        h = nn.functional.max_pool2d(relu(self.norm(self.two(h)) + h), 2)
        return self.last(relu(self.three(h.flatten(1))))


def convolutional() -> nn.Module:
    features = nn.Sequential(nn.Conv2d(1, 20, 3), nn.BatchNorm2d(20), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 12, 2))
    return nn.Sequential(features, nn.ReLU(), nn.Flatten(), nn.Linear(48, 18), nn.ReLU(), nn.Linear(18, 4))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "perceptron": lambda: tb.models.mlp([64, 40, 25, 4]),
    "convolutions": convolutional,
    "residual sum": Residual,
}
VARIANTS = [
    {"momentum": 0.9, "nesterov": True, "m": 3, "lr": 0.2},
    {"momentum": 0.8, "dampening": 0.5, "m": 2, "lr": 0.3},
    {"m": 4, "lr": 0.5},
]


def setting(name: str, lam: float = 0.1, **options: Any) -> tuple[nn.Module, tb.MultilevelLinBreg]:
    torch.manual_seed(0)
    model = tb.start_units_(MODELS[name]().double(), EXAMPLE, 0.4)
    rules = tb.outgoing_groups(model, EXAMPLE, lam=lam)
    return model, tb.MultilevelLinBreg(tb.param_groups(model, rules), **options)


def batches(count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    rng = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(16, 1, 8, 8, generator=rng).double(), torch.randint(0, 4, (16,), generator=rng))
        for _ in range(count)
    ]


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("name", MODELS)
def test_it_agrees_with_the_masks_step_by_step(name: str, options: dict[str, Any]):
    (model, optimizer), (twin, other) = setting(name, **options), setting(name, **options)
    form, sizes = UnitForm(twin, other, EXAMPLE, round_to=8), []
    for number, (x, y) in enumerate(batches(26)):
        if number in (9, 15):  # as a controller does: units fall asleep with their momentum, or wake
            for group in [*optimizer.param_groups, *other.param_groups]:
                group["lam"] *= 3 if number == 9 else 0.01
        expected = by_masks(model, optimizer, x, y)
        found, _ = form.step(x, y, cross_entropy)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
        sizes.append(sum(form.awake().values()))
        if number % 5 == 4:
            form.write()
            assert_same((model, optimizer), (twin, other), buffers=False)
    form.write()
    assert_same((model, optimizer), (twin, other), buffers=False)
    assert min(sizes) < sizes[0] < max(sizes) <= sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert other.mirror_residual() < 1e-12


def test_a_run_resumed_within_a_cycle_ends_bit_for_bit_the_same():
    options = VARIANTS[0]
    (model, optimizer), data = setting("convolutions", **options), batches(19)
    form = UnitForm(model, optimizer, EXAMPLE)
    for x, y in data[:6]:
        form.step(x, y, cross_entropy)
    form.write()
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    for x, y in data[6:]:
        form.step(x, y, cross_entropy)
    form.write()
    twin, other = setting("convolutions", **options)
    again = UnitForm(twin, other, EXAMPLE)
    twin.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    for x, y in data[6:]:
        again.step(x, y, cross_entropy)
    again.write()
    assert_same((model, optimizer), (twin, other), tolerance=0.0, buffers=False)
    for left, right in zip(model.buffers(), twin.buffers(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("first", ["masks", "compact"])
@pytest.mark.parametrize("name", MODELS)
def test_checkpoints_move_between_both_forms(name: str, first: str):
    assert_checkpoints_move(
        lambda: setting(name, **VARIANTS[0]),
        lambda *own: UnitForm(*own, EXAMPLE),
        batches(17),
        first,
        buffers=False,
    )


def test_filters_come_in_multiples():
    model, optimizer = setting("convolutions", m=5, lr=0.0)
    form = UnitForm(model, optimizer, EXAMPLE, round_to=4)
    assert form.awake()["0.0.weight"] == 8 * 9
    wide = UnitForm(*setting("convolutions", m=5, lr=0.0), EXAMPLE, round_to=16)
    assert wide.awake()["0.0.weight"] == 16 * 9


def test_outputs_are_those_of_the_model():
    model, optimizer = setting("convolutions", **VARIANTS[0])
    form, x = UnitForm(model, optimizer, EXAMPLE), batches(1)[0][0]
    for each in batches(6):
        form.step(*each, cross_entropy)
    form.network.eval()
    with torch.no_grad():
        found = form.network(x)
        form.write()
        torch.testing.assert_close(found, model(x))


@pytest.mark.parametrize("name", ["perceptron", "convolutions"])
def test_a_frozen_support_goes_on_without_a_regulariser(name: str):
    options = {"m": 2, "momentum": 0.9, "lr": 0.1}
    (model, optimizer), (twin, other) = setting(name, **options), setting(name, **options)
    form = UnitForm(twin, other, EXAMPLE)
    ends = [tb.schedulers.Consolidation(each, tb.schedulers.Units(0.3), scope="group") for each in (optimizer, other)]
    for number, (x, y) in enumerate(batches(12)):
        by_masks(model, optimizer, x, y)
        form.step(x, y, cross_entropy)
        if number == 6:
            form.write()
            for end in ends:
                end.freeze()
            form.freeze({id(each.param): each.mask for each in ends[1].frozen})
    form.write()
    assert_same((model, optimizer), (twin, other), buffers=False)


def test_float32_and_shared_readers_learn():
    torch.manual_seed(0)
    model = tb.start_units_(Residual(), EXAMPLE.float(), 0.5)
    rules = tb.outgoing_groups(model, EXAMPLE.float(), lam=0.05)
    assert any(isinstance(rule, tb.UnitL2) for rule in rules.values())
    optimizer = tb.MultilevelLinBreg(tb.param_groups(model, rules), lr=0.05, momentum=0.9, m=5)
    form = compact_form(model, optimizer, EXAMPLE.float())
    x, y = batches(1)[0]
    losses = [float(form.step(x.float(), y, cross_entropy)[0]) for _ in range(60)]
    form.write()
    assert losses[-1] < 0.2 * losses[0]
    assert optimizer.mirror_residual() < 1e-5


class Fixed(nn.Module):
    """Counts on its 6 units."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(64, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x.flatten(1))
        return self.two(relu(h) if h.shape[1] == 6 else h[:, :7].index_select(1, torch.arange(6)))


class Own(nn.Linear):
    """A layer of a class of its own, whose gradient is left to autograd."""


class FixedOwn(Fixed):
    """Counts on its units too."""

    def __init__(self) -> None:
        super().__init__()
        self.two = Own(6, 4)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2)),
            {},
            r"module '1' \(Conv2d\) has groups",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), {}, "no trainable units"),
        (Fixed(), {"on": "two.weight"}, "Fixed does not run without half of the units"),
        (FixedOwn(), {"on": "two.weight"}, "FixedOwn does not run without half of the units"),
        (tb.models.mlp([64, 8, 4]), {"delta": 2.0}, "delta is 2"),
        (tb.models.mlp([64, 8, 4]), {"weight_decay": 0.1}, "weight_decay is 0.1"),
        (
            tb.models.mlp([64, 8, 4]),
            {"view": "rows"},
            "the regularizer group_l2 of fc1.weight is no norm",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused_by_name(model: nn.Module, options: dict[str, Any], message: str):
    rule = tb.GroupL2(0.1, view=options.get("view", "columns"))
    rest = {key: value for key, value in options.items() if key not in ("view", "on")}
    first = next(f"{name}.weight" for name, each in model.named_modules() if isinstance(each, nn.Linear | nn.Conv2d))
    groups = tb.param_groups(model.double(), {options.get("on", first): rule, nn.Module: tb.NoRegularizer()})
    with pytest.raises(Unsuited, match=message):
        UnitForm(model, tb.MultilevelLinBreg(groups, lr=0.1, **rest), EXAMPLE)


@pytest.mark.parametrize("name", ["convolutions", "residual sum"])
def test_channels_stay_beside_each_other_in_the_small_model(name: str):
    (model, optimizer), (twin, other) = setting(name, m=3, lr=0.2), setting(name, m=3, lr=0.2)
    model, twin = (each.to(memory_format=torch.channels_last) for each in (model, twin))  # pyright: ignore
    form = UnitForm(twin, other, EXAMPLE, round_to=8)
    for x, y in batches(8):
        expected = by_masks(model, optimizer, x, y)
        found, _ = form.step(x, y, cross_entropy)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    form.awake()
    weights = [p for p in form._small.parameters() if p.ndim == 4]
    assert weights
    for weight in weights:
        assert weight.stride(1) == 1, weight.shape
        assert weight.is_contiguous(memory_format=torch.channels_last)
    form.write()
    assert all(p.stride(1) == 1 for p in twin.parameters() if p.ndim == 4)
    assert_same((model, optimizer), (twin, other), buffers=False)
