"""Thresholding the singular values of weights that many processes hold, whole or in parts: each does its share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from torch_bregman.distributed.sharded import collect, is_sharded
from torch_bregman.distributed.spreading import decomposition_cost, exchanged, owners
from torch_bregman.optim.low_rank import State, find, write
from torch_bregman.regularizers import Nuclear

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Processes(NamedTuple):
    """Those that share work; None for all there are."""

    group: ProcessGroup | None

    @classmethod
    def of(cls, group: ProcessGroup | None) -> Processes:
        """Return the processes of a group.

        Raises:
            ValueError: where this process belongs to none.
        """
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError("there is one process only: call torch.distributed.init_process_group first")
        if dist.get_rank(group) < 0:
            raise ValueError("this process is not in the group given: every process passes one it belongs to")
        return cls(group)


class Call(NamedTuple):
    """The arguments of `threshold_into`."""

    regularizer: Nuclear
    xs: list[Tensor]
    threshold: float
    delta: float
    outs: list[Tensor]
    states: list[State]


class Task(NamedTuple):
    """One weight of a call."""

    call: Call
    place: int

    @property
    def x(self) -> Tensor:
        """What is thresholded."""
        return self.call.xs[self.place]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the weight as a matrix."""
        rows, columns = self.call.regularizer.shape(self.x)
        return rows, columns


def threshold_shared(calls: list[Call], processes: Processes | None) -> None:
    """Do what `threshold_into` does, for many calls, each matrix by one process.

    Args:
        calls: the same on every process, in the same order.
        processes: that hold the same copies; DTensors are dealt out over the processes of their mesh.
    """
    alike: dict[Any, list[Task]] = {}
    for call in calls:
        for place, x in enumerate(call.xs):
            mesh = x.device_mesh if is_sharded(x) else None  # pyright: ignore[reportAttributeAccessIssue]
            alike.setdefault((mesh, x.dtype, x.device), []).append(Task(call, place))
    for (mesh, _, _), tasks in alike.items():
        if mesh is None and processes is None:
            _threshold(tasks, dict(enumerate(task.x for task in tasks)))
        elif mesh is None:
            _share(tasks, processes.group if processes else None, cut=False)
        else:
            _share(tasks, _group_of(mesh), cut=True)


def _group_of(mesh: Any) -> ProcessGroup | None:
    return mesh.get_group() if mesh.ndim == 1 else mesh._flatten().get_group()


def _share(tasks: list[Task], group: ProcessGroup | None, *, cut: bool) -> None:
    shapes = [task.shape for task in tasks]
    owner = owners(list(map(decomposition_cost, shapes)), dist.get_world_size(group))
    whole = collect([task.x for task in tasks], owner, group) if cut else dict(enumerate(task.x for task in tasks))  # pyright: ignore[reportArgumentType]

    def own(places: list[int]) -> list[tuple[Tensor, Tensor]]:
        return _found([tasks[place] for place in places], [whole[place] for place in places])

    like = torch.empty(0, dtype=torch.promote_types(tasks[0].x.dtype, torch.float32), device=tasks[0].x.device)
    found = exchanged(shapes, owner, own, like, group)
    for task, each, (left, right) in zip(tasks, owner, found, strict=True):
        _keep(task, left, right)
        if each != dist.get_rank(group):
            task.call.states[task.place].pop("engine", None)  # the owner's alone goes on


def collect_engines(regularizers: list[Nuclear], states: list[State], group: ProcessGroup | None) -> None:
    """Give every process all engines, so that any of them can write the whole state.

    Args:
        regularizers: of the weights.
        states: of the weights, in the same order on every process; gain the engines that others have.
        group: of processes.
    """
    own = {number: state["engine"].state() for number, state in enumerate(states) if "engine" in state}
    found: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, own, group=group)
    for number, memory in {number: memory for each in found for number, memory in each.items()}.items():
        if "engine" not in states[number]:
            states[number]["engine"] = regularizers[number].new_engine()
            states[number]["engine"].load_state(memory)


def _threshold(tasks: list[Task], whole: dict[int, Tensor]) -> None:
    for task, (left, right) in zip(tasks, _found(tasks, list(whole.values())), strict=True):
        _keep(task, left, right)


def _found(tasks: list[Task], xs: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return the factors of some weights, those of one regulariser together."""
    found: dict[int, tuple[Tensor, Tensor]] = {}
    by_kind: dict[Any, list[int]] = {}
    for number, task in enumerate(tasks):
        by_kind.setdefault((id(task.call.regularizer), task.call.threshold), []).append(number)
    for (_, threshold), members in by_kind.items():
        regularizer = tasks[members[0]].call.regularizer
        matrices = [regularizer.matrix(xs[number]) for number in members]
        states = [tasks[number].call.states[tasks[number].place] for number in members]
        found.update(zip(members, find(regularizer, matrices, threshold, states), strict=True))
    return [found[number] for number in range(len(tasks))]


def _keep(task: Task, left: Tensor, right: Tensor) -> None:
    call, place = task
    write(call.regularizer, left, right, call.delta, call.outs[place], call.states[place])
