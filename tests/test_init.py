from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

from torch_bregman.init import low_rank_, sparsify_
from torch_bregman.metrics import density, density_report, rank
from torch_bregman.models import MODELS, build, convnet, mlp
from torch_bregman.views import get_view

LAYERS = {
    "linear": lambda: nn.Linear(300, 200),
    "conv1d": lambda: nn.Conv1d(24, 30, 5),
    "strided": lambda: nn.Conv2d(16, 30, 3, stride=2),
    "grouped": lambda: nn.Conv2d(32, 64, 3, groups=4),
    "conv3d": lambda: nn.Conv3d(8, 20, 3),
    "transposed": lambda: nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
    "transposed grouped": lambda: nn.ConvTranspose1d(32, 16, 3, groups=4),
}
INPUTS = {
    "linear": (),
    "conv1d": (40,),
    "strided": (20, 20),
    "grouped": (20, 20),
    "conv3d": (9, 9, 9),
    "transposed": (20, 20),
    "transposed grouped": (40,),
}


def nonzeros(module: nn.Module) -> int:
    return int(module.weight.count_nonzero())


def live(module: nn.Module, view: str) -> int:
    return int(get_view(view).live(module.weight).count_nonzero())


@settings(max_examples=60)
@given(sizes=st.lists(st.integers(1, 25), min_size=2, max_size=5), wanted=st.floats(0.001, 1.0), seed=st.integers(0, 9))
def test_the_density_asked_for_is_the_density_got(sizes: list[int], wanted: float, seed: int) -> None:
    model = mlp(sizes)
    layers = [module for module in model if isinstance(module, nn.Linear)]
    total = sum(layer.weight.numel() for layer in layers)
    if round(wanted * total) == 0:
        with pytest.raises(ValueError, match="keeps none"):
            sparsify_(model, wanted, seed=seed)
        return
    sparsify_(model, wanted, seed=seed)
    kept = [nonzeros(layer) for layer in layers]
    assert sum(kept) == round(wanted * total)
    if sum(kept) >= len(kept):
        assert min(kept) >= 1
    lifted = sum(wanted * layer.weight.numel() < 1 for layer in layers)
    for count, layer in zip(kept, layers, strict=True):
        assert -1 - lifted < count - wanted * layer.weight.numel() <= 1


def test_draws_that_would_round_to_zero_are_counted() -> None:
    layer = sparsify_(nn.Linear(1_000_000, 2, dtype=torch.float16), 1.0)
    assert nonzeros(layer) == 2_000_000


@pytest.mark.parametrize(
    ("view", "groups"), [("rows", 64), ("columns", 64), ("filters", 64), ("kernels", 4096), ("heads(8)", 8)]
)
def test_groups_live_or_die_as_one(view: str, groups: int) -> None:
    conv = sparsify_(nn.Conv2d(64, 64, 5), 0.25, view=view)
    assert live(conv, view) == groups // 4
    assert nonzeros(conv) == conv.weight.numel() // 4
    torch.testing.assert_close(conv.weight.var() * 64 * 25 / 2, torch.tensor(1.0), atol=0.05, rtol=0)


def test_layers_may_differ_in_their_views() -> None:
    model = sparsify_(convnet(), 0.05, view={nn.Linear: "elements", nn.Conv2d: "kernels"})
    conv1, conv2, fc1, fc2 = density_report(model).layers
    kept = [64 * conv1.kernel_density, 4096 * conv2.kernel_density, fc1.nonzeros, fc2.nonzeros]
    assert sum(kept) == round(0.05 * (64 + 4096 + 128 * 1024 + 1280))
    assert [count / n for count, n in zip(kept, (64, 4096, 131072, 1280), strict=True)] == pytest.approx(
        [0.05] * 4, abs=0.004
    )
    assert conv2.nonzeros == 25 * kept[1]


def test_layers_without_a_view_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 2))
    versions = {name: param._version for name, param in model.named_parameters()}
    sparsify_(model, 0.1, view={"3": None, nn.Linear: "elements"})
    changed = {name for name, param in model.named_parameters() if param._version != versions[name]}
    assert changed == {"4.weight", "4.bias"}
    assert nonzeros(model[4]) == 2


@pytest.mark.parametrize("init", ["kaiming", "xavier"])
@pytest.mark.parametrize("wanted", [0.05, 0.3, 1.0])
def test_variance_makes_up_for_the_zeros(wanted: float, init: str) -> None:
    layer = sparsify_(nn.Linear(1000, 400), wanted, init=init)
    alpha = 2 / 1000 if init == "kaiming" else 2 / 1400
    kept = layer.weight[layer.weight != 0]
    assert float(kept.detach().var()) == pytest.approx(alpha / wanted, rel=0.05)
    assert float(kept.detach().mean()) == pytest.approx(0, abs=4 * math.sqrt(alpha / wanted / kept.numel()))


def test_each_layer_uses_the_density_it_got() -> None:
    def lifted(seed: int) -> torch.Tensor:  # 0.4 of 1000 weights, lifted to 1
        weight = sparsify_(mlp((2000, 100, 10)), 0.0004, seed=seed).fc2.weight.detach()
        return weight[weight != 0]

    draws = torch.stack([lifted(seed) for seed in range(200)])
    assert draws.shape == (200, 1)
    assert float(draws.var()) == pytest.approx(2 / 100 * 1000, rel=0.25)


@pytest.mark.parametrize("start", [lambda m, s: sparsify_(m, 0.2, seed=s), lambda m, s: low_rank_(m, 3, seed=s)])
@pytest.mark.parametrize("kind", LAYERS)
def test_one_layer_doubles_the_second_moment_for_relu_to_halve(kind: str, start) -> None:
    generator, moments = torch.Generator().manual_seed(0), []
    for seed in range(6):
        layer, spatial = start(LAYERS[kind](), seed), INPUTS[kind]
        with torch.no_grad():
            layer.bias.zero_()
        inputs = layer.in_channels if spatial else layer.in_features
        out = layer(torch.randn(16, inputs, *spatial, generator=generator)).detach()
        inner = out[(..., *(slice(3, -3),) * len(spatial))] if "transposed" in kind else out
        moments.append(float(inner.square().mean()))
    assert sum(moments) / len(moments) == pytest.approx(2.0, rel=0.15)


@pytest.mark.parametrize(
    "start", [lambda m: sparsify_(m, 0.01), lambda m: low_rank_(m, 20)], ids=["sparse", "low rank"]
)
def test_activations_neither_vanish_nor_explode(start) -> None:
    model, x = start(mlp([1000] * 16)), torch.randn(64, 1000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for layer in model[:-1]:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                assert 0.4 < float(x.square().mean().sqrt()) < 2.5


@pytest.mark.parametrize("start", [lambda m: sparsify_(m, 0.1), lambda m: low_rank_(m, 2)], ids=["sparse", "low rank"])
def test_biases_are_positive_and_bounded_by_the_fan_in(start) -> None:
    for layer, fan_in in ((nn.Linear(400, 2000), 400), (nn.Conv2d(16, 2000, 5), 400)):
        bias = start(layer).bias.detach() * math.sqrt(fan_in)
        assert float(bias.min()) > 0
        assert float(bias.max()) <= 1
        assert float(bias.mean()) == pytest.approx(0.5, abs=0.03)
    assert start(nn.Linear(20, 20, bias=False)).bias is None


@pytest.mark.parametrize("start", [sparsify_, lambda m, **k: low_rank_(m, 2, **k)], ids=["sparse", "low rank"])
def test_seeds_reproduce_and_the_global_generator_is_left_alone(start) -> None:
    state = torch.get_rng_state()
    first, again, other = (start(blank_mlp(), seed=s) for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) and not torch.equal(a, c) for a, b, c in pairs)
    generator = torch.Generator().manual_seed(3)
    given = start(blank_mlp(), generator=generator)
    assert torch.equal(given.fc1.weight, first.fc1.weight)
    assert not torch.equal(start(blank_mlp(), generator=generator).fc1.weight, first.fc1.weight)


@pytest.mark.parametrize("start", [sparsify_, lambda m: low_rank_(m, 2)], ids=["sparse", "low rank"])
def test_numbers_are_drawn_on_the_cpu_whatever_the_default_device(start) -> None:
    model, expected = blank_mlp(), start(blank_mlp())
    with torch.device("meta"):
        start(model)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))


def blank_mlp() -> nn.Module:
    with torch.device("meta"):
        model = mlp((60, 40, 20))
    return model.to_empty(device="cpu")


@pytest.mark.parametrize("start", [sparsify_, lambda m: low_rank_(m, 2)], ids=["sparse", "low rank"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types_get_the_same_numbers_rounded(start, dtype: torch.dtype) -> None:
    half, single = start(mlp((60, 40, 20)).to(dtype)), start(mlp((60, 40, 20)))
    assert half.fc1.bias.dtype == half.fc1.weight.dtype == dtype
    if dtype != torch.float64:
        torch.testing.assert_close(half.fc2.weight, single.fc2.weight.to(dtype), rtol=2e-2, atol=1e-6)
    assert torch.isfinite(half.fc1.weight).all()


@pytest.mark.parametrize("start", [sparsify_, lambda m: low_rank_(m, 2)], ids=["sparse", "low rank"])
def test_storage_layout_and_flags_stay(start) -> None:
    model = convnet().to(memory_format=torch.channels_last)
    model.features.conv2.weight.requires_grad_(False)
    plain, params = start(convnet()), list(model.parameters())
    before = [(p, p.data_ptr(), p.stride(), p.requires_grad, p.grad) for p in params]
    assert start(model) is model
    assert [(p, p.data_ptr(), p.stride(), p.requires_grad, p.grad) for p in model.parameters()] == before
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    assert all(p.is_leaf for p in params)


def test_tied_weights_are_drawn_and_counted_once() -> None:
    model = nn.Sequential(nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 30), nn.Linear(30, 30))
    model[2].weight = model[0].weight
    sparsify_(model, 0.1)
    assert [nonzeros(model[i]) for i in (0, 3)] == [90, 90]
    assert density(model) == 0.1
    assert (model[0].weight.detach()[model[0].weight != 0].std() * math.sqrt(30 * 0.1 / 2)) == pytest.approx(1, rel=0.3)


def test_what_is_neither_linear_nor_convolution_stays() -> None:
    model = nn.Sequential(nn.Embedding(9, 8), nn.LayerNorm(8), nn.LSTM(8, 8), nn.Linear(8, 8))
    versions = [param._version for module in model[:3] for param in module.parameters()]
    sparsify_(model, 0.5)
    assert [param._version for module in model[:3] for param in module.parameters()] == versions
    assert nonzeros(model[3]) == 32


@pytest.mark.parametrize("name", [name for name in MODELS if name != "mlp"])
def test_every_model_starts_at_the_density_asked_for(name: str) -> None:
    model = sparsify_(build(name), 0.01)
    total = density_report(model).total
    assert density(model) == round(0.01 * total) / total


@pytest.mark.parametrize("wanted", [0, -0.1, 1.001, 2, float("nan"), float("inf"), "0.1", None])
def test_densities_out_of_range_are_refused(wanted: float) -> None:
    model = nn.Linear(5, 5)
    with pytest.raises(ValueError, match=r"density must lie in \(0, 1\], got .*: 0.01 keeps 1 %"):
        sparsify_(model, wanted)
    assert model.weight._version == nn.Linear(5, 5).weight._version


def test_a_density_too_small_for_every_layer_leaves_some_without_a_weight() -> None:
    model = sparsify_(mlp((10, 10, 10, 10)), 2 / 300)
    assert sorted(nonzeros(layer) for layer in (model.fc1, model.fc2, model.fc3)) == [0, 1, 1]
    assert all(torch.isfinite(p).all() for p in model.parameters())
    with pytest.raises(ValueError, match=r"keeps none of 300 groups: use at least 0.0033"):
        sparsify_(model, 0.001)


@settings(max_examples=30)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    k=st.integers(1, 50),
    seed=st.integers(0, 9),
    conv=st.booleans(),
)
def test_the_rank_is_exactly_the_one_asked_for(rows: int, columns: int, k: int, seed: int, conv: bool) -> None:
    layer = nn.Conv2d(columns, rows, 3) if conv else nn.Linear(columns, rows)
    low_rank_(layer, k, seed=seed)
    assert rank(layer.weight) == min(k, rows, layer.weight[0].numel())


def test_the_rank_holds_through_other_views() -> None:
    conv = low_rank_(nn.Conv2d(8, 6, 5), 4, view="spatial")
    assert rank(conv.weight, view="spatial") == 4
    assert rank(conv.weight) == 6


@pytest.mark.parametrize("k", [1, 5, 80])
def test_the_entries_of_low_rank_weights_have_the_variance_of_dense_ones(k: int) -> None:
    draws = [low_rank_(nn.Linear(120, 80), k, seed=seed).weight.detach().square().mean() for seed in range(60)]
    assert float(sum(draws)) / 60 == pytest.approx(2 / 120, rel=0.08)


@pytest.mark.parametrize("k", [0, -1, 2.0, True, "3"])
def test_wrong_ranks_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match="rank must be an integer >= 1, got"):
        low_rank_(nn.Linear(5, 5), k)


def test_single_elements_have_no_rank() -> None:
    with pytest.raises(ValueError, match=r"view 'elements' of parameter '0.weight' is no matrix"):
        low_rank_(nn.Sequential(nn.Linear(5, 5)), 2, view={nn.Linear: "elements"})


def test_one_dict_of_views_serves_models_with_and_without_what_its_types_name() -> None:
    views: dict[type[nn.Module] | str, str] = {nn.Linear: "elements", nn.Conv2d: "kernels"}
    plain, mapped = sparsify_(mlp((30, 20)), 0.1), sparsify_(mlp((30, 20)), 0.1, view=views)
    assert torch.equal(plain.fc1.weight, mapped.fc1.weight)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.ReLU(), {}, "ReLU has no linear or convolutional layer"),
        (nn.LazyLinear(3), {}, "'weight' has no shape yet: run the model once"),
        (mlp((3, 2)), {"init": "he"}, "init 'he' is unknown: use one of kaiming, xavier"),
        (mlp((3, 2)), {"view": "kernels"}, "parameter 'fc1.weight': view 'kernels' needs a convolution"),
        (mlp((3, 2)), {"view": "cells"}, "view 'cells' is unknown"),
        (mlp((3, 2)), {"view": {nn.Conv2d: "rows"}}, "view leaves no layer to draw anew"),
        (mlp((3, 2)), {"view": {"conv*": "rows"}}, r"'conv\*' applies to nothing: there are 'fc1.weight'"),
        (mlp((3, 2)), {"view": {"fc1": None}}, "view leaves no layer to draw anew"),
    ],
)
def test_errors_name_what_is_wrong(model: nn.Module, options: dict[str, str], message: str) -> None:
    for start in (sparsify_, low_rank_):
        with pytest.raises(ValueError, match=message):
            start(model, 1, **options)


@pytest.mark.filterwarnings("ignore")
def test_parametrised_weights_are_refused() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 2)))
    with pytest.raises(ValueError, match=r"layer '0' computes its weight \(a parametrisation\?\)"):
        sparsify_(model)


def test_generators_of_other_devices_are_refused() -> None:
    class Elsewhere(torch.Generator):
        device = torch.device("meta")

    with pytest.raises(ValueError, match="generator must be on the CPU, got one on meta"):
        sparsify_(nn.Linear(3, 2), generator=Elsewhere())
