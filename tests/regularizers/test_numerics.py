"""Floating point and memory, for every row of the table: precisions, scales, layouts, `out`, empty tensors, NaN."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from tests.regularizers.cases import NORMS, PENALTIES, in_domain
from torch_bregman.views import get_view

HALVES = [torch.float16, torch.bfloat16]
WHOLES = [torch.float32, torch.float64]
PLACES = [(setting, shape) for setting in PENALTIES for shape in setting.shapes()]

every_penalty = pytest.mark.parametrize("setting", PENALTIES, ids=str)
every_place = pytest.mark.parametrize(("setting", "shape"), PLACES, ids=str)


def sample(setting, shape, dtype=torch.float64, zeros=True):
    """Return a random tensor, its last group zero where asked."""
    x = 2 * torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    if zeros:
        x.view(-1)[torch.from_numpy(setting.groups(shape)[-1])] = 0
    return x.to(dtype)


def transposed(x):
    backwards = tuple(reversed(range(x.ndim)))
    return x.permute(backwards).contiguous().permute(backwards)


def strided(x):
    return torch.stack([x, torch.full_like(x, torch.nan)], dim=-1)[..., 0]


def channels_last(x):
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats[x.ndim]) if x.ndim in formats else transposed(x)


def contiguous(x):
    return x.clone()


LAYOUTS = [contiguous, transposed, strided, channels_last]


def results(reg, x):
    """Return all that a regulariser says about a point, by name."""
    theta = in_domain(reg, x)
    return {
        "prox": reg.prox(x, 0.7),
        "mirror": reg.mirror(x, 3.0),
        "subgradient": reg.subgradient(theta),
        "inverse mirror": reg.inverse_mirror(theta, 3.0),
        "value": reg.value(theta),
        "dual norm": reg.dual_norm(x),
    }


class TestPrecision:
    @every_place
    def test_results_agree_with_float64_to_rounding(self, setting, shape):
        for dtype in (*HALVES, torch.float32):
            reg, x = setting.make(lam=0.3), sample(setting, shape, dtype)
            exact = results(reg, x.double())
            for name, result in results(reg, x).items():
                assert result.dtype == dtype, name
                slack = 4 * torch.finfo(dtype).eps * max(1.0, float(x.abs().max()), float(exact[name].abs().max()))
                assert (result.double() - exact[name]).nan_to_num(0).abs().max() <= slack, (name, dtype)

    @every_penalty
    @pytest.mark.parametrize("size", [300.0, 6e4])  # the squares of both leave the range of float16
    def test_large_halves_do_not_overflow(self, setting, size):
        x = torch.full(setting.shapes()[-1], size, dtype=torch.float16)
        for lam in (0.5, size / 4):
            reg = setting.make(lam=lam)
            for method in (reg.prox, reg.subgradient):
                exact = method(x.double()).to(x.dtype)
                torch.testing.assert_close(method(x), exact, rtol=2e-3, atol=0)

    @every_place
    @pytest.mark.parametrize("delta", [0.3, 1.0, 10.0])
    def test_mirror_undoes_inverse_mirror(self, setting, shape, delta):
        for dtype, lam in product(WHOLES, [0.0, 0.5, 3.0]):
            reg = setting.make(lam=lam)
            theta = in_domain(reg, sample(setting, shape, dtype))
            v = reg.inverse_mirror(theta, delta)
            size = float(theta.abs().max()) + delta * float(v.abs().max())
            back = reg.mirror(v, delta)
            torch.testing.assert_close(back, theta, rtol=0, atol=8 * torch.finfo(dtype).eps * size)

    @pytest.mark.parametrize("setting", NORMS, ids=str)
    @pytest.mark.parametrize("scale", [1e-290, 1e-150, 1e-30, 1e-18, 1e-9, 1e9, 1e18, 1e30, 1e150, 1e290])
    def test_extreme_scales(self, setting, scale):
        for dtype in WHOLES if 1e-31 < scale < 1e31 else WHOLES[1:]:
            reg, x = setting.make(lam=0.5), sample(setting, setting.shapes()[-1], dtype)
            theta = in_domain(reg, x)
            close = dict.fromkeys(("rtol", "atol"), 20 * torch.finfo(dtype).eps)
            shrunk, mapped = reg.prox(scale * x, lam=scale * 0.5), reg.mirror(scale * x, 3.0, lam=scale * 0.5)
            torch.testing.assert_close(shrunk / scale, reg.prox(x), **close)
            torch.testing.assert_close(mapped / scale, reg.mirror(x, 3.0), **close)
            torch.testing.assert_close(reg.subgradient(scale * theta), reg.subgradient(theta), **close)
            torch.testing.assert_close(reg.value(scale * theta) / scale, reg.value(theta), **close)
            torch.testing.assert_close(reg.dual_norm(scale * x) / scale, reg.dual_norm(x), **close)

    @every_penalty
    @pytest.mark.parametrize(("dtype", "tiny"), [(torch.float32, 1e-41), (torch.float64, 1e-310)], ids=str)
    def test_subnormal_entries_are_not_lost(self, setting, dtype, tiny):
        reg, x = setting.make(), torch.full(setting.shapes()[-1], tiny, dtype=dtype)
        torch.testing.assert_close(reg.prox(x, lam=0.0), x, rtol=1e-3, atol=0)
        if setting in NORMS:
            assert not reg.prox(x, lam=1.0).any()

    @every_place
    def test_nan_is_never_hidden(self, setting, shape):
        for dtype in WHOLES:
            reg, x = setting.make(), sample(setting, shape, dtype).abs()
            x.view(-1)[0] = torch.nan
            for method in (reg.prox, reg.mirror, reg.inverse_mirror):
                try:
                    result = method(x)
                except (ValueError, torch.linalg.LinAlgError):  # to refuse it is not to hide it
                    continue
                assert result.view(-1)[0].isnan(), method.__name__

    @every_penalty
    def test_a_nan_gradient_has_no_first_activation(self, setting):
        x = sample(setting, setting.shapes()[-1])
        x.view(-1)[0] = torch.nan
        with pytest.raises((ValueError, torch.linalg.LinAlgError), match=r"nan|non-finite"):
            setting.make().first_activation(x, lr=0.1)


class TestMemory:
    @every_place
    def test_strides_do_not_matter(self, setting, shape):
        reg, x = setting.make(), sample(setting, shape)
        expected = results(reg, x)
        for layout in LAYOUTS[1:]:
            for name, result in results(reg, layout(x)).items():
                torch.testing.assert_close(result, expected[name], rtol=0, atol=1e-13)

    @every_place
    @pytest.mark.parametrize("method", ["prox", "mirror"])
    def test_out_is_written_in_its_own_layout(self, setting, shape, method):
        reg, x = setting.make(), sample(setting, shape)
        expected, before = getattr(reg, method)(x, 0.7), x.clone()
        for layout in LAYOUTS:
            out = layout(torch.full_like(x, torch.nan))
            place = out.data_ptr(), out.stride(), out.shape
            assert getattr(reg, method)(x, 0.7, out=out) is out
            assert (out.data_ptr(), out.stride(), out.shape) == place
            torch.testing.assert_close(out, expected, rtol=0, atol=1e-13)
            assert torch.equal(x, before)

    @every_place
    @pytest.mark.parametrize("method", ["prox", "mirror"])
    def test_in_place(self, setting, shape, method):
        reg = setting.make()
        for layout in LAYOUTS:
            x = layout(sample(setting, shape))
            expected, place = getattr(reg, method)(x.clone(), 0.7), (x.data_ptr(), x.stride())
            assert getattr(reg, method)(x, 0.7, out=x) is x
            assert (x.data_ptr(), x.stride()) == place
            torch.testing.assert_close(x, expected, rtol=0, atol=1e-13)

    @every_place
    @pytest.mark.parametrize("method", ["prox", "mirror"])
    def test_out_of_another_dtype(self, setting, shape, method):
        reg, x = setting.make(), sample(setting, shape, torch.float32)
        expected = getattr(reg, method)(x, 0.7)
        for dtype in (*HALVES, torch.float64):
            out = torch.full(shape, torch.nan, dtype=dtype)
            assert getattr(reg, method)(x, 0.7, out=out) is out
            assert out.dtype == dtype
            torch.testing.assert_close(out.double(), expected.double(), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)

    @every_place
    def test_results_are_new_memory_and_the_argument_untouched(self, setting, shape):
        for lam in (0.0, 0.5, 100.0):
            reg, x = setting.make(lam=lam), in_domain(setting.make(), sample(setting, shape))
            before = x.clone()
            for method in (reg.prox, reg.mirror, reg.subgradient, reg.inverse_mirror):
                method(x).fill_(7)
                assert torch.equal(x, before), method.__name__
            for step in (0.0, 1.0):
                reg.prox(x, step).fill_(7)
                assert torch.equal(x, before)


EMPTY = [(0,), (0, 3), (4, 0), (2, 0), (0, 3, 3, 3), (2, 0, 3, 3), (4, 3, 0, 3), (0, 3, 2)]


def _accepts(view, shape):
    try:
        get_view(view).check(torch.Size(shape))
    except ValueError:
        return False
    return True


class TestEdges:
    @every_penalty
    def test_empty_tensors(self, setting):
        shapes = [shape for shape in EMPTY if setting.view is None or _accepts(setting.view, shape)]
        assert len(shapes) >= 2
        for shape, dtype in product(shapes, [torch.float16, *WHOLES]):
            reg, x = setting.make(), torch.zeros(shape, dtype=dtype)
            for name, result in results(reg, x).items():
                assert result.dtype == dtype
                assert result.shape == (() if name in {"value", "dual norm"} else shape), name
                assert not result.any()
            assert reg.prox(x, out=x) is x
            assert reg.coupled(x.bool()).shape == shape
            assert reg.first_activation(x, lr=0.1) == float("inf")

    @every_place
    def test_a_tensor_of_zeros(self, setting, shape):
        for result in results(setting.make(), torch.zeros(shape, dtype=torch.float64)).values():
            assert not result.any()

    @pytest.mark.parametrize("setting", [s for s in PENALTIES if () in s.shapes()], ids=str)
    @pytest.mark.parametrize("entry", [2.0, -2.0, 0.1, 0.0])
    def test_a_scalar_is_a_vector_of_one(self, setting, entry):
        reg = setting.make()
        single = results(reg, torch.tensor([entry]))
        for name, result in results(reg, torch.tensor(entry)).items():
            assert result.shape == ()
            torch.testing.assert_close(result, single[name].squeeze())


class TestGradientOfTheValue:
    @every_place
    def test_agrees_with_finite_differences(self, setting, shape):
        reg, x = setting.make(), sample(setting, shape, zeros=False)
        x = x if torch.isfinite(reg.value(x)) else x.abs()
        assert torch.autograd.gradcheck(reg.value, x.requires_grad_())

    @every_place
    def test_agrees_with_the_subgradient_where_there_is_one_only(self, setting, shape):
        for dtype in WHOLES:
            reg, x = setting.make(), sample(setting, shape, dtype, zeros=False)
            x = x if torch.isfinite(reg.value(x)) else x.abs()
            (gradient,) = torch.autograd.grad(reg.value(x.requires_grad_()), x)
            expected = reg.subgradient(x.detach())
            torch.testing.assert_close(gradient, expected, rtol=0, atol=20 * torch.finfo(dtype).eps)

    @pytest.mark.parametrize("setting", NORMS, ids=str)
    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_at_extreme_scales(self, setting, scale):
        reg, x = setting.make(), sample(setting, setting.shapes()[-1], torch.float32, zeros=False).abs() * scale
        (gradient,) = torch.autograd.grad(reg.value(x.requires_grad_()), x)
        torch.testing.assert_close(gradient, reg.subgradient(x.detach()), rtol=0, atol=1e-5)

    @every_place
    @pytest.mark.parametrize("all_zero", [True, False])
    def test_is_finite_at_zero_groups(self, setting, shape, all_zero):
        for dtype in (*HALVES, *WHOLES):
            reg, x = setting.make(), sample(setting, shape, dtype).abs()
            x = torch.zeros_like(x) if all_zero else x
            (gradient,) = torch.autograd.grad(reg.value(x.requires_grad_()), x)
            assert torch.isfinite(gradient).all()
