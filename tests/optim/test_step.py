"""What a step may touch and what it must leave alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch_bregman as tb
from torch_bregman.regularizers import Regularizer
from torch_bregman.views import get_view

from .zoo import OPTIONS, REGULARIZERS, ROWS, Row, each, go_together, named, packed, pairs, same, start

FIXED = [row for row in ROWS if row.name != "bregman-rprop"]  # whose steps have a least length of their own
ONE_PER_ALGORITHM = named("linbreg-momentum", "adabreg", "proxsgd-momentum-decay", "pgd", "bregman-adam")


def implementations(rows: list[Row] = ROWS) -> Any:
    pairs = [(row, name) for row in rows for name in row.implementations]
    return pytest.mark.parametrize(
        ("row", "options"), [pytest.param(row, OPTIONS[name], id=f"{row.name}-{name}") for row, name in pairs]
    )


def filled(*params: Tensor, value: float = 1.0) -> Any:
    """Return a closure that gives the parameters a constant gradient."""

    def closure() -> Tensor:
        for param in params:
            param.grad = torch.full_like(param, value)
        return sum((value * param.detach().sum() for param in params), torch.zeros(()))

    return closure


@pairs()
def test_weights_stay_the_tensors_they_were(row: Row, regularizer: Regularizer):
    problem, optimizer = start(row, regularizer)
    before = [(param, param.data_ptr(), param.untyped_storage().data_ptr()) for param in problem.params()]
    problem.step(optimizer, 3)
    assert all(a is b for (a, _, _), b in zip(before, problem.params(), strict=True))
    assert [(p.data_ptr(), p.untyped_storage().data_ptr()) for p in problem.params()] == [b[1:] for b in before]
    assert all(param.is_leaf and param.requires_grad for param in problem.params())


@implementations()
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("regularizer", [tb.L1(0.02), tb.NoRegularizer()], ids=["l1", "none"])
def test_gradients_are_read_only(row: Row, options: dict[str, Any], maximize: bool, regularizer: Regularizer):
    problem, optimizer = start(row, regularizer, maximize=maximize, **options)
    for _ in range(3):
        optimizer.zero_grad()
        problem.loss().backward()
        grads = [param.grad for param in problem.params()]
        values = [grad.clone() for grad in grads]
        optimizer.step()
        assert all(param.grad is grad for param, grad in zip(problem.params(), grads, strict=True))
        assert same(grads, values)


@each()
def test_the_closure_runs_with_gradients_and_its_loss_comes_back(row: Row):
    problem, optimizer = start(row, tb.L1(0.02))
    enabled: list[bool] = []

    def closure() -> Tensor:
        enabled.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = problem.loss()
        loss.backward()
        return loss

    expected = problem.loss().item()
    with torch.no_grad():
        loss = optimizer.step(closure)
    assert all(enabled)
    assert torch.as_tensor(loss).item() == pytest.approx(expected, rel=1e-6)


@each(where=lambda row: row.kind is not tb.PGD)
def test_a_step_without_closure_returns_none(row: Row):
    problem, optimizer = start(row, tb.L1(0.02))
    problem.loss().backward()
    assert optimizer.step() is None


@pairs(rows=FIXED)
def test_a_step_with_lr_zero_changes_nothing(row: Row, regularizer: Regularizer):
    """Neither at the start, where v is made, nor in mid-run with momentum in flight; to the last bit."""
    problem, optimizer = start(row, regularizer)
    for _ in range(2):
        rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        before = problem.values()
        duals = {name: v.clone() for name, v in packed(optimizer) if name.endswith("subgrad")}
        problem.step(optimizer)
        assert same(problem.values(), before)
        assert all(torch.equal(v, duals.get(name, v)) for name, v in packed(optimizer) if name.endswith("subgrad"))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        problem.step(optimizer, 3)
        assert not same(problem.values(), before)


@pairs(rows=named("linbreg-momentum", "linbreg-delta-decay", "adabreg"), regularizers=REGULARIZERS[:-1])
def test_the_start_is_the_identity_of_the_mirror_map(row: Row, regularizer: Regularizer):
    """A zero gradient and a positive lr show v₀ = θ₀/δ + λp₀ mapped back: θ₀ to rounding."""
    problem, optimizer = start(row, regularizer, weight_decay=0.0)
    before = problem.values()
    optimizer.step(filled(*problem.params(), value=0.0))
    for a, b in zip(problem.values(), before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@each()
def test_without_a_gradient_there_is_no_state_and_no_change(row: Row):
    used, unused = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3, 2))
    optimizer = row.build([used, unused], tb.L1(0.02))
    optimizer.step(filled(used))
    assert unused.detach().eq(1).all()
    assert not optimizer.state.get(unused)
    assert not used.detach().eq(1).all()


@each()
def test_a_gradient_that_pauses_pauses_the_weight(row: Row):
    a, b = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3, 2))
    optimizer = row.build([a, b], tb.L1(0.02))
    optimizer.step(filled(a, b))
    paused = b.detach().clone()
    b.grad = None
    optimizer.step(filled(a))
    if row.kind is not tb.PGD:
        assert torch.equal(b.detach(), paused)
    b.grad = None
    optimizer.step(filled(a, b))
    assert not torch.equal(b.detach(), paused)


@pairs(rows=ONE_PER_ALGORITHM)
@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (4, 0)], ids=str)
def test_tensors_without_dimensions_or_entries(row: Row, regularizer: Regularizer, shape: tuple[int, ...]):
    if getattr(regularizer, "view", None) == get_view("blocks(2, 2)") and len(shape) < 2:
        pytest.skip("a vector and a single entry have no blocks of 2 × 2")
    odd, normal = nn.Parameter(torch.full(shape, 2.0)), nn.Parameter(torch.ones(4, 4))
    optimizer = row.build([odd, normal], regularizer)
    for _ in range(3):
        optimizer.step(filled(odd, normal))
    assert odd.shape == shape
    assert torch.isfinite(odd).all()
    if odd.numel() and regularizer.deterministic:
        assert float(odd.detach()) < 2
    state = optimizer.state_dict()
    again = row.build([odd, normal], regularizer)
    again.load_state_dict(state)
    again.step(filled(odd, normal))


@each(FIXED)
def test_lr_as_a_tensor_is_lr_as_a_number(row: Row):
    runs = []
    for number in (row.options["lr"], torch.tensor(row.options["lr"], dtype=torch.float64)):
        problem, optimizer = start(row, tb.L1(0.02), lr=number)
        problem.step(optimizer, 3)
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * 0.5
        problem.step(optimizer, 3)
        runs.append(problem.values())
    for a, b in zip(*runs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def strided(values: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        return values.clone(memory_format=torch.channels_last)
    if layout == "transposed":
        return values.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "sliced":
        return torch.zeros(*values.shape[:-1], 2 * values.shape[-1])[..., ::2].copy_(values)
    return values.clone()


LAYOUTS = ["contiguous", "channels_last", "transposed", "sliced"]


@pytest.mark.parametrize("of_grad", [*LAYOUTS, "expanded"])
@pytest.mark.parametrize("of_weight", LAYOUTS)
@each()
def test_the_layout_of_memory_plays_no_part(row: Row, of_weight: str, of_grad: str):
    """Fused kernels read memory in order, whatever the strides: every mixture must give the same numbers."""
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(4, 2, 2, 2, generator=draw)
    grads = [torch.randn(4, 2, 2, 2, generator=draw) for _ in range(3)]
    if of_grad == "expanded":
        grads = [grad[:1, :1, :1, :1].expand(4, 2, 2, 2) for grad in grads]

    def run(layout: str, grad_layout: str, regularizer: Regularizer) -> Tensor:
        weight = nn.Parameter(strided(values, layout))
        assert weight.stride() == strided(values, layout).stride()
        optimizer = row.build([weight], regularizer)
        for grad in grads:

            def closure(grad: Tensor = grad) -> Tensor:
                weight.grad = grad if grad_layout == "expanded" else strided(grad, grad_layout)
                return (weight.detach() * grad).sum()

            optimizer.step(closure)
        return weight.detach()

    for regularizer in (tb.L1(0.02), tb.GroupL2(0.02, view="kernels"), tb.Nuclear(0.02), tb.NoRegularizer()):
        if not go_together(row, regularizer):
            continue
        reference = run("contiguous", "contiguous", regularizer)
        torch.testing.assert_close(run(of_weight, of_grad, regularizer), reference, rtol=1e-4, atol=1e-5)


@implementations()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_plays_no_part_in_any_implementation(row: Row, options: dict[str, Any], layout: str):
    draw = torch.Generator().manual_seed(0)
    values, grads = torch.randn(4, 2, 2, 2, generator=draw), torch.randn(3, 4, 2, 2, 2, generator=draw)
    runs = []
    for chosen, form in (({"foreach": False}, "contiguous"), (options, layout)):
        weight = nn.Parameter(strided(values, form))
        optimizer = row.build([weight], tb.NoRegularizer(), **chosen)
        for grad in grads:
            weight.grad = strided(grad, LAYOUTS[LAYOUTS.index(layout) - 1])
            optimizer.step()
        runs.append(weight.detach())
    torch.testing.assert_close(*runs, rtol=1e-4, atol=1e-5)


@pairs(rows=ONE_PER_ALGORITHM, regularizers=REGULARIZERS[:-1])
def test_one_group_may_mix_dtypes(row: Row, regularizer: Regularizer):
    """Every weight takes the course it would take alone."""
    kinds = [torch.float32, torch.bfloat16, torch.float64, torch.float16]
    draw = torch.Generator().manual_seed(0)
    values = torch.rand(4, 4, generator=draw)
    together = [nn.Parameter(values.clone().to(dtype)) for dtype in kinds]
    alone = [nn.Parameter(values.clone().to(dtype)) for dtype in kinds]
    for members in ([together], [[param] for param in alone]):
        for params in members:
            optimizer = row.build(params, regularizer, **({"lr": 0.1} if row.kind is tb.PGD else {}))
            for _ in range(3):
                optimizer.step(filled(*params, value=0.25))
    assert [param.dtype for param in together] == kinds
    for a, b in zip(together, alone, strict=True):
        loose = 1e-2 if a.dtype in (torch.bfloat16, torch.float16) else 1e-6
        torch.testing.assert_close(a.detach(), b.detach(), rtol=loose, atol=loose)
    for low in together:
        torch.testing.assert_close(low.detach().double(), together[2].detach(), rtol=3e-2, atol=3e-2)


@each()
def test_complex_parameters_are_refused(row: Row):
    weight = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"complex64: optimise torch.view_as_real"):
        row.build([weight])
    optimizer = row.build([nn.Parameter(torch.ones(2))])
    with pytest.raises(ValueError, match=r"complex64: optimise torch.view_as_real"):
        optimizer.add_param_group({"params": [weight]})
    assert len(optimizer.param_groups) == 1


@each()
def test_sparse_gradients_are_refused(row: Row):
    embedding, dense = nn.Embedding(5, 2, sparse=True), nn.Parameter(torch.ones(3))
    optimizer = row.build([{"params": [dense]}, {"params": [embedding.weight]}], tb.L1(0.1))
    before = embedding.weight.detach().clone()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = embedding(torch.tensor([1, 3])).sum() + dense.sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="build the embedding with sparse=False"):
        optimizer.step(closure)
    assert torch.equal(embedding.weight.detach(), before)


@each()
def test_groups_may_be_added_in_mid_run(row: Row):
    first, second = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3, 2))
    optimizer = row.build([first], tb.L1(0.02))
    optimizer.step(filled(first))
    optimizer.add_param_group({"params": [second], "regularizer": tb.GroupL2(0.01)})
    assert optimizer.param_groups[1]["lam"] == 0.01
    optimizer.step(filled(first, second))
    assert not second.detach().eq(1).any()


@each()
def test_step_hooks_run(row: Row):
    problem, optimizer = start(row, tb.L1(0.02))
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    problem.step(optimizer)
    assert calls == ["before", "after"]


@pairs(regularizers=REGULARIZERS[:-1])
def test_regularization_is_the_sum_of_the_penalties(row: Row, regularizer: Regularizer):
    problem, optimizer = start(row, regularizer)
    problem.step(optimizer, 2)
    weights = [param.detach() for param in problem.params() if param.ndim > 1]
    optimizer.param_groups[0]["lam"] = 0.7
    found = optimizer.regularization()
    assert len(found) == 2
    assert found[1] == 0.0
    assert found[0] == pytest.approx(0.7 * sum(map(direct(regularizer), weights)), rel=1e-5)


def direct(regularizer: Regularizer) -> Any:
    """Return J₁ of a matrix, summed as it is written."""
    rows, columns = lambda w: w.norm(dim=1).sum(), lambda w: w.norm(dim=0).sum()
    if isinstance(regularizer, tb.GroupL2) and str(regularizer.view) == "rows":
        return lambda w: w.shape[1] ** 0.5 * float(rows(w))
    if isinstance(regularizer, tb.GroupL2):
        return lambda w: float(
            sum(w[i : i + 2, j : j + 2].norm() for i in range(0, w.shape[0], 2) for j in range(0, w.shape[1], 2))
        )
    if isinstance(regularizer, tb.SparseGroup):
        return lambda w: 0.5 * float(w.abs().sum()) + 0.5 * w.shape[0] ** 0.5 * float(columns(w))
    if isinstance(regularizer, tb.ElasticNet):
        return lambda w: 0.5 * float(w.abs().sum()) + 0.25 * float(w.square().sum())
    if isinstance(regularizer, tb.Nuclear):
        return lambda w: (w.numel() ** 0.5 if regularizer.weighted else 1) * float(torch.linalg.svdvals(w).sum())
    if isinstance(regularizer, tb.NoRegularizer):
        return lambda w: 0.0
    return lambda w: float(w.abs().sum())
