from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_bregman.data import DataError, Split, holdout, load, normalize


def numbered(count: int) -> Split:
    """A split whose images tell which they are."""
    labels = torch.arange(count)
    return Split(labels.to(torch.uint8).view(-1, 1, 1, 1).expand(count, 2, 3, 4).contiguous(), labels)


def test_published_files_come_with_the_published_moments(tiny, tmp_path):
    data = load("tiny", tiny.write(tmp_path / "given"))
    assert (data.mean, data.std, data.num_classes, data.shape) == ((0.5,), (0.25,), 3, (1, 5, 4))
    assert data.source == f"directory {tmp_path / 'given'}"
    expected = torch.from_numpy(tiny.arrays["train-images-idx3-ubyte"].copy())[:, None]
    assert torch.equal(data.train.images, expected)


def test_own_data_come_with_moments_of_their_own(tiny, tmp_path, idx_bytes):
    own = np.random.default_rng(3).integers(0, 99, (12, 5, 4), dtype=np.uint8)
    data = load("tiny", tiny.write(tmp_path / "own", train_images=idx_bytes(own)))
    assert data.mean == pytest.approx([(own / 255).mean()], abs=1e-12)
    assert data.std == pytest.approx([(own / 255).std()], abs=1e-12)


def test_moments_are_taken_channel_by_channel(tiny_cifar, tmp_path):
    labelled = np.random.default_rng(4).integers(0, 10, (2, 3073), dtype=np.uint8)
    labelled[:, 1025:2049] += 100
    data = load("tiny-cifar", tiny_cifar.write(tmp_path / "own", test_batch=labelled.tobytes()))
    pixels = data.train.images.double().numpy() / 255
    assert data.mean == pytest.approx(pixels.mean((0, 2, 3)), abs=1e-12)
    assert data.std == pytest.approx(pixels.std((0, 2, 3)), abs=1e-12)


def test_images_of_one_shade_can_be_normalised(tiny, tmp_path, idx_bytes):
    plain = idx_bytes(np.full((12, 5, 4), 9, np.uint8))
    data = load("tiny", tiny.write(tmp_path / "own", train_images=plain))
    x, _ = normalize(data.train, data.mean, data.std)
    assert torch.allclose(x, torch.zeros_like(x), atol=1e-5)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 3, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 3, 4), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 3, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 1, 3, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int32)),
    ],
)
def test_a_split_of_other_shapes_or_types_is_refused(images, labels):
    with pytest.raises(DataError, match="must be"):
        Split(images, labels)


@given(size=st.integers(2, 60), data=st.data(), seed=st.integers(0, 2**31))
def test_holdout_divides_without_loss_or_overlap(size, data, seed):
    count = data.draw(st.integers(1, size - 1))
    split = numbered(size)
    rest, aside = holdout(split, count, seed)
    assert len(aside) == count
    assert sorted(rest.labels.tolist() + aside.labels.tolist()) == list(range(size))
    for part in (rest, aside):
        assert torch.equal(part.images[:, 1, 2, 3].long(), part.labels)
    again = holdout(split, count, seed)
    assert torch.equal(again[1].labels, aside.labels)


def test_holdout_takes_a_fraction_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    rest, aside = holdout(numbered(50), 0.2, seed=0)
    assert (len(rest), len(aside)) == (40, 10)
    assert torch.equal(torch.get_rng_state(), before)
    assert holdout(numbered(50), 0.2, seed=1)[1].labels.tolist() != aside.labels.tolist()


@pytest.mark.parametrize("wrong", [0, -1, 50, 0.0, 1.0, 0.001, 0.999, float("nan")])
def test_holdout_refuses_to_leave_a_part_empty(wrong):
    with pytest.raises(DataError, match=f"cannot set {wrong} of 50 images aside"):
        holdout(numbered(50), wrong, seed=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_normalize_is_its_formula(dtype):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (7, 2, 3, 4), generator=generator).to(torch.uint8)
    split = Split(images.clone(), torch.arange(7))
    x, y = normalize(split, (0.2, 0.7), (0.5, 0.1), dtype=dtype)
    pixels = images.numpy() / 255
    expected = (pixels - np.array([0.2, 0.7])[:, None, None]) / np.array([0.5, 0.1])[:, None, None]
    assert x.dtype == dtype
    tolerance = 4 * torch.finfo(dtype).eps
    np.testing.assert_allclose(x.double().numpy(), expected, rtol=tolerance, atol=10 * torch.finfo(torch.float32).eps)
    y += 1
    assert torch.equal(split.images, images)
    assert torch.equal(split.labels, torch.arange(7))


def test_normalize_refuses_what_does_not_fit():
    split = numbered(3)
    for mean, std in [((0.1,), (0.1,)), ((0.1, 0.1), (0.1,)), ((0.1, 0.1), (0.1, 0.0))]:
        with pytest.raises(DataError, match="one number for each of 2 channels"):
            normalize(split, mean, std)
    with pytest.raises(DataError, match="choose a floating-point type"):
        normalize(split, (0.1, 0.1), (0.1, 0.1), dtype=torch.int64)
