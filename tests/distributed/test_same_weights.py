"""One, two and four processes come to the same weights, with whole copies (DDP) and with parts (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import torch_bregman as tb
from torch_bregman.regularizers import Regularizer
from torch_bregman.train.reproducible import seed_epoch

from .processes import gloo, results

REGULARIZERS: dict[str, Regularizer] = {
    "l1": tb.L1(0.02),
    "rows": tb.GroupL2(0.1, view="rows"),
    "columns": tb.GroupL2(0.1, view="columns"),
    "blocks": tb.GroupL2(0.02, view="blocks(3, 7)"),
    "sparse-group": tb.SparseGroup(0.1, view="columns"),
    "nuclear": tb.Nuclear(0.05),
    "nuclear-columns": tb.Nuclear(0.05, view="columns", engine="gram"),
    "rank-cap": tb.DynamicRankNuclear(0.05, rank=3),
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "LinBreg": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "AdaBreg": {"lr": 0.02},
    "ProxSGD": {"lr": 0.1, "momentum": 0.9},
}
STEPS, SAMPLES = 4, 12


class Case(NamedTuple):
    optimizer: str
    regularizer: str
    sharded: bool
    double: bool

    def __str__(self) -> str:
        return f"{self.optimizer} {self.regularizer} {'FSDP' if self.sharded else 'DDP'} {64 if self.double else 32}"


def cases() -> Iterator[Case]:
    for sharded in (False, True):
        for name in REGULARIZERS if sharded else ("l1", "rows", "nuclear", "rank-cap"):
            yield Case("LinBreg", name, sharded, double=True)
        for name in ("l1", "columns", "nuclear"):
            yield Case("AdaBreg", name, sharded, double=True)
        for name in ("l1", "nuclear"):
            yield Case("LinBreg", name, sharded, double=False)
        yield Case("ProxSGD", "nuclear", sharded, double=True)


CASES = list(cases())


def problem(case: Case) -> tuple[nn.Module, Tensor, Tensor]:
    """A model with a convolution, more matrices than processes, and sizes that no number of processes divides."""
    seed_epoch(0, 1)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(45, 7), nn.Tanh(), nn.Linear(7, 6), nn.Linear(6, 3)
    )
    x, y = torch.randn(SAMPLES, 2, 5, 5), torch.randn(SAMPLES, 3)
    kind = torch.float64 if case.double else torch.float32
    model = model.to(kind)
    if isinstance(REGULARIZERS[case.regularizer], tb.Nuclear):
        tb.low_rank_(model, 2, seed=0)
    else:
        view = getattr(REGULARIZERS[case.regularizer], "view", "elements")
        tb.sparsify_(model, 0.5, seed=0, view="elements" if case.regularizer == "blocks" else view)
    return model, x.to(kind), y.to(kind)


def trained(case: Case) -> list[Tensor]:
    """The weights after some steps, in as many processes as have joined."""
    model, x, y = problem(case)
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if case.sharded and size > 1:
        from torch.distributed.fsdp import fully_shard

        for child in model:  # pyright: ignore[reportGeneralTypeIssues]
            if list(child.parameters()):
                fully_shard(child)
        fully_shard(model)
    regularizer = REGULARIZERS[case.regularizer]
    rules = (
        {"5.weight": regularizer, nn.Module: tb.L1(0.02)} if case.regularizer == "blocks" else {nn.Module: regularizer}
    )
    groups = tb.param_groups(model, rules)
    optimizer = getattr(tb, case.optimizer)(groups, **OPTIMIZERS[case.optimizer])
    network = model
    if size > 1 and not case.sharded:
        network = DistributedDataParallel(model)
        optimizer.share_thresholds()
    share = slice(rank * SAMPLES // size, (rank + 1) * SAMPLES // size)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (network(x[share]) - y[share]).square().mean().backward()
        optimizer.step()
    return [getattr(p, "full_tensor", lambda p=p: p)().detach().clone() for p in model.parameters()]


def all_trained() -> list[list[Tensor]]:
    return [trained(case) for case in CASES]


@pytest.fixture(scope="module")
def alone() -> list[list[Tensor]]:
    return all_trained()


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return results(all_trained, request.param, tmp_path_factory.mktemp(f"ranks{request.param}"))


@gloo
@pytest.mark.parametrize("number", range(len(CASES)), ids=map(str, CASES))
def test_the_weights_are_those_of_one_process(number: int, alone: list[list[Tensor]], together: list[Any]):
    tolerance = 1e-10 if CASES[number].double else 1e-5
    for rank in together:
        for ours, theirs in zip(rank[number], alone[number], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
    for a, b in zip(together[0][number], together[1][number], strict=True):
        assert torch.equal(a, b), "processes drift apart"


@pytest.mark.parametrize("number", range(len(CASES)), ids=map(str, CASES))
def test_the_regulariser_is_felt(number: int, alone: list[list[Tensor]]):
    """Some of what it holds back sleeps and some has moved, so that the comparison says something."""
    case = CASES[number]
    start = [p.detach() for p in problem(case)[0].parameters()]
    weights = [p for p in alone[number] if p.ndim > 1]
    assert any(not torch.equal(a, b) for a, b in zip(start, alone[number], strict=True))
    low = isinstance(REGULARIZERS[case.regularizer], tb.Nuclear)
    full = [
        torch.linalg.matrix_rank(w.flatten(1)) == min(w.flatten(1).shape) if low else bool(w.all()) for w in weights
    ]
    assert not all(full)
