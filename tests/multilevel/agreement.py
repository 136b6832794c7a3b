"""What the tests of compact training share: a step by masks, and whether two trainings are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def by_masks(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Tensor:
    optimizer.zero_grad()
    loss = cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


def assert_checkpoints_move(
    setting: Callable[[], tuple[nn.Module, Any]],
    form_of: Callable[[nn.Module, Any], Any],
    data: list[tuple[Tensor, Tensor]],
    first: str,
    buffers: bool = True,
) -> None:
    """Train by masks throughout, and in one form up to a checkpoint, in the other from there on; compare."""
    straight, begun, loaded = setting(), setting(), setting()
    for x, y in data:
        by_masks(*straight, x, y)
    form = form_of(*begun)
    for x, y in data[:6]:
        by_masks(*begun, x, y) if first == "masks" else form.step(x, y, cross_entropy)
    form.write()
    for own, saved in zip(loaded, begun, strict=True):
        own.load_state_dict(saved.state_dict())
    again = form_of(*loaded)
    for x, y in data[6:]:
        again.step(x, y, cross_entropy) if first == "masks" else by_masks(*loaded, x, y)
    again.write()
    assert_same(straight, loaded, buffers=buffers)


def assert_same(
    one: tuple[nn.Module, Any], other: tuple[nn.Module, Any], tolerance: float = 1e-10, buffers: bool = True
) -> None:
    """Compare weights and states of the optimizers; without `buffers` not what a normalisation has seen."""
    left, right = (each[0].state_dict() if buffers else dict(each[0].named_parameters()) for each in (one, other))
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=0, atol=tolerance, msg=name)
    states = [each[1].state_dict()["state"] for each in (one, other)]
    assert states[0].keys() == states[1].keys()
    for index, state in states[0].items():
        assert state.keys() == states[1][index].keys()
        for key, value in state.items():
            torch.testing.assert_close(value, states[1][index][key], rtol=0, atol=tolerance, msg=f"{index} {key}")
