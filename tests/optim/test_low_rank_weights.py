"""Optimizers under a nuclear norm: every engine, growth from rank k, factors at hand, checkpoints bit for bit."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

import torch_bregman as tb

ENGINES = ["auto", "tracked", "gram", "full", "matmul", "randomized(40)"]
OPTIMIZERS = {
    "linbreg": lambda groups: tb.LinBreg(groups, lr=0.1),
    "nesterov": lambda groups: tb.LinBreg(groups, lr=0.02, momentum=0.9, nesterov=True),
    "delta": lambda groups: tb.LinBreg(groups, lr=0.1, delta=2.0),
    "adabreg": lambda groups: tb.AdaBreg(groups, lr=2e-3),
    "proxsgd": lambda groups: tb.ProxSGD(groups, lr=0.1),
    "bregman": lambda groups: tb.Bregman(torch.optim.RMSprop(groups, lr=2e-3)),
}
X = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
Y = X[:, :5].argmax(1)


class Training:
    """A perceptron under a nuclear norm, from rank 4."""

    def __init__(self, engine="tracked", optimizer="linbreg", lam=0.2):
        self.model = tb.models.mlp([64, 160, 140, 10])
        tb.low_rank_(self.model, 4, seed=0)
        groups = tb.param_groups(self.model, {torch.nn.Linear: tb.Nuclear(lam, engine=engine)})
        self.optimizer = OPTIMIZERS[optimizer](groups)
        self.weights = [p for p in self.model.parameters() if p.ndim > 1]

    def run(self, steps):
        for _ in range(steps):
            self.optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self.model(X), Y).backward()
            self.optimizer.step()
        return self

    def checkpoint(self):
        file = io.BytesIO()
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, file)
        file.seek(0)
        return torch.load(file, weights_only=True)

    def same_as(self, other):
        return all(map(torch.equal, self.model.parameters(), other.model.parameters()))


@pytest.fixture(scope="module")
def exact():
    return Training("full").run(60)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_trains_to_the_same_ranks(engine, exact):
    training = Training(engine).run(60)
    ranks, expected = ([len(t.optimizer.spectrum(w)) for w in t.weights] for t in (training, exact))
    assert all(abs(rank - right) <= 1 for rank, right in zip(ranks, expected, strict=True))
    for weight, right in zip(training.weights, exact.weights, strict=True):
        assert (weight - right).norm() < 0.05 * right.norm()


def test_the_rank_grows_from_where_it_started():
    training = Training()
    start = [tb.metrics.rank(w) for w in training.weights]
    training.run(60)
    assert start == [4, 4, 4]
    assert all(len(training.optimizer.spectrum(w)) > 4 for w in training.weights)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("engine", ["tracked", "auto", "randomized(12)"])
def test_a_checkpoint_goes_on_bit_for_bit(optimizer, engine):
    whole, half = Training(engine, optimizer).run(24), Training(engine, optimizer).run(12)
    resumed, saved = Training(engine, optimizer), half.checkpoint()
    resumed.optimizer.load_state_dict(saved["optimizer"])
    resumed.model.load_state_dict(saved["model"])
    assert resumed.run(12).same_as(whole)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_go_on_bit_for_bit(duplicate):
    training = Training().run(12)
    twin = duplicate(training)
    assert twin.run(12).same_as(training.run(12))


def test_a_lost_engine_costs_time_and_nothing_else():
    training, other = Training().run(12), Training()
    saved = training.checkpoint()
    for state in saved["optimizer"]["state"].values():
        for key in ("engine", "left", "right"):
            state.pop(key, None)
    other.model.load_state_dict(saved["model"])
    other.optimizer.load_state_dict(saved["optimizer"])
    training.run(5)
    other.run(5)
    for weight, right in zip(other.weights, training.weights, strict=True):
        assert (weight - right).norm() < 5e-3 * right.norm()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_factors_are_those_of_the_weights(optimizer):
    training = Training(optimizer=optimizer).run(5)
    for weight in training.weights:
        left, right = training.optimizer.factors(weight)
        assert torch.equal(left.mT @ right, weight)
        values = torch.linalg.svdvals(weight.detach())[: len(left)]
        torch.testing.assert_close(training.optimizer.spectrum(weight), values, rtol=1e-3, atol=1e-4)


def test_factors_of_weights_changed_since_come_from_a_decomposition():
    training = Training().run(5)
    weight = training.weights[0]
    with torch.no_grad():
        weight.mul_(0.5)
    left, right = training.optimizer.factors(weight)
    torch.testing.assert_close(left.mT @ right, weight.detach(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no parameter of this optimizer"):
        training.optimizer.factors(torch.zeros(3))


def test_j_comes_from_the_factors():
    training = Training().run(5)
    expected = 0.2 * sum(float(torch.linalg.svdvals(w.detach()).sum()) for w in training.weights)
    assert training.optimizer.regularization()[0] == pytest.approx(expected, rel=1e-3)


def test_weights_changed_by_other_hands_are_not_silently_undone():
    training = Training().run(5)
    weight = training.weights[0]
    with torch.no_grad():
        weight.copy_(tb.low_rank_(torch.nn.Linear(64, 160), 3, seed=7).weight)
    wanted = weight.detach().clone()
    for group in training.optimizer.param_groups:
        group["lr"] = 1e-6
    with pytest.warns(UserWarning, match="changed outside of the optimizer"):
        training.run(1)
    assert (weight - wanted).norm() < 1e-3 * wanted.norm()


@pytest.mark.parametrize("view", ["rows", "spatial", "kernels"])
def test_convolutions_through_their_views(view):
    conv = torch.nn.Conv2d(6, 8, 3)
    tb.low_rank_(conv, 2, view=view)
    optimizer = tb.LinBreg([conv.weight], lr=0.1, regularizer=tb.Nuclear(0.1, view=view, engine="tracked"))
    x = torch.randn(16, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    target = torch.randn(16, 8, 6, 6, generator=torch.Generator().manual_seed(1))
    for _ in range(10):
        optimizer.zero_grad()
        (conv(x) - target).square().mean().backward()
        optimizer.step()
    assert optimizer.mirror_residual() < 1e-3
    assert tb.metrics.rank(conv.weight, view=view) == len(optimizer.spectrum(conv.weight))


def test_a_step_with_lr_zero_moves_nothing():
    training = Training().run(5)
    before = [w.detach().clone() for w in training.weights]
    for group in training.optimizer.param_groups:
        group["lr"] = 0.0
    training.run(2)
    assert all(map(torch.equal, before, training.weights))


@pytest.mark.parametrize("engine", ["gram", "full"])
@pytest.mark.parametrize("make", [lambda g: tb.LinBreg(g, lr=0.1), lambda g: tb.ProxSGD(g, lr=0.1)])
def test_weights_of_one_shape_go_as_one_batch(engine, make, monkeypatch):
    def train(sizes_of_batches):
        weights = [
            torch.nn.Parameter(tb.low_rank_(torch.nn.Linear(20, 12), k, seed=k).weight.detach()) for k in (1, 2, 3)
        ]
        optimizer = make([{"params": weights, "regularizer": tb.Nuclear(0.3, engine=engine)}])
        original = tb.Nuclear.threshold
        monkeypatch.setattr(
            tb.Nuclear, "threshold", lambda s, m, *rest: (sizes_of_batches.append(m.shape), original(s, m, *rest))[1]
        )
        for step in range(5):
            for number, weight in enumerate(weights):
                generator = torch.Generator().manual_seed(10 * step + number)
                weight.grad = torch.randn(12, 20, generator=generator)
            optimizer.step()
        monkeypatch.undo()
        return weights, optimizer

    together, alone = [], []
    weights, optimizer = train(together)
    monkeypatch.setattr(tb.Nuclear, "batch_engine", lambda self, device: None)
    others, _ = train(alone)
    assert (together, alone) == ([(3, 12, 20)] * 5, [(12, 20)] * 15)
    for weight, other in zip(weights, others, strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-4, atol=1e-5)
        assert len(optimizer.spectrum(weight)) == tb.metrics.rank(weight)


@pytest.mark.parametrize(("name", "base"), [("linbreg", torch.optim.SGD), ("adabreg", torch.optim.Adam)])
def test_without_a_penalty_it_is_the_dense_method_and_factors_are_there_when_asked_for(name, base):
    mine, dense = Training(optimizer=name, lam=0.0), Training(optimizer=name)
    rate = mine.optimizer.param_groups[0]["lr"]
    dense.optimizer = base(dense.model.parameters(), lr=rate)
    mine.run(20), dense.run(20)
    for own, other in zip(mine.weights, dense.weights, strict=True):
        torch.testing.assert_close(own, other)
        left, right = mine.optimizer.factors(own)
        torch.testing.assert_close(left.mT @ right, own, atol=1e-4, rtol=1e-3)
        assert "engine" not in mine.optimizer.state[own]


SIZES = [64, 160, 160, 160, 10]


def weighted_or_alone(optimizer, weighted):
    """Return weights and J after 20 steps, of weights that share a weighted norm or have plain ones with √(mn)·λ."""
    model, lam = tb.models.mlp(SIZES), 0.002
    tb.low_rank_(model, 4, seed=0)
    names = {n: p for n, p in model.named_parameters() if p.ndim > 1}
    alone = {name: tb.Nuclear(lam * weight.numel() ** 0.5, engine="gram") for name, weight in names.items()}
    rules = {torch.nn.Linear: tb.Nuclear(lam, engine="gram", weighted=True)} if weighted else alone
    optimizer = OPTIMIZERS[optimizer](tb.param_groups(model, rules))
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(X), Y).backward()
        optimizer.step()
    return [p.detach() for p in names.values()], sum(optimizer.regularization())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weighted_the_norm_is_the_plain_one_with_a_lam_for_each_shape(optimizer):
    (mine, value), (theirs, expected) = (weighted_or_alone(optimizer, weighted) for weighted in (True, False))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert value == pytest.approx(expected, rel=1e-3)
    ranks = [int(torch.linalg.matrix_rank(weight, rtol=1e-5)) for weight in mine]
    assert any(0 < rank < min(weight.shape) for rank, weight in zip(ranks, mine, strict=True))
