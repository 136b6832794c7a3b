"""Dual matrices at consecutive steps of real training with the nuclear norm, recorded for `svt.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import torch_bregman as tb

RANK_AT_START = 5


@dataclass(frozen=True)
class Case:
    """One sequence of dual matrices, and the training it is recorded from.

    Args:
        name: of the sequence: its shape and what is special.
        lam: λ of the nuclear norm, the threshold t.
        layers: names of the weights whose duals are recorded; several are stacked into a batch.
        model: makes the network.
        lr: τ of the training.
        warm_up: training steps before the record starts.
        steps: matrices recorded.
    """

    name: str
    lam: float
    layers: tuple[str, ...]
    model: Callable[[], nn.Module] = field(repr=False)
    lr: float = 0.1
    warm_up: int = 60
    steps: int = 40


def _mlp(*sizes: int) -> Callable[[], nn.Module]:
    return lambda: tb.models.mlp(sizes)


CASES = (
    Case("200×784", 0.5, ("fc1.weight",), _mlp(784, 200, 80, 10), warm_up=300),
    Case("64×1600 conv", 0.5, ("features.conv2.weight",), tb.models.convnet),
    Case("512×512", 0.5, ("fc2.weight",), _mlp(784, 512, 512, 10), warm_up=100),
    Case("1024×1024", 0.5, ("fc2.weight",), _mlp(784, 1024, 1024, 10), warm_up=40),
    Case("4096×1024", 0.5, ("fc2.weight",), _mlp(784, 1024, 4096, 10), lr=0.05, warm_up=15, steps=15),
    Case(
        "12×512×512",
        0.5,
        tuple(f"fc{depth}.weight" for depth in range(2, 14)),
        _mlp(784, *[512] * 13, 10),
        lr=0.02,
        warm_up=40,
        steps=15,
    ),
    Case("512×784, t = 0.05", 0.05, ("fc1.weight",), _mlp(784, 512, 512, 10), lr=0.2, warm_up=250),
)


def record(case: Case, data: tb.data.DataSet, seed: int = 0) -> list[Tensor]:
    """Train by LinBreg in batches of 128 and return the dual variable before every one of `steps` steps.

    All hidden weights but the recorded ones' first layer start at rank 5 and carry the nuclear norm; the prox in
    training is the exact one, so that what is recorded does not depend on any engine that is measured.
    """
    torch.manual_seed(seed)
    model = case.model()
    regularized = dict.fromkeys(case.layers, "rows")
    tb.low_rank_(model, RANK_AT_START, seed=seed, view=regularized)
    groups = tb.param_groups(model, {name: tb.Nuclear(case.lam, engine="gram") for name in case.layers})
    optimizer = tb.LinBreg(groups, lr=case.lr)
    weights = [model.get_parameter(name) for name in case.layers]
    sequence: list[Tensor] = []
    for number, (images, labels) in enumerate(_batches(data, seed), start=1):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if number > case.warm_up:
            sequence.append(_stacked([optimizer.state[weight]["subgrad"] for weight in weights]))
        if len(sequence) == case.steps:
            break
    return sequence


def _stacked(duals: list[Tensor]) -> Tensor:
    matrices = [dual.flatten(1) for dual in duals]
    return torch.stack(matrices) if len(matrices) > 1 else matrices[0].clone()


def _batches(data: tb.data.DataSet, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    images = (data.train.images.float() / 255 - data.mean[0]) / data.std[0]
    batches = tb.data.Batches(images, data.train.labels, 128)
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from batches.epoch(generator)
