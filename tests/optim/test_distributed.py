"""PyTorch's own engine for more than one process: DDP, sharded parameters, distributed checkpoints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.nn.parallel import DistributedDataParallel

import torch_bregman as tb
from torch_bregman.regularizers import Regularizer

from .zoo import REGULARIZERS, ROWS, Problem, Row, each, named, pairs, same, start

gloo = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this build of torch has no gloo backend"
)
alone = pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized")


def save(problem: Problem, optimizer: Any, options: StateDictOptions) -> dict[str, Any]:
    return {
        "model": get_model_state_dict(problem.model),
        "optim": get_optimizer_state_dict(problem.model, optimizer, options=options),
    }


@alone
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
@each()
def test_a_distributed_checkpoint_changes_no_bit(row: Row, flat: bool, used: bool, tmp_path: Path):
    """The helpers step once with lr = 0 to learn what the state holds: that must not move a weight."""
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    problem, optimizer = start(row, tb.L1(0.03))
    problem.step(optimizer, 3)
    optimizer.zero_grad()
    dcp.save(save(problem, optimizer, options), checkpoint_id=tmp_path)
    problem.step(optimizer, 3)

    other, resumed = start(row, tb.L1(0.03), seed=7)
    other.x, other.y = problem.x, problem.y
    if used:
        other.step(resumed, 2)
        resumed.zero_grad()
    held = save(other, resumed, options)
    dcp.load(held, checkpoint_id=tmp_path)
    set_model_state_dict(other.model, held["model"])
    set_optimizer_state_dict(other.model, resumed, held["optim"], options=options)
    other.step(resumed, 3)
    assert same(problem.values(), other.values())


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
@pairs(rows=named("linbreg-momentum", "adabreg"))
def test_state_by_parameter_name_for_every_regulariser(row: Row, regularizer: Regularizer, flat: bool):
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    problem, optimizer = start(row, regularizer)
    problem.step(optimizer, 3)
    optimizer.zero_grad()
    state = save(problem, optimizer, options)
    other, resumed = start(row, regularizer, seed=7)
    other.x, other.y = problem.x, problem.y
    set_model_state_dict(other.model, state["model"])
    set_optimizer_state_dict(other.model, resumed, state["optim"], options=options)
    problem.step(optimizer, 2)
    other.step(resumed, 2)
    assert same(problem.values(), other.values())


def test_a_distributed_checkpoint_of_another_regulariser_is_refused():
    row = named("linbreg")[0]
    problem, optimizer = start(row, tb.L1(0.03))
    problem.step(optimizer)
    optimizer.zero_grad()
    state = get_optimizer_state_dict(problem.model, optimizer)
    other, resumed = start(row, tb.GroupL2(0.03))
    with pytest.raises(ValueError, match="was trained with"):
        set_optimizer_state_dict(other.model, resumed, state)


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@gloo
@each(named("linbreg-momentum", "adabreg", "proxsgd-nesterov", "pgd", "bregman-adam"))
def test_wrapping_for_ddp_in_mid_run_changes_nothing(row: Row, one_process: None):
    """DDP writes the broadcast weights into the parameters: the same values are no change, and nothing warns."""
    (problem, optimizer), (plain, other) = start(row, tb.L1(0.03)), start(row, tb.L1(0.03))
    problem.step(optimizer, 2)
    problem.model = DistributedDataParallel(problem.model)
    problem.step(optimizer, 2)
    plain.step(other, 4)
    assert same(problem.values(), plain.values())


def two_ranks(worker: Any, folder: Path) -> list[Any]:
    mp.spawn(_join, args=(worker, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def _join(rank: int, worker: Any, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if os.path.exists("/sys/class/net/lo") else "lo0")  # noqa: PTH110
    store = dist.FileStore(str(Path(folder) / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.save(worker(rank), Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # threads of the backend may outlive it, and abort an orderly end


def _ddp_worker(rank: int) -> list[list[torch.Tensor]]:
    found = []
    for row in named("linbreg-momentum", "adabreg"):
        problem, optimizer = start(row, tb.L1(0.03), seed=10 * rank)
        problem.model = DistributedDataParallel(problem.model)
        whole = Problem(0)
        problem.x, problem.y = whole.x[8 * rank : 8 * rank + 8], whole.y[8 * rank : 8 * rank + 8]
        problem.step(optimizer, 3)
        found.append(problem.values())
    return found


@gloo
@pytest.mark.slow
def test_ranks_that_start_apart_train_as_one(tmp_path: Path):
    """The optimizer is built before DDP overwrites rank 1: v starts from the weights broadcast, not from its own."""
    ranks = two_ranks(_ddp_worker, tmp_path)
    for number, row in enumerate(named("linbreg-momentum", "adabreg")):
        single, optimizer = start(row, tb.L1(0.03), seed=0)
        single.step(optimizer, 3)
        assert same(ranks[0][number], ranks[1][number])
        for a, b in zip(ranks[0][number], single.values(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


SHARDED_ROWS = [row for row in ROWS if row.name not in ("bregman-adafactor", "bregman-rprop")]  # torch's own limits
SHARDED = [reg for reg in REGULARIZERS if reg.deterministic and not isinstance(reg, tb.Nuclear)]


def _sharded_worker(rank: int) -> list[list[torch.Tensor]]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh, found = init_device_mesh("cpu", (2,)), []
    for row in named("linbreg-momentum", "adabreg", "proxsgd-nesterov"):
        for regularizer in SHARDED:
            problem = Problem(0, nonnegative=isinstance(regularizer, tb.NonNegativeL1))
            fully_shard(problem.model, mesh=mesh)
            optimizer = row.build(problem.groups(regularizer))
            problem.step(optimizer, 3)
            found.append([param.full_tensor() for param in problem.values()])  # pyright: ignore[reportAttributeAccessIssue]
    return found


@gloo
@pytest.mark.slow
def test_sharded_parameters_take_the_same_course(tmp_path: Path):
    """Groups that run across the shards included."""
    ranks = two_ranks(_sharded_worker, tmp_path)
    number = 0
    for row in named("linbreg-momentum", "adabreg", "proxsgd-nesterov"):
        for regularizer in SHARDED:
            single, optimizer = start(row, regularizer)
            single.step(optimizer, 3)
            for a, b in zip(ranks[0][number], single.values(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=f"{row.name} {regularizer}")
            number += 1
