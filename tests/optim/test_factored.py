"""The optimizer that drives low-rank layers behaves as any other: groups, schedulers, λ, checkpoints, copies."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import torch_bregman as tb
from torch_bregman.linalg import GramEngine


def build(refresh=3, lam=0.1, lr=0.02, **options):
    net = tb.low_rank_(tb.models.mlp([60, 50, 40, 5]), rank=3)
    tb.layers.to_factored(net, lam, refresh=refresh, delta=options.pop("delta", 1.0))
    return net, tb.FactoredLinBreg(net, lr=lr, **options)


def train(net, optimizer, steps=1, seed=0):
    rng = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x, y = torch.randn(20, 60, generator=rng), torch.randint(5, (20,), generator=rng)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()


def everything(net):
    layers = [net.fc1, net.fc2]
    factors = [tensor for layer in layers for tensor in (layer.subgrad, layer.left, layer.right)]
    return factors + [p.detach() for p in net.parameters()]


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(everything(one), everything(two), strict=True))


def through_a_file(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class TestGroups:
    def test_low_rank_layers_have_groups_of_their_own_by_lam_and_delta(self):
        net = tb.low_rank_(tb.models.mlp([30, 24, 20, 16, 5]), rank=2)
        tb.layers.to_factored(net, 0.3, layers=["fc1", "fc3"])
        tb.layers.to_factored(net, 0.2, layers=["fc2"])
        optimizer = tb.FactoredLinBreg(net, lr=0.05)
        plain, first, second = optimizer.param_groups
        assert sum(p.numel() for p in plain["params"]) == sum(p.numel() for p in net.parameters())
        assert [(g["lam"], g["params"], g["factored"]) for g in (first, second)] == [(0.3, [], True), (0.2, [], True)]
        assert net.fc1.options is net.fc3.options is first
        assert net.fc2.options is second

    def test_the_lr_of_the_optimizer_replaces_that_of_the_layers(self):
        net, _ = build(lr=0.07)
        assert net.fc1.lr == 0.07

    def test_other_parameters_may_come_in_groups_with_options(self):
        net, _ = build()
        groups = tb.param_groups(net, {nn.Linear: tb.L1(0.01)}, momentum=0.9)
        optimizer = tb.FactoredLinBreg(net, lr=0.02, params=groups)
        assert [g["regularizer"].name for g in optimizer.param_groups] == ["l1", "none", "nuclear"]
        assert [g["momentum"] for g in optimizer.param_groups] == [0.9, 0.9, 0.0]
        train(net, optimizer, steps=3)
        assert int((net.fc3.weight == 0).sum()) > 0

    def test_named_parameters_and_a_regularizer(self):
        net, _ = build()
        optimizer = tb.FactoredLinBreg(net, params=net.named_parameters(), regularizer=tb.L1(0.1))
        assert optimizer.param_groups[0]["param_names"][0] == "fc1.bias"
        assert optimizer.param_groups[0]["regularizer"] == tb.L1(0.1)

    def test_a_model_of_low_rank_layers_alone(self):
        net = nn.Sequential(tb.layers.LowRankLinear(9, 7, bias=False, lam=0.1, rank=2))
        optimizer = tb.FactoredLinBreg(net)
        before = net[0].weight
        net(torch.ones(3, 9)).sum().backward()
        optimizer.step()
        assert not torch.equal(net[0].weight, before)

    def test_the_step_returns_the_loss_of_a_closure(self):
        net, optimizer = build()
        before = net.fc1.subgrad.clone()

        def closure():
            loss = net(torch.ones(2, 60)).square().sum()
            loss.backward()
            return loss

        assert float(optimizer.step(closure).detach()) > 0
        assert not torch.equal(net.fc1.subgrad, before)

    @pytest.mark.parametrize(
        ("build_it", "message"),
        [
            (lambda: tb.FactoredLinBreg(nn.Linear(3, 2)), "no LowRankLinear.*to_factored"),
            (lambda: build(lr=-1.0), "lr must be"),
            (lambda: build()[1].add_param_group({"params": [], "factored": True, "lam": 0.0}), "lam .* > 0"),
            (lambda: build()[1].set_lam(0.0, 1), "lam .* > 0.*from_factored"),
        ],
    )
    def test_what_does_not_work_is_refused(self, build_it, message):
        with pytest.raises(ValueError, match=message):
            build_it()


class TestSchedules:
    def test_lr_schedulers_reach_the_backward_pass(self):
        net, optimizer = build(lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        train(net, optimizer)
        schedule.step()
        assert net.fc1.lr == 0.05
        before = net.fc1.subgrad.clone()
        x = torch.randn(4, 60)
        net(x).sum().backward()
        moved = net.fc1.subgrad - before
        optimizer.param_groups[1]["lr"] = 0.1
        net(x).sum().backward()
        torch.testing.assert_close(net.fc1.subgrad - before, 3 * moved, rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize(("name", "value"), [("momentum", 0.9), ("weight_decay", 0.1), ("maximize", True)])
    def test_what_needs_the_dense_gradient_is_refused(self, name, value):
        _, optimizer = build()
        optimizer.param_groups[1][name] = value
        with pytest.raises(ValueError, match=f"plain steps, got {name} {value}"):
            optimizer.step()

    def test_lr_0_is_the_identity(self):
        net, optimizer = build(lr=0.0)
        before = [tensor.clone() for tensor in everything(net)]
        train(net, optimizer, steps=2)
        assert all(torch.equal(a, b) for a, b in zip(everything(net), before, strict=True))

    def test_set_lam_moves_no_weight(self):
        net, optimizer = build(delta=2.0)
        train(net, optimizer, steps=5)
        before = net.fc1.weight
        optimizer.set_lam(0.3, 1)
        torch.testing.assert_close(net.fc1.weight, before)
        assert (net.fc1.lam, optimizer.param_groups[0]["lam"]) == (0.3, 0.0)
        exact = 2.0 * GramEngine()(net.fc1.subgrad, 0.3).matrix()
        assert float((exact - before).norm()) < 5e-3 * float(before.norm())

    def test_a_schedule_of_lam_is_that_of_linbreg(self):
        net, optimizer = build(refresh=1)
        schedule = tb.schedulers.LamSchedule(optimizer, lambda k: 0.9**k)
        for step in range(4):
            train(net, optimizer, seed=step)
            schedule.step()
        assert net.fc1.lam == pytest.approx(0.1 * 0.9**4)
        assert optimizer.mirror_residual() < 1e-3

    def test_a_lam_set_by_hand_acts_at_the_next_step(self):
        net, optimizer = build(refresh=1)
        train(net, optimizer, steps=5)
        rank = net.fc1.rank
        optimizer.param_groups[1]["lam"] = 100.0
        optimizer.step()
        assert rank > 0
        assert net.fc1.rank == 0


class TestMeasures:
    def test_regularization_is_lam_times_the_nuclear_norm(self):
        net, optimizer = build()
        train(net, optimizer, steps=7)
        expected = sum(0.1 * float(torch.linalg.svdvals(layer.weight).sum()) for layer in (net.fc1, net.fc2))
        assert optimizer.regularization() == [0.0, pytest.approx(expected, rel=1e-4)]

    def test_the_mirror_residual_sees_a_dual_changed_by_hand(self):
        net, optimizer = build(refresh=1)
        train(net, optimizer, steps=5)
        assert optimizer.mirror_residual() < 1e-3
        net.fc2.subgrad.mul_(1.5)
        assert optimizer.mirror_residual() > 0.01


class TestCheckpoints:
    @pytest.mark.parametrize("refresh", [1, 3])
    @pytest.mark.parametrize("model_first", [True, False])
    def test_a_run_goes_on_bit_for_bit(self, refresh, model_first):
        net, optimizer = build(refresh=refresh)
        train(net, optimizer, steps=8)
        saved = through_a_file({"model": net.state_dict(), "optimizer": optimizer.state_dict()})
        other, other_optimizer = build(refresh=refresh, lr=0.5)
        loads = [(other, "model"), (other_optimizer, "optimizer")]
        for target, key in loads if model_first else reversed(loads):
            target.load_state_dict(saved[key])
        assert other.fc1.options is other_optimizer.param_groups[1]
        assert other.fc1.lr == 0.02
        assert same(net, other)
        train(net, optimizer, steps=8, seed=1)
        train(other, other_optimizer, steps=8, seed=1)
        assert same(net, other)

    def test_one_between_backward_and_step_too(self):
        net, optimizer = build()
        train(net, optimizer, steps=4)
        net(torch.ones(2, 60)).sum().backward()
        saved = through_a_file(net.state_dict())
        other, other_optimizer = build()
        other.load_state_dict(saved)
        optimizer.step()
        other_optimizer.step()
        assert torch.equal(net.fc1.left, other.fc1.left)

    def test_loaded_tensors_are_copies(self):
        net, optimizer = build()
        train(net, optimizer, steps=8)
        other, other_optimizer = build()
        other.load_state_dict(net.state_dict())
        other_optimizer.load_state_dict(optimizer.state_dict())
        before = [tensor.clone() for tensor in everything(net)]
        train(other, other_optimizer, steps=4)
        assert all(torch.equal(a, b) for a, b in zip(everything(net), before, strict=True))

    def test_a_file_of_tensors_alone_gives_the_factors_back_exactly(self):
        net, optimizer = build()
        train(net, optimizer, steps=8)
        tensors = {key: value for key, value in net.state_dict().items() if isinstance(value, torch.Tensor)}
        other, _ = build()
        other.load_state_dict(tensors, strict=False)
        exact = GramEngine()(net.fc1.subgrad, 0.1).matrix()
        torch.testing.assert_close(other.fc1.weight, exact, rtol=1e-5, atol=1e-6)

    def test_one_with_another_regularizer_is_refused(self):
        net, optimizer = build()
        dense = tb.LinBreg([{"params": list(net.parameters())}, {"params": []}])
        with pytest.raises(ValueError, match="trained with"):
            optimizer.load_state_dict(dense.state_dict())


class TestCopies:
    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
    def test_model_and_optimizer_copied_together_go_on_together(self, duplicate):
        net, optimizer = build()
        train(net, optimizer, steps=5)
        other, other_optimizer = duplicate((net, optimizer))
        assert other.fc1.options is other_optimizer.param_groups[1]
        before = [tensor.clone() for tensor in everything(net)]
        train(other, other_optimizer, steps=5, seed=1)
        assert all(torch.equal(a, b) for a, b in zip(everything(net), before, strict=True))
        train(net, optimizer, steps=5, seed=1)
        assert same(net, other)

    def test_a_copy_of_the_model_alone_does_not_disturb_the_training(self):
        net, optimizer = build()
        train(net, optimizer, steps=2)
        snapshot = copy.deepcopy(net)
        before = [tensor.clone() for tensor in everything(snapshot)]
        train(net, optimizer, steps=2)
        assert all(torch.equal(a, b) for a, b in zip(everything(snapshot), before, strict=True))
        optimizer.param_groups[1]["lr"] = 0.5
        assert snapshot.fc1.lr == 0.02


@pytest.mark.filterwarnings("ignore")  # torch's own, while it compiles
def test_a_compiled_model_trains_the_same():
    net, optimizer = build()
    other, other_optimizer = copy.deepcopy((net, optimizer))
    train(net, optimizer, steps=4)
    train(torch.compile(other, backend="aot_eager"), other_optimizer, steps=4)
    torch.testing.assert_close(everything(other), everything(net))
