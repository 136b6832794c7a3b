"""A layer whose weight is never formed: its gradients, what moves its dual, what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from torch_bregman.layers import LowRankLinear

F64 = {"dtype": torch.float64}


def layer(m=7, n=9, rank=3, **options):
    torch.manual_seed(0)
    return LowRankLinear(n, m, **{"lam": 0.2, "rank": rank, **F64, **options})


def twin(low_rank):
    """The dense layer with the same weight and bias."""
    linear = nn.Linear(low_rank.in_features, low_rank.out_features, low_rank.bias is not None, **F64)
    with torch.no_grad():
        linear.weight.copy_(low_rank.weight)
        if low_rank.bias is not None:
            linear.bias.copy_(low_rank.bias)
    return linear


def svt(V, t):
    U, S, Vh = torch.linalg.svd(V, full_matrices=False)
    return (U * (S - t).clamp_min(0)) @ Vh


def batch(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), **F64)


class TestGradients:
    @pytest.mark.parametrize("shape", [(5, 9), (9,), (2, 3, 9), (0, 9)])
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("rank", [3, 0])
    def test_outputs_and_gradients_are_those_of_a_dense_layer(self, shape, bias, rank):
        low_rank = layer(bias=bias, rank=rank, lr=0.3)
        dense, before = twin(low_rank), low_rank.subgrad.clone()
        x, y = (batch(*shape).requires_grad_() for _ in range(2))
        weights = batch(*shape[:-1], 7)
        ((low_rank(x) ** 2) * weights).sum().backward()
        ((dense(y) ** 2) * weights).sum().backward()
        torch.testing.assert_close(low_rank(x), dense(y))
        torch.testing.assert_close(x.grad, y.grad)
        torch.testing.assert_close(low_rank.subgrad, before - 0.3 * dense.weight.grad)
        if bias:
            torch.testing.assert_close(low_rank.bias.grad, dense.bias.grad)

    def test_evaluation_mode_gives_the_same_gradient_of_the_input(self):
        low_rank = layer()
        grads = []
        for training in (True, False):
            x = batch(5, 9).requires_grad_()
            low_rank.train(training)(x).square().sum().backward()
            grads.append(x.grad)
        torch.testing.assert_close(*grads)

    def test_an_input_in_another_layout_is_taken_as_it_is(self):
        low_rank, x = layer(), batch(9, 5).mT
        torch.testing.assert_close(low_rank(x), low_rank(x.contiguous()))

    def test_gradients_of_gradients_are_refused(self):
        x = batch(5, 9).requires_grad_()
        (grad,) = torch.autograd.grad(layer()(x).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            grad.sum().backward()


class TestDual:
    def test_a_step_thresholds_what_backward_has_moved(self):
        low_rank = layer(delta=2.0, lr=0.5)
        for _ in range(4):
            low_rank(batch(5, 9)).square().sum().backward()
            low_rank.step()
            torch.testing.assert_close(low_rank.weight, 2.0 * svt(low_rank.subgrad, 0.2))

    def test_the_rank_grows_from_the_start(self):
        low_rank = layer(20, 30, rank=1, lr=0.1, lam=0.1)
        target = batch(64, 20)
        for _ in range(50):
            nn.functional.mse_loss(low_rank(batch(64, 30)), target, reduction="sum").div(64).backward()
            low_rank.step()
        assert low_rank.rank > 5
        assert low_rank.left.shape == (low_rank.rank, 20)

    def test_gradients_of_several_backward_passes_add_up(self):
        one, two = layer(), layer()
        x = batch(6, 9)
        one(x).square().sum().backward()
        for part in x.split(2):
            two(part).square().sum().backward()
        torch.testing.assert_close(one.subgrad, two.subgrad)

    def test_the_lr_in_force_at_backward_counts(self):
        low_rank = layer(lr=0.1)
        out, before = low_rank(batch(5, 9)).sum(), low_rank.subgrad.clone()
        low_rank.options["lr"] = torch.tensor(0.4)
        out.backward()
        moved = low_rank.subgrad - before
        other = layer(lr=0.4)
        other(batch(5, 9)).sum().backward()
        torch.testing.assert_close(moved, other.subgrad - before, atol=1e-6, rtol=1e-6)

    def test_evaluation_and_forward_passes_without_gradient_leave_it_alone(self):
        low_rank = layer()
        before = low_rank.subgrad.clone()
        x = batch(5, 9).requires_grad_()
        with torch.no_grad():
            low_rank(x)
        low_rank(x)
        low_rank.eval()(x).sum().backward()
        low_rank.step()
        assert torch.equal(low_rank.subgrad, before)

    def test_it_moves_though_neither_input_nor_bias_ask_for_gradients(self):
        low_rank = layer(bias=False)
        before = low_rank.subgrad.clone()
        low_rank(batch(5, 9)).square().sum().backward()
        assert not torch.equal(low_rank.subgrad, before)

    def test_a_step_without_backward_or_with_lr_0_changes_nothing(self):
        low_rank = layer()
        left, right = low_rank.left, low_rank.right
        low_rank.step()
        low_rank.options["lr"] = 0.0
        low_rank(batch(5, 9)).square().sum().backward()
        low_rank.step()
        assert low_rank.left is left
        assert low_rank.right is right

    def test_a_new_lam_acts_at_the_next_step(self):
        low_rank = layer(lam=0.2)
        low_rank.options["lam"] = 0.3
        low_rank.step()
        torch.testing.assert_close(low_rank.weight, svt(low_rank.subgrad, 0.3))

    def test_rescaling_changes_lam_but_no_weight(self):
        low_rank = layer(delta=2.0)
        low_rank(batch(5, 9)).square().sum().backward()
        low_rank.step()
        before, old = low_rank.weight, low_rank.subgrad.clone()
        low_rank.rescale(0.5)
        torch.testing.assert_close(low_rank.weight, before)
        torch.testing.assert_close(2.0 * svt(low_rank.subgrad, 0.5), before)
        torch.testing.assert_close(low_rank.subgrad, before / 2 + 2.5 * (old - before / 2))

    def test_restart_follows_a_dual_changed_by_hand(self):
        low_rank = layer()
        low_rank.subgrad.copy_(batch(7, 9))
        low_rank.restart()
        torch.testing.assert_close(low_rank.weight, svt(batch(7, 9), 0.2))

    def test_what_is_not_finite_is_refused_at_the_step(self):
        low_rank = layer()
        (low_rank(batch(5, 9)).sum() * float("nan")).backward()
        with pytest.raises(ValueError, match="finite"):
            low_rank.step()

    def test_checkpointed_activations_move_it_once(self):
        one, two = layer(), layer()
        one(batch(5, 9)).square().sum().backward()
        checkpoint(two, batch(5, 9), use_reentrant=False).square().sum().backward()
        torch.testing.assert_close(one.subgrad, two.subgrad)


class TestStart:
    @pytest.mark.parametrize(("m", "n"), [(40, 300), (300, 40)])
    def test_a_random_start_has_the_rank_and_the_variance_asked_for(self, m, n):
        torch.manual_seed(0)
        low_rank = LowRankLinear(n, m, lam=0.1, rank=5)
        assert int(torch.linalg.matrix_rank(low_rank.weight)) == low_rank.rank == 5
        assert float(low_rank.weight.square().mean()) == pytest.approx(2 / n, rel=0.2)
        assert 0 < float(low_rank.bias.detach().min()) <= float(low_rank.bias.detach().max()) <= n**-0.5
        torch.testing.assert_close(low_rank.weight, svt(low_rank.subgrad, 0.1), atol=1e-5, rtol=1e-5)

    def test_the_start_is_a_fixed_point(self):
        low_rank, weight = layer(), batch(7, 2) @ batch(2, 9)
        low_rank.set_weight_(weight)
        torch.testing.assert_close(low_rank.weight, weight)
        torch.testing.assert_close(svt(low_rank.subgrad, 0.2), weight)

    def test_rank_0_starts_at_zero(self):
        assert not layer(rank=0).weight.any()

    def test_a_weight_of_full_rank_is_refused_with_the_remedy(self):
        with pytest.raises(ValueError, match=r"full rank.*low_rank_"):
            layer().set_weight_(batch(7, 9))

    def test_products_of_float32_factors_count_with_their_rank(self):
        low_rank = LowRankLinear(90, 70, lam=0.1)
        low_rank.set_weight_(batch(70, 4).float() @ batch(4, 90).float())
        assert low_rank.rank == 4

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"lam": 0.0}, "lam .* > 0"),
            ({"lam": float("nan")}, "lam .* > 0"),
            ({"delta": 0.0}, "delta .* > 0"),
            ({"lr": -0.1}, "lr .* >= 0"),
            ({"refresh": 0}, "refresh .* >= 1"),
            ({"refresh": 2.5}, "refresh .* whole"),
            ({"tolerance": 0.0}, "tolerance .* > 0"),
            ({"rank": 7}, "rank .* from 0 to 6"),
            ({"rank": -1}, "rank .* from 0 to 6"),
            ({"dtype": torch.bfloat16}, "float32 or float64"),
        ],
    )
    def test_wrong_numbers_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            layer(**options)

    def test_a_weight_of_another_shape_is_refused(self):
        with pytest.raises(ValueError, match=r"must be \(7, 9\)"):
            layer().set_weight_(batch(9, 7))

    def test_a_weight_that_is_not_finite_is_refused(self):
        with pytest.raises(ValueError, match="finite"):
            layer().set_weight_(batch(7, 9) * float("inf"))


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_refused_with_the_remedy(self, dtype):
        low_rank = layer().to(dtype)
        with pytest.raises(ValueError, match="autocast"):
            low_rank(batch(5, 9).to(dtype))

    @pytest.mark.parametrize("within", [True, False])
    def test_under_autocast_it_computes_in_full_precision(self, within):
        low_rank, other = layer(dtype=torch.float32), layer(dtype=torch.float32)
        x = batch(5, 9).bfloat16().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = low_rank(x).square().sum()
            assert loss.dtype == torch.float32
            if within:
                loss.backward()
        if not within:
            loss.backward()
        other(x.detach().float()).square().sum().backward()
        torch.testing.assert_close(low_rank.subgrad, other.subgrad)
        assert x.grad.dtype == torch.bfloat16

    def test_a_change_of_dtype_is_followed(self):
        low_rank = layer(60, 50, dtype=torch.float32, lr=0.02, refresh=4)
        for step in range(12):
            low_rank(batch(30, 50).to(low_rank.subgrad.dtype)).square().sum().backward()
            low_rank.step()
            if step == 5:
                low_rank.double()
        assert low_rank.left.dtype == torch.float64
        error = low_rank.weight - svt(low_rank.subgrad, 0.2)
        assert float(error.norm()) < 1e-2 * float(low_rank.weight.norm())


class TestCopies:
    def test_a_deep_copy_goes_on_alone(self):
        low_rank = layer(60, 50, lr=0.02, refresh=4)

        def train(member):
            member(batch(30, 50)).square().sum().backward()
            member.step()

        for _ in range(6):
            train(low_rank)
        other = copy.deepcopy(low_rank)
        before = other.subgrad.clone()
        train(low_rank)
        assert torch.equal(other.subgrad, before)
        train(other)
        assert torch.equal(other.weight, low_rank.weight)

    def test_print_tells_rank_and_lam(self):
        assert "rank=3, lam=0.2, refresh=1" in repr(layer())
