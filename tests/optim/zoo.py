"""The optimizers and regularisers every contract test runs on: a new one is one row here."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch_bregman as tb
from torch_bregman.optim import MirrorOptimizer, RegularizedOptimizer
from torch_bregman.regularizers import Regularizer


@dataclass(frozen=True)
class Row:
    """One way to build an optimizer: `kind(params, **options)`, or `Bregman(kind(params, **options))`."""

    name: str
    kind: type[torch.optim.Optimizer]
    options: dict[str, Any] = field(default_factory=dict)
    implementations: tuple[str, ...] = ()

    @property
    def wrapped(self) -> bool:
        return not issubclass(self.kind, RegularizedOptimizer)

    @property
    def mirror(self) -> bool:
        return self.wrapped or issubclass(self.kind, MirrorOptimizer)

    def build(
        self, params: Iterable[Any], regularizer: Regularizer | None = None, **options: Any
    ) -> RegularizedOptimizer:
        options = {**self.options, **options}
        if not self.wrapped:
            return self.kind(params, regularizer=regularizer, **options)  # pyright: ignore[reportReturnType]
        delta = options.pop("delta", 1.0)
        return tb.Bregman(self.kind(params, **options), regularizer=regularizer, delta=delta)


_ALL = ("loop", "foreach", "fused")
_LOOPS = ("loop", "foreach")

ROWS = [
    Row("linbreg", tb.LinBreg, {"lr": 0.1}, _ALL),
    Row("linbreg-momentum", tb.LinBreg, {"lr": 0.05, "momentum": 0.9}, _ALL),
    Row("linbreg-damped", tb.LinBreg, {"lr": 0.1, "momentum": 0.9, "dampening": 0.9}, _ALL),
    Row("linbreg-nesterov", tb.LinBreg, {"lr": 0.05, "momentum": 0.9, "nesterov": True}, _ALL),
    Row("linbreg-accelerated", tb.LinBreg, {"lr": 0.1, "accelerated": True}, ("loop", "foreach")),
    Row("linbreg-delta-decay", tb.LinBreg, {"lr": 0.05, "momentum": 0.5, "delta": 2.0, "weight_decay": 0.1}, _ALL),
    Row("multilevel", tb.MultilevelLinBreg, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "m": 2}, _ALL),
    Row("adabreg", tb.AdaBreg, {"lr": 0.02}, _ALL),
    Row("adabreg-amsgrad-decay", tb.AdaBreg, {"lr": 0.02, "amsgrad": True, "delta": 0.5, "weight_decay": 0.1}, _ALL),
    Row("proxsgd", tb.ProxSGD, {"lr": 0.1}, _ALL),
    Row(
        "proxsgd-momentum-decay", tb.ProxSGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1}, _ALL
    ),
    Row("proxsgd-nesterov", tb.ProxSGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}, _ALL),
    Row("pgd", tb.PGD, {"lr": 4.0}),
    Row("pgd-plain", tb.PGD, {"lr": 0.1, "accelerated": False, "backtracking": 1.0}),
    Row("bregman-sgd", torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, _ALL),
    Row("bregman-adam", torch.optim.Adam, {"lr": 0.02, "delta": 2.0}, _ALL),
    Row("bregman-adamw", torch.optim.AdamW, {"lr": 0.02, "amsgrad": True}, _ALL),
    Row("bregman-rmsprop", torch.optim.RMSprop, {"lr": 0.02, "momentum": 0.5, "centered": True}, _LOOPS),
    Row("bregman-adagrad", torch.optim.Adagrad, {"lr": 0.05, "initial_accumulator_value": 0.1}, _ALL),
    Row("bregman-nadam", torch.optim.NAdam, {"lr": 0.02}, _LOOPS),
    Row("bregman-radam", torch.optim.RAdam, {"lr": 0.1}, _LOOPS),
    Row("bregman-adamax", torch.optim.Adamax, {"lr": 0.02}, _LOOPS),
    Row("bregman-adadelta", torch.optim.Adadelta, {"lr": 2.0}, _LOOPS),
    Row("bregman-adafactor", torch.optim.Adafactor, {"lr": 0.05}, _LOOPS),
    Row("bregman-rprop", torch.optim.Rprop, {"lr": 0.01}, _LOOPS),
]
REGULARIZERS = [
    tb.L1(0.03),
    tb.NonNegativeL1(0.03),
    tb.ElasticNet(0.06, l1_ratio=0.5),
    tb.GroupL2(0.03, view="rows"),
    tb.GroupL2(0.03, view="blocks(2, 2)", weighted=False),
    tb.SparseGroup(0.04, view="columns"),
    tb.Nuclear(0.1),
    tb.Nuclear(0.02, view="columns", engine="tracked", weighted=True),
    tb.DynamicRankNuclear(0.1, rank=4),
    tb.NoRegularizer(),
    tb.SoftBernoulli(0.3, seed=3),
]
OPTIONS = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


def label(regularizer: Regularizer) -> str:
    """Return a short name for the reports of pytest."""
    details = [str(getattr(regularizer, key, "")) for key in ("view", "engine")]
    return ".".join([regularizer.name, *filter(None, details)])


def pairs(rows: Iterable[Row] = ROWS, regularizers: Iterable[Regularizer] = REGULARIZERS) -> Any:
    """Return the pytest parameters of all pairs that exist."""
    found = [
        pytest.param(row, regularizer, id=f"{row.name}-{label(regularizer)}")
        for row in rows
        for regularizer in regularizers
        if go_together(row, regularizer)
    ]
    return pytest.mark.parametrize(("row", "regularizer"), found)


def go_together(row: Row, regularizer: Regularizer) -> bool:
    """Return whether a pair exists: PGD needs a penalty it can evaluate, cycles need entries or groups that sleep."""
    if row.kind is tb.MultilevelLinBreg and isinstance(regularizer, tb.Nuclear):
        return False
    return regularizer.deterministic or row.kind not in (tb.PGD, tb.MultilevelLinBreg)


def each(rows: Iterable[Row] = ROWS, where: Callable[[Row], bool] = lambda row: True) -> Any:
    """Return the pytest parameters of all rows for which `where` holds."""
    return pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in rows if where(row)])


def named(*names: str) -> list[Row]:
    """Return the rows of these names."""
    return [row for row in ROWS if row.name in names]


class Problem:
    """A small regression: a model, its data, and steps of an optimizer on it.

    The weights carry the regulariser, the biases none. Everything follows from the seed.
    """

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float32, *, nonnegative: bool = False) -> None:
        self.model = self.fresh_model(seed, dtype, nonnegative=nonnegative)
        draw = torch.Generator().manual_seed(seed + 1)
        self.x = torch.randn(16, 6, generator=draw).to(dtype)
        self.y = torch.randn(16, 2, generator=draw).to(dtype)

    @staticmethod
    def fresh_model(seed: int, dtype: torch.dtype = torch.float32, *, nonnegative: bool = False) -> nn.Module:
        draw = torch.Generator().manual_seed(seed)
        model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)
        with torch.no_grad():
            for param in model.parameters():
                param.copy_(torch.randn(param.shape, generator=draw) * 0.4)
                if nonnegative:
                    param.abs_()
        return model

    def groups(self, regularizer: Regularizer | None) -> list[dict[str, Any]]:
        weights = [param for param in self.model.parameters() if param.ndim > 1]
        biases = [param for param in self.model.parameters() if param.ndim == 1]
        first = {"params": weights, **({} if regularizer is None else {"regularizer": regularizer})}
        return [first, {"params": biases}]

    def params(self) -> list[Tensor]:
        return list(self.model.parameters())

    def values(self) -> list[Tensor]:
        return [param.detach().clone() for param in self.model.parameters()]

    def loss(self) -> Tensor:
        return (self.model(self.x) - self.y).square().mean()

    def step(self, optimizer: torch.optim.Optimizer, times: int = 1) -> None:
        def closure() -> float:
            optimizer.zero_grad()
            loss = self.loss()
            loss.backward()
            return loss  # pyright: ignore[reportReturnType]

        for _ in range(times):
            optimizer.step(closure)


def start(row: Row, regularizer: Regularizer, seed: int = 0, **options: Any) -> tuple[Problem, RegularizedOptimizer]:
    """Return a problem and the optimizer of a row on it."""
    problem = Problem(seed, nonnegative=isinstance(regularizer, tb.NonNegativeL1))
    return problem, row.build(problem.groups(copy.deepcopy(regularizer)), **options)


def same(left: Iterable[Tensor], right: Iterable[Tensor]) -> bool:
    """Return whether two lists of tensors are equal bit by bit, nan to nan."""
    return all(torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)) for a, b in zip(left, right, strict=True))


def packed(optimizer: torch.optim.Optimizer) -> list[tuple[str, Any]]:
    """Return all that the state of an optimizer holds, as a flat list of names and values."""
    return _flat("", optimizer.state_dict()["state"])


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(name, value)]
    return [item for key in sorted(value) for item in _flat(f"{name}.{key}".lstrip("."), value[key])]
