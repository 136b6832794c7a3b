"""The native step: the numbers and the state of the loop, whatever the options and however the memory lies."""

from __future__ import annotations

import copy
import io
import itertools
import shutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import torch_bregman as tb
from torch_bregman.optim.native import build, kernel

from .zoo import Problem, same

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, build.COMPILERS)), reason=f"needs a C compiler, one of {', '.join(build.COMPILERS)}"
)

Build = Callable[..., Any]
REGULARIZERS = [
    tb.NoRegularizer(),
    tb.L1(0.1),
    tb.NonNegativeL1(0.1),
    tb.ElasticNet(0.15, l1_ratio=0.4),
    tb.GroupL2(0.02),
    tb.GroupL2(0.15, weighted=False),
]
LINBREG = [{"momentum": 0.0}, {"momentum": 0.9, "dampening": 0.6}, {"momentum": 0.8, "nesterov": True}]
ADABREG = [{"amsgrad": False}, {"amsgrad": True, "betas": (0.8, 0.95)}]
SHARED = {"maximize": [False, True], "delta": [1.0, 1.7], "weight_decay": [0.0, 0.1]}
SHAPES = [(), (1,), (0, 3), (5, 0), (7,), (3, 5), (16, 16), (2, 129), (3, 128), (131,), (4, 3, 3, 3), (3, 1, 1500)]


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_BREGMAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        build._load.cache_clear()
        kernel._program.cache_clear()
        yield


def laid_out(value: Tensor, layout: str) -> nn.Parameter:
    """Return a parameter of these entries, in memory of its own as the layout says."""
    if layout == "misaligned":
        room = torch.zeros(value.numel() + 3)[3:]
        return nn.Parameter(room.copy_(value.reshape(-1)).view(value.shape))
    if layout == "channels_last" and value.ndim == 4:
        return nn.Parameter(value.contiguous(memory_format=torch.channels_last))
    if layout == "transposed" and value.ndim == 2:
        return nn.Parameter(value.t().contiguous().t())
    return nn.Parameter(value.clone())


class Twins:
    """The same steps taken by the loop, and by the native program."""

    def __init__(
        self, kind: Build, regularizer: tb.Regularizer, shapes: list[tuple[int, ...]], layout: str = "", **options: Any
    ):
        self.draw = torch.Generator().manual_seed(3)
        values = [torch.rand(shape, generator=self.draw) for shape in shapes]
        for value in values:
            if value.ndim:
                value[1::2] = 0
        self.loop, self.native = ([laid_out(value, layout) for value in values] for _ in range(2))
        self.options = {"lr": 0.05, "regularizer": regularizer, **options}
        self.optimizers = (
            kind(self.loop, foreach=False, **self.options),
            kind(self.native, compiled=True, **self.options),
        )

    def step(self, times: int = 1) -> Twins:
        for _ in range(times):
            for ours, theirs in zip(self.loop, self.native, strict=True):
                ours.grad = torch.randn(ours.shape, generator=self.draw) + 0.5
                theirs.grad = ours.grad.clone()
            for optimizer in self.optimizers:
                optimizer.step()
        return self

    def check(self, rtol: float = 3e-6, atol: float = 1e-6) -> None:
        torch.testing.assert_close(self.native, self.loop, rtol=rtol, atol=atol)
        loop, native = (optimizer.state_dict()["state"] for optimizer in self.optimizers)
        assert {index: list(state) for index, state in native.items()} == {i: list(state) for i, state in loop.items()}
        torch.testing.assert_close(native, loop, rtol=rtol, atol=atol)
        for ours, theirs in zip(self.loop, self.native, strict=True):
            assert ours.stride() == theirs.stride()


@pytest.fixture(autouse=True)
def _nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a weight falls to torch.compile: these tests are of the native program."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("this step was to be native")

    for kind in (tb.LinBreg, tb.AdaBreg):
        monkeypatch.setattr(kind, "_run", refuse)


@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=lambda r: f"{r.name}-{getattr(r, 'weighted', '')}")
@pytest.mark.parametrize(
    ("kind", "update"),
    [(kind, own) for kind, options in ((tb.LinBreg, LINBREG), (tb.AdaBreg, ADABREG)) for own in options],
    ids=lambda value: getattr(value, "__name__", None) or ",".join(value),
)
def test_every_option_agrees_with_the_loop(kind: Build, update: dict[str, Any], regularizer: tb.Regularizer):
    for chosen in itertools.product(*SHARED.values()):
        Twins(kind, regularizer, SHAPES, **update, **dict(zip(SHARED, chosen, strict=True))).step(5).check()


@given(
    shapes=st.lists(st.lists(st.integers(0, 40), max_size=4).map(tuple), min_size=1, max_size=3),
    layout=st.sampled_from(["", "misaligned", "channels_last", "transposed"]),
    regularizer=st.sampled_from(REGULARIZERS[:4]),
    kind=st.sampled_from([tb.LinBreg, tb.AdaBreg]),
    streamed=st.booleans(),
    threads=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_any_shape_layout_and_number_of_threads(
    shapes: list[tuple[int, ...]], layout: str, regularizer: tb.Regularizer, kind: Build, streamed: bool, threads: int
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "_STREAMED", 1 if streamed else 1 << 60)
        patch.setattr(kernel, "_SHARE", 1)
        patch.setattr(torch, "get_num_threads", lambda: threads)
        Twins(kind, regularizer, shapes, layout).step(2).check()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("view", "shape", "layout"),
    [
        ("rows", (9, 5), ""),
        ("rows", (5, 300), "misaligned"),
        ("rows", (6, 2, 3, 3), "channels_last"),
        ("filters", (4, 40, 3, 3), "misaligned"),
        ("kernels", (5, 7, 3, 3), ""),
        ("heads(2)", (6, 130), ""),
        ("columns", (7, 5), "transposed"),
    ],
)
def test_groups_that_are_pieces_of_memory(
    view: str, shape: tuple[int, ...], layout: str, streamed: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(kernel, "_STREAMED", 1 if streamed else 1 << 60)
    for threads in (1, 2):
        monkeypatch.setattr(kernel, "_SHARE", 1)
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        twins = Twins(tb.LinBreg, tb.GroupL2(0.8, view=view), [shape], layout, momentum=0.5).step(6)
        twins.check()
        asleep = float((twins.native[0] == 0).float().mean())
        assert 0 < asleep < 1 or view not in ("rows", "filters"), "some groups must sleep, and some be awake"


@pytest.mark.parametrize("regularizer", [tb.L1(0.1), tb.GroupL2(0.02)], ids=lambda r: r.name)
def test_threads_change_no_bit(regularizer: tb.Regularizer, monkeypatch: pytest.MonkeyPatch):
    runs = []
    monkeypatch.setattr(kernel, "_SHARE", 1)
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        runs.append(Twins(tb.AdaBreg, regularizer, SHAPES).step(3))
    for other in runs[1:]:
        assert same(other.native, runs[0].native)


@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=lambda r: f"{r.name}-{getattr(r, 'weighted', '')}")
@pytest.mark.parametrize("kind", [tb.LinBreg, tb.AdaBreg])
def test_nan_and_inf_go_where_the_loop_lets_them(kind: Build, regularizer: tb.Regularizer):
    twins = Twins(kind, regularizer, [(4, 20), (4, 200)])
    for ours, theirs in zip(twins.loop, twins.native, strict=True):
        ours.grad = torch.ones_like(ours)
        ours.grad[0, 3], ours.grad[1, 5], ours.grad[2, 7] = torch.nan, torch.inf, -torch.inf
        theirs.grad = ours.grad.clone()
    for optimizer in twins.optimizers:
        optimizer.step()
    for ours, theirs in zip(twins.loop, twins.native, strict=True):
        torch.testing.assert_close(theirs, ours, equal_nan=True)


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18, 1e30])
def test_groups_of_extreme_length(scale: float):
    lam = 0.5 * scale
    weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]) * scale)
    reference = weight.detach().double()
    norms = reference.norm(dim=1, keepdim=True)
    weight.grad = torch.zeros_like(weight)
    optimizer = tb.LinBreg([weight], lr=1.0, regularizer=tb.GroupL2(lam, weighted=False), compiled=True)
    optimizer.step()
    torch.testing.assert_close(weight.detach().double(), reference, rtol=1e-6, atol=0)
    weight.grad = 0.5 * reference.float() + lam * (reference / norms).nan_to_num(0).float()  # leaves θ/2
    optimizer.step()
    v = reference / 2
    expected = v * (1 - lam / v.norm(dim=1, keepdim=True)).clamp_min(0).nan_to_num(0)
    torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-5, atol=1e-6 * scale)


def test_entries_within_the_threshold_are_zero_and_the_rest_exact():
    v = torch.linspace(-3, 3, 601)
    for regularizer in (tb.L1(0.7), tb.NonNegativeL1(0.7), tb.ElasticNet(0.7, 0.3)):
        weight = nn.Parameter(torch.zeros_like(v))
        weight.grad = -v
        tb.LinBreg([weight], lr=1.0, delta=1.3, regularizer=regularizer, compiled=True).step()
        expected = regularizer.mirror(v, 1.3)
        assert torch.equal(weight == 0, expected == 0)
        torch.testing.assert_close(weight.detach(), expected, rtol=3e-7, atol=0)


@pytest.mark.parametrize("kind", [tb.LinBreg, tb.AdaBreg])
def test_gradients_and_storage_stay_and_versions_move(kind: Build):
    weight = nn.Parameter(torch.rand(5, 4))
    weight.grad = torch.rand(5, 4)
    grad, value, place = weight.grad, weight.grad.clone(), weight.data_ptr()
    optimizer = kind([weight], lr=0.1, regularizer=tb.L1(0.1), compiled=True)
    for _ in range(2):
        before = weight._version, grad._version
        optimizer.step()
        assert weight._version > before[0]
        assert grad._version == before[1]
    assert weight.grad is grad
    assert torch.equal(grad, value)
    assert weight.data_ptr() == place
    assert weight.is_leaf


def test_autograd_notices_a_step_between_forward_and_backward():
    weight = nn.Parameter(torch.rand(3))
    optimizer = tb.LinBreg([weight], lr=0.1, regularizer=tb.L1(0.1), compiled=True)
    weight.grad = torch.ones(3)
    loss = weight.square().sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_weights_changed_by_other_hands_are_noticed():
    weight = nn.Parameter(torch.rand(4))
    optimizer = tb.LinBreg([weight], lr=0.1, regularizer=tb.L1(0.1), compiled=True)
    weight.grad = torch.zeros(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
        optimizer.step()
    with torch.no_grad():
        weight[0] = 7.0
    with pytest.warns(UserWarning, match="weights were changed outside"):
        optimizer.step()
    assert float(weight.detach()[0]) == pytest.approx(7.0)


def test_a_weight_that_changed_its_layout_is_not_scrambled():
    twins = Twins(tb.LinBreg, tb.L1(0.05), [(4, 3, 3, 3)]).step()
    for param in (*twins.loop, *twins.native):
        param.data = param.data.to(memory_format=torch.channels_last)  # as model.to(memory_format=…) does
    taken: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tb.LinBreg, "_run", lambda self, batch, states: taken.append(batch))
        twins.optimizers[1].param_groups[0]["lr"] = 0.05
        twins.native[0].grad = torch.ones_like(twins.native[0])
        twins.optimizers[1].step()
    assert len(taken) == 1, "v lies otherwise than θ, so torch.compile has to take the step"


def test_a_batch_of_both_kinds_is_split_and_every_weight_moves_once(monkeypatch: pytest.MonkeyPatch):
    slices = [nn.Parameter(torch.ones(4, 6)[:, ::2]), nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2).double())]
    other: list[Tensor] = []
    monkeypatch.setattr(tb.LinBreg, "_run", lambda self, batch, states: other.extend(batch.params))
    for param in slices:
        param.grad = torch.ones_like(param)
    tb.LinBreg(slices, lr=0.25, regularizer=tb.NoRegularizer(), compiled=True).step()
    assert [param is found for param, found in zip((slices[0], slices[2]), other, strict=True)] == [True, True]
    assert torch.equal(slices[1].detach(), torch.full((3,), 0.75))
    assert torch.equal(slices[0].detach(), torch.ones(4, 3))


@pytest.mark.parametrize("kind", [tb.LinBreg, tb.AdaBreg])
def test_training_goes_on_bit_for_bit_from_a_checkpoint_and_a_copy(kind: Build):
    def begin() -> tuple[Problem, Any]:
        problem = Problem()
        return problem, kind(problem.groups(tb.GroupL2(0.01)), lr=0.05, compiled=True)

    problem, optimizer = begin()
    problem.step(optimizer, 3)
    buffer = io.BytesIO()
    torch.save({"model": problem.model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    buffer.seek(0)
    twin, copied = copy.deepcopy((problem, optimizer))
    other, resumed = begin()
    saved = torch.load(buffer, weights_only=True)
    other.model.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    for run, by in ((problem, optimizer), (twin, copied), (other, resumed)):
        run.step(by, 3)
    assert same(problem.values(), other.values())
    assert same(problem.values(), twin.values())


def test_lr_zero_none_gradients_and_a_tensor_as_lr():
    twins = Twins(tb.LinBreg, tb.L1(0.1), [(3,), (4, 2)], momentum=0.5).step(2)
    before = [param.detach().clone() for param in twins.native]
    group = twins.optimizers[1].param_groups[0]
    group["lr"] = 0.0
    twins.optimizers[1].step()
    assert same(before, twins.native)
    group["lr"] = torch.tensor(0.05)
    twins.native[0].grad = None
    twins.optimizers[1].step()
    assert torch.equal(twins.native[0].detach(), before[0])
    assert not torch.equal(twins.native[1].detach(), before[1])


@pytest.mark.parametrize("kind", [tb.LinBreg, tb.AdaBreg])
@pytest.mark.parametrize(
    ("view", "weight"),
    [
        ("columns", torch.ones(3, 4)),
        ("blocks(2, 2)", torch.ones(4, 4)),
        ("rows", torch.ones(3, 4).t()),
        ("rows", torch.ones(3, 4, dtype=torch.float64)),
        ("rows", torch.ones(3, 8)[:, ::2]),
        ("rows", torch.ones(3, 4, device="meta")),
    ],
)
def test_groups_that_are_no_pieces_of_memory_are_refused(kind: Build, view: str, weight: Tensor):
    with pytest.raises(ValueError, match=r"pieces of memory.*got GroupL2.*compiled=False"):
        kind([nn.Parameter(weight)], lr=0.1, regularizer=tb.GroupL2(0.1, view=view), compiled=True)


def test_groups_of_a_weight_that_changed_its_dtype_are_refused_at_the_step():
    weight = nn.Parameter(torch.ones(3, 4))
    optimizer = tb.LinBreg([weight], lr=0.1, regularizer=tb.GroupL2(0.1), compiled=True)
    weight.data = weight.data.double()
    weight.grad = torch.ones_like(weight)
    with pytest.raises(ValueError, match=r"got GroupL2.* for torch.float64"):
        optimizer.step()
