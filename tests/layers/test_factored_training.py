"""Factored training is LinBreg with the nuclear norm, step by step; pass-free training stays close to it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_bregman as tb
from torch_bregman.linalg import GramEngine


def start(sizes, dtype, rank=4):
    return tb.low_rank_(tb.models.mlp(sizes).to(dtype), rank=rank)


def dense_training(sizes, dtype, lam, delta, lr, engine):
    net = start(sizes, dtype)
    weights = [net.fc1.weight, net.fc2.weight]
    rest = [p for p in net.parameters() if all(p is not w for w in weights)]
    groups = [{"params": rest}, {"params": weights, "regularizer": tb.Nuclear(lam, engine=engine), "delta": delta}]
    return net, tb.LinBreg(groups, lr=lr)


def factored_training(sizes, dtype, lam, delta, lr, **options):
    net = tb.layers.to_factored(start(sizes, dtype), lam, delta=delta, **options)
    return net, tb.FactoredLinBreg(net, lr=lr)


def digits(size, dtype):
    data = tb.data.load("sample")
    x, y = tb.data.normalize(data.train, data.mean, data.std, dtype=dtype)
    return tb.data.Batches(x, y, size, drop_last=True)


def train(nets, batches, steps):
    """Train several models side by side, and yield after every step."""
    rng, done = torch.Generator().manual_seed(0), 0
    while True:
        for x, y in batches.epoch(rng):
            for net, optimizer in nets:
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()
            yield
            done += 1
            if done == steps:
                return


def gap(one, two):
    return max(float((a - b).norm() / b.norm()) for a, b in zip(one, two, strict=True))


def parameters(net):
    layers = (net.fc1, net.fc2, net.fc3)
    return [layer.weight.detach() for layer in layers] + [layer.bias.detach() for layer in layers]


@pytest.mark.parametrize("delta", [1.0, 0.5])
def test_in_float64_it_is_linbreg_step_by_step(delta):
    numbers = ([784, 80, 70, 10], torch.float64, 0.1, delta, 0.01)
    dense = dense_training(*numbers, engine="gram")
    factored = factored_training(*numbers, tolerance=1e-11)
    ranks = []
    for _ in train([dense, factored], digits(64, torch.float64), 25):
        assert gap(parameters(factored[0]), parameters(dense[0])) < 1e-9
        ranks.append(factored[0].fc1.rank)
    assert ranks[-1] > ranks[0] >= 4
    dual = dense[1].state[dense[0].fc1.weight]["subgrad"]
    torch.testing.assert_close(factored[0].fc1.subgrad, dual, rtol=1e-9, atol=1e-12)


def test_in_float32_it_is_linbreg_to_the_tolerance_of_the_engine():
    numbers = ([784, 120, 110, 10], torch.float32, 0.1, 1.0, 0.01)
    dense = dense_training(*numbers, engine="gram")
    factored = factored_training(*numbers)
    for _ in train([dense, factored], digits(64, torch.float32), 25):
        assert gap(parameters(factored[0]), parameters(dense[0])) < 5e-3


@pytest.mark.parametrize("lr", [0.02, 0.1])
def test_pass_free_thresholding_is_exact_to_2e3_in_training(lr):
    net, optimizer = factored_training([784, 200, 150, 10], torch.float32, 0.5, 1.0, lr, refresh=10)
    with torch.no_grad():
        for layer in (net.fc1, net.fc2):  # the spectral norm of a dense start: steps of 0.1 are stable
            layer.set_weight_(0.4 * layer.weight)
    sketched = []
    for _ in train([(net, optimizer)], digits(128, torch.float32), 80):
        for layer in (net.fc1, net.fc2):
            exact = GramEngine()(layer.subgrad.double(), 0.5).matrix()
            assert float((layer.weight - exact).norm() / exact.norm()) < 2e-3
            sketched.append(layer._engine._age > 0)
    assert sum(sketched) > 0.7 * len(sketched)


def test_pass_free_training_learns_as_well_as_with_refresh_1():
    losses = []
    for refresh in (1, 10):
        net, optimizer = factored_training([784, 200, 150, 10], torch.float32, 0.3, 1.0, 0.03, refresh=refresh)
        for _ in train([(net, optimizer)], digits(128, torch.float32), 150):
            pass
        data = tb.data.load("sample")
        x, y = tb.data.normalize(data.test, data.mean, data.std)
        with torch.no_grad():
            losses.append(float(nn.functional.cross_entropy(net.eval()(x), y)))
    assert losses[0] < 1.0
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_gradients_accumulate_as_in_linbreg():
    numbers = ([784, 80, 70, 10], torch.float64, 0.1, 1.0, 0.01)
    dense, factored = dense_training(*numbers, engine="gram"), factored_training(*numbers, tolerance=1e-11)
    rng = torch.Generator().manual_seed(0)
    batches = list(digits(32, torch.float64).epoch(rng))[:12]
    for first in range(0, 12, 3):
        for net, optimizer in (dense, factored):
            optimizer.zero_grad()
            for x, y in batches[first : first + 3]:
                nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
        assert gap(parameters(factored[0]), parameters(dense[0])) < 1e-9
