"""Layers of compact models: the same numbers, forward and backward, as the layers they stand for."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from torch_bregman.layers import CSRLinear, FactoredLinear, HeadAttention
from torch_bregman.layers.factors import factored_convolution, fill_factors, separable_convolution


def sparse(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    linear = nn.Linear(7, 5, bias).double()
    with torch.no_grad():
        linear.weight.mul_(torch.rand(5, 7) < 0.4)
        linear.weight[2] = 0
    return linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 7), (7,), (2, 3, 7), (0, 7)], ids=str)
def test_a_sparse_layer_says_what_the_dense_one_says(bias: bool, shape: tuple[int, ...]) -> None:
    linear = sparse(bias)
    layer, x = CSRLinear.from_linear(linear), torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(layer(x), linear(x))
    with torch.no_grad():
        torch.testing.assert_close(layer(x), linear(x))
    assert torch.equal(layer.weight, linear.weight)
    assert torch.equal(layer.to_linear().weight, linear.weight)


def test_gradients_of_a_sparse_layer() -> None:
    linear = sparse()
    layer = CSRLinear.from_linear(copy.deepcopy(linear))
    x = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    layer(x).square().sum().backward()
    linear(other).square().sum().backward()
    torch.testing.assert_close(x.grad, other.grad)
    assert layer.values.grad is not None
    assert linear.weight.grad is not None
    torch.testing.assert_close(layer.values.grad, linear.weight.grad[linear.weight != 0])
    assert gradcheck(lambda x, v: torch.func.functional_call(layer, {"values": v}, (x,)), (x, layer.values))


def test_a_sparse_layer_follows_its_entries() -> None:
    layer, x = CSRLinear.from_linear(sparse()), torch.randn(2, 7).double()
    with torch.no_grad():
        layer(x)
        layer.values.mul_(2)
        torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    again = CSRLinear(7, 5, len(layer.values)).double()
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


def test_two_linear_layers() -> None:
    layer = FactoredLinear(6, 4, rank=2)
    x = torch.randn(3, 6)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize(
    "options", [{}, {"stride": (2, 1), "padding": (1, 2)}, {"dilation": 2}, {"padding": "same"}], ids=str
)
def test_two_convolutions(options: dict) -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(3, 5, 3, **options).double(), torch.randn(2, 3, 9, 8).double()
    left, right = torch.randn(2, 5).double(), torch.randn(2, 27).double()
    with torch.no_grad():
        conv.weight.copy_((left.mT @ right).view(5, 3, 3, 3))
        made = factored_convolution(conv, 2)
        fill_factors(made, left, right)
        torch.testing.assert_close(made(x), conv(x))
        across, along = torch.randn(2, 5, 3, 1).double(), torch.randn(2, 3, 1, 3).double()
        conv.weight.copy_(torch.einsum("roa,rib->oiab", across[..., 0], along[:, :, 0]))
        made = separable_convolution(conv, 2)
        fill_factors(made, across, along)
        torch.testing.assert_close(made(x), conv(x))


def attentions(batch_first: bool) -> tuple[nn.MultiheadAttention, HeadAttention]:
    torch.manual_seed(0)
    full = nn.MultiheadAttention(8, 4, batch_first=batch_first)
    nn.init.normal_(full.in_proj_bias)
    made = HeadAttention(8, 4, 2, batch_first=batch_first)
    made.load_state_dict(full.state_dict())
    return full, made


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masked", ["none", "causal", "padding", "both", "additive"])
def test_attention_with_all_heads_is_that_of_torch(batch_first: bool, need_weights: bool, masked: str) -> None:
    full, made = attentions(batch_first)
    x, y = torch.randn(3, 5, 8), torch.randn(3, 6, 8)
    inputs = (x, y, y) if batch_first else tuple(each.transpose(0, 1) for each in (x, y, y))
    causal, padding = torch.ones(5, 6).triu(1).bool(), torch.zeros(3, 6).bool()
    padding[1, 4:] = True
    options: dict[str, Tensor] = {}
    if masked in ("causal", "both"):
        options["attn_mask"] = causal
    if masked in ("padding", "both"):
        options["key_padding_mask"] = padding
    if masked == "additive":
        options["attn_mask"] = torch.randn(5, 6)
    for average in (True, False):
        expected = full(*inputs, need_weights=need_weights, average_attn_weights=average, **options)
        found = made(*inputs, need_weights=need_weights, average_attn_weights=average, **options)
        torch.testing.assert_close(found, expected)


def test_attention_without_a_batch_and_masks_for_every_head() -> None:
    full, made = attentions(True)
    x = torch.randn(5, 8)
    torch.testing.assert_close(made(x, x, x), full(x, x, x))
    with pytest.raises(ValueError, match="that has lost heads"):
        made(x, x, x, attn_mask=torch.zeros(4, 5, 5))
