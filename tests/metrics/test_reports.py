from __future__ import annotations

import torch
from torch import nn

from torch_bregman.metrics import density, density_report


def patterned() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 5))
    with torch.no_grad():
        for param in model.parameters():
            param.zero_()
        model[0].weight[1, 0] = 1.0  # one whole kernel
        model[0].weight[3, 0, 1, 1] = 2.0  # and one entry of another
        model[3].weight[0] = 1.0
        model[3].weight[2, 3] = -1.0
    return model


def test_every_density_of_a_known_pattern() -> None:
    conv, linear = density_report(patterned(), ranks=True).layers
    assert (conv.name, conv.shape, conv.nonzeros, conv.total) == ("0.weight", (4, 2, 3, 3), 10, 72)
    assert (conv.density, conv.row_density, conv.column_density) == (10 / 72, 0.5, 0.5)
    assert (conv.filter_density, conv.kernel_density, conv.rank) == (0.5, 0.25, 2)
    assert (linear.name, linear.shape, linear.nonzeros, linear.total) == ("3.weight", (5, 4), 5, 20)
    assert (linear.density, linear.row_density, linear.column_density) == (0.25, 0.4, 1.0)
    assert (linear.filter_density, linear.kernel_density, linear.rank) == (None, None, 2)


def test_totals_agree_with_the_density_of_the_model() -> None:
    report = density_report(patterned())
    assert (report.nonzeros, report.total) == (15, 92)
    assert report.density == density(patterned())
    assert [layer.rank for layer in report.layers] == [None, None]


def test_the_table_has_a_line_a_weight_and_a_total() -> None:
    lines = str(density_report(patterned(), ranks=True)).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["0.weight", "3.weight", "total"]
    assert lines[2].split()[-7:] == ["50.0", "%", "50.0", "%", "25.0", "%", "2"]
    assert lines[4].split() == ["total", "15", "92", "16.30", "%"]


def test_measuring_changes_nothing() -> None:
    model = patterned()
    versions = [param._version for param in model.parameters()]
    density_report(model, ranks=True)
    assert [param._version for param in model.parameters()] == versions
    assert all(param.grad is None for param in model.parameters())
