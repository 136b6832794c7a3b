"""Multiply-adds against torch's own flop counter, and by the cuts they promise."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.flop_counter import FlopCounterMode

import torch_bregman as tb
from torch_bregman.metrics import cost_report, stored_bytes, trace_uses

COUNTED = {
    "linear": (nn.Linear(5, 3), (2, 4, 5)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    "conv2d": (nn.Conv2d(3, 4, (3, 2), dilation=2, padding="same"), (2, 3, 7, 8)),
    "conv3d": (nn.Conv3d(2, 3, 2), (1, 2, 4, 5, 6)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (3, 4, 6, 6)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), (3, 4, 6, 6)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 5, 5)),
    "transposed-1d": (nn.ConvTranspose1d(4, 6, 3, stride=2), (2, 4, 5)),
    "convnet": (tb.models.convnet(), (2, 1, 28, 28)),
    "mlp": (tb.models.mlp([12, 8, 3]), (2, 3, 4)),
}


@pytest.mark.parametrize("name", COUNTED)
def test_multiply_adds_are_half_of_the_operations_torch_counts(name: str) -> None:
    model, shape = COUNTED[name]
    x = torch.randn(shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    report = cost_report(model, x)
    assert 2 * report.macs == counter.get_total_flops()
    assert report.nonzero_macs == report.unit_macs == report.macs


@pytest.mark.parametrize("options", [{"batch_first": True}, {}, {"kdim": 4, "vdim": 5}], ids=str)
def test_attention_with_its_products(options: dict) -> None:
    attention = nn.MultiheadAttention(6, 2, **options).train()
    batch_first = options.get("batch_first", False)
    shapes = [(7, 3, 6), (9, 3, options.get("kdim", 6)), (9, 3, options.get("vdim", 6))]
    inputs = tuple(torch.randn(s).transpose(0, 1) if batch_first else torch.randn(s) for s in shapes)
    with FlopCounterMode(display=False) as counter:
        attention(*inputs)
    report = cost_report(attention, inputs)
    assert 2 * report.macs == counter.get_total_flops()
    assert [w.macs for w in report.weights if w.shape == ()] == [2 * 3 * 7 * 9 * 6]


def test_an_encoder_in_evaluation_is_not_hidden_by_its_fast_path() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    report = cost_report(layer, torch.randn(3, 5, 8))
    assert report.macs == 15 * (4 * 64 + 2 * 128) + 2 * 3 * 5 * 5 * 8
    assert sorted(name.split(" (")[0] for name in report.uncounted) == ["norm1", "norm2"]


def test_recurrent_layers_multiply_once_a_step() -> None:
    lstm = nn.LSTM(4, 3, num_layers=2, bidirectional=True)
    weights = sum(p.numel() for p in lstm.parameters() if p.ndim > 1)
    assert cost_report(lstm, torch.randn(7, 2, 4)).macs == 14 * weights
    packed = pack_sequence([torch.randn(5, 4), torch.randn(2, 4)])
    assert cost_report(lstm, packed).macs == 7 * weights
    assert cost_report(nn.Bilinear(2, 3, 4), (torch.zeros(5, 2), torch.zeros(5, 3))).macs == 5 * 24


def test_shared_modules_count_at_every_call_and_their_parameters_once() -> None:
    shared = nn.Linear(4, 4)
    report = cost_report(nn.Sequential(shared, nn.ReLU(), shared), torch.zeros(1, 4))
    assert [(w.name, w.macs) for w in report.weights] == [("0.weight", 32)]
    assert (report.parameters, report.bytes) == (20, 80)
    assert report.uncounted == ("1 (ReLU)",)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    report = cost_report(tied, torch.zeros(1, 4))
    assert (report.macs, report.parameters) == (32, 24)


def test_what_is_left_of_a_convolution_without_dead_rows_columns_and_ranks() -> None:
    conv = nn.Conv2d(4, 6, 3, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.einsum("o,i,kl->oikl", torch.arange(6.0), torch.arange(4.0), torch.eye(3)))
    (weight,) = cost_report(conv, torch.zeros(1, 4, 5, 5), ranks=True).weights
    assert weight.macs == 9 * 6 * 4 * 9
    assert weight.nonzero_macs == 9 * 5 * 3 * 3
    assert weight.unit_macs == 9 * 5 * 3 * 9
    assert weight.rank_macs == 9 * (6 + 36)


def test_the_groups_of_a_convolution_are_cut_one_by_one() -> None:
    conv = nn.Conv1d(4, 4, 1, groups=2, bias=False)
    with torch.no_grad():
        conv.weight.zero_()[0] = 1.0
    (weight,) = cost_report(conv, torch.zeros(1, 4, 3)).weights
    assert (weight.macs, weight.unit_macs) == (24, 6)


def test_bytes_are_those_of_every_piece_of_memory() -> None:
    norm = nn.BatchNorm1d(4)
    assert stored_bytes(norm) == 4 * 16 + 8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls CSR beta
        values = torch.eye(3).to_sparse_csr()
    holder = nn.Module()
    holder.register_buffer("csr", values)
    assert stored_bytes(holder) == 4 * 8 + 3 * 8 + 3 * 4


def test_layers_in_factors_cost_their_factors() -> None:
    layer = tb.layers.LowRankLinear(20, 10, lam=0.1, rank=2)
    (weight,) = cost_report(layer, torch.zeros(3, 20), ranks=True).weights
    assert weight.macs == weight.rank_macs == 3 * 60


def test_what_has_no_rule_is_named() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.ones(2, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.matrix

    model = nn.Sequential(nn.Flatten(), Own(), nn.Dropout(), nn.PReLU())
    model[0].train(False)
    assert trace_uses(model, torch.zeros(1, 2)).uncounted == ("1 (Own)", "3 (PReLU)")
    assert model.training
    assert not model[0].training
    assert "not counted: 1 (Own), 3 (PReLU)" in str(cost_report(model, torch.zeros(1, 2)))


def test_layers_of_compact_models_cost_what_they_store() -> None:
    linear = nn.Linear(10, 6)
    with torch.no_grad():
        linear.weight[:, 3:] = 0
    (weight,) = cost_report(tb.layers.CSRLinear.from_linear(linear), torch.zeros(4, 10)).weights
    assert (weight.macs, weight.shape) == (4 * 18, (6, 10))
    heads = tb.layers.HeadAttention(8, heads=3, head_dim=2, batch_first=True)
    x = torch.zeros(2, 5, 8)
    assert cost_report(heads, (x, x, x)).macs == 10 * 4 * 8 * 6 + 2 * 2 * 5 * 5 * 6
