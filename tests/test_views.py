"""The views against the partition stated index by index, their round trips, their names and their errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.partition import GROUP_OF, SHAPES, groups
from torch_bregman import views
from torch_bregman.views import Blocks, Columns, Elements, Filters, Heads, Kernels, Rows, Spatial, View, get_view

CASES = [(name, shape) for name in GROUP_OF for shape in SHAPES[name]]


def counted(shape):
    """Return a tensor whose entries are their own flat indices."""
    return torch.arange(float(np.prod(shape, dtype=int))).reshape(shape)


def strided(x):
    """Return the same entries with strides that no contiguous tensor has."""
    wide = torch.full((*x.shape, 2), torch.nan)
    wide[..., 0] = x
    return wide[..., 0]


def test_every_view_has_a_partition_to_be_tested_against():
    assert {str(name).split("(")[0] for name in GROUP_OF} == set(views._VIEWS)


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_matrix_holds_one_group_a_row(name, shape):
    matrix = get_view(name).matrix(counted(shape)).long().numpy()
    assert np.array_equal(matrix, np.stack(groups(name, shape)))


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_groups_hold_every_entry_once(name, shape):
    matrix = get_view(name).matrix(counted(shape))
    assert sorted(matrix.flatten().tolist()) == counted(shape).flatten().tolist()
    assert get_view(name).size(counted(shape)) == matrix.shape[1]


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
@pytest.mark.parametrize("layout", [lambda x: x, strided], ids=["contiguous", "strided"])
def test_restore_undoes_matrix(name, shape, layout):
    view, x = get_view(name), layout(counted(shape))
    assert torch.equal(view.restore(view.matrix(x), x), x)


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_matrix_reads_entries_whatever_the_memory_format(name, shape):
    x = counted(shape).contiguous(memory_format=torch.channels_last) if len(shape) == 4 else strided(counted(shape))
    view = get_view(name)
    assert np.array_equal(view.matrix(x).long().numpy(), np.stack(groups(name, shape)))
    assert torch.equal(view.restore(view.matrix(x), x), x)


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
@pytest.mark.parametrize("layout", [lambda x: x, strided, lambda x: strided(x.mT).mT if x.ndim > 1 else x])
def test_split_shares_memory(name, shape, layout):
    x = layout(counted(shape))
    split, inner = get_view(name).groups(x)
    assert split.data_ptr() == x.data_ptr()
    assert split.numel() == x.numel()
    assert all(0 <= d < split.ndim for d in inner)
    split.fill_(-1)
    assert (x == -1).all()


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_live_marks_the_groups_that_hold_a_non_zero(name, shape):
    parts = groups(name, shape)
    for chosen in range(len(parts)):
        x = torch.zeros(shape)
        x.view(-1)[int(parts[chosen][-1])] = 1e-30
        live = get_view(name).live(x)
        split, inner = get_view(name).groups(x)
        assert live.shape == tuple(1 if d in inner else n for d, n in enumerate(split.shape))
        assert live.flatten().tolist() == [g == chosen for g in range(len(parts))]


@pytest.mark.parametrize("name", list(GROUP_OF))
def test_live_sees_nan_as_alive(name):
    assert get_view(name).live(torch.full(SHAPES[name][-1], torch.nan)).all()


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.booleans())
def test_blocks_of_any_size_tile_the_weight(down, height, across, width, spatial):
    shape = (down * height, across * width, *([2] * spatial))
    matrix = Blocks(height, width).matrix(counted(shape))
    assert matrix.shape == (down * across, height * width * (2 if spatial else 1))
    first = counted(shape)[:height, :width].flatten()
    assert torch.equal(matrix[0], first)


@given(st.integers(1, 5), st.integers(1, 4))
def test_heads_are_consecutive_rows(count, size):
    x = counted((count * size, 2))
    assert torch.equal(Heads(count).matrix(x), x.reshape(count, size * 2))


@pytest.mark.parametrize(
    ("spelled", "view"),
    [
        ("elements", Elements()),
        ("rows", Rows()),
        (" rows ", Rows()),
        ("rows()", Rows()),
        ("columns", Columns()),
        ("filters", Filters()),
        ("kernels", Kernels()),
        ("spatial", Spatial()),
        ("heads(4)", Heads(4)),
        ("heads( 12 )", Heads(12)),
        ("blocks(4,2)", Blocks(4, 2)),
        (" blocks ( 4 , 2 ) ", Blocks(4, 2)),
    ],
)
def test_get_view_reads_names(spelled, view):
    assert get_view(spelled) == view
    assert get_view(str(view)) == view
    assert get_view(view) is view
    assert hash(get_view(spelled)) == hash(view)


def test_views_are_immutable():
    with pytest.raises(AttributeError):
        Heads(2).count = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "wrong",
    [
        *("", "row", "Rows", "rows(1)", "rows columns", "heads", "heads()", "heads(1, 2)", "heads(1.5)", "heads(-1)"),
        *("heads(2 3)", "heads(,2)", "blocks(2)", "blocks(1, 2, 3)", "blocks(2, 3", None, 5, Rows),
    ],
)
def test_unknown_views_are_refused_with_the_known_ones(wrong):
    with pytest.raises(ValueError, match="use one of elements, rows") as error:
        get_view(wrong)
    assert repr(wrong) in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Heads(0), "heads must be a whole number of at least 1, got 0"),
        (lambda: Heads(-3), "got -3"),
        (lambda: Heads(1.5), "got 1.5"),
        (lambda: get_view("heads(0)"), "got 0"),
        (lambda: Blocks(0, 2), "block rows must be a whole number of at least 1, got 0"),
        (lambda: Blocks(2, -1), "block columns must be a whole number of at least 1, got -1"),
    ],
)
def test_wrong_numbers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("filters", (4, 3), ["(4, 3)", "'rows'"]),
        ("filters", (4,), ["(4,)", "'rows'"]),
        ("kernels", (4, 3), ["(4, 3)", "'elements'"]),
        ("kernels", (), ["()", "'elements'"]),
        ("spatial", (4, 3, 3), ["(4, 3, 3)", "'rows'"]),
        ("spatial", (4, 3), ["(4, 3)", "'rows'"]),
        ("heads(2)", (3, 4), ["heads(2)", "3 rows", "2 must divide 3"]),
        ("heads(2)", (), ["heads(2)", "1 rows", "2 must divide 1"]),
        ("blocks(2, 3)", (3, 3), ["blocks(2, 3)", "3 rows", "2 must divide 3"]),
        ("blocks(2, 3)", (4, 4), ["blocks(2, 3)", "4 columns", "3 must divide 4"]),
        ("blocks(2, 3)", (4,), ["blocks(2, 3)", "1 columns", "3 must divide 1"]),
    ],
)
@pytest.mark.parametrize("method", ["groups", "matrix", "size", "live"])
def test_shapes_without_such_groups_are_refused(name, shape, words, method):
    with pytest.raises(ValueError, match="view") as error:
        getattr(get_view(name), method)(torch.zeros(shape))
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("name", "shape", "matrix"),
    [
        ("elements", (0,), (0, 1)),
        ("rows", (0,), (0, 1)),
        ("rows", (3, 0), (3, 0)),
        ("rows", (0, 3), (0, 3)),
        ("columns", (3, 0), (0, 3)),
        ("kernels", (0, 2, 3, 3), (0, 9)),
        ("spatial", (2, 0, 3, 3), (6, 0)),
        ("heads(2)", (0, 3), (2, 0)),
        ("blocks(2, 3)", (0, 3), (0, 6)),
    ],
)
def test_empty_tensors_have_empty_matrices(name, shape, matrix):
    x = torch.zeros(shape)
    assert get_view(name).matrix(x).shape == matrix
    assert get_view(name).restore(get_view(name).matrix(x), x).shape == shape
    assert not get_view(name).live(x).any()


def test_a_view_of_ones_own_is_taken_as_it_is():
    class First(View):
        name = "own"

        def inner(self, ndim):
            return (0,)

    view = First()
    assert get_view(view) is view
    assert str(view) == "own"
    assert view.matrix(counted((2, 3, 4))).shape == (12, 2)
    assert torch.equal(view.restore(view.matrix(counted((2, 3, 4))), counted((2, 3, 4))), counted((2, 3, 4)))
