from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_bregman.data import Batches, Compose, Flip, Shift, black, load, normalize


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(image: torch.Tensor, down: int, right: int, fill: list[float]) -> torch.Tensor:
    """One image shifted pixel by pixel: the reference."""
    out = torch.empty_like(image)
    channels, height, width = image.shape
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                inside = 0 <= y - down < height and 0 <= x - right < width
                out[c, y, x] = image[c, y - down, x - right] if inside else fill[c]
    return out


def all_moves(image: torch.Tensor, pixels: int, fill: list[float]) -> dict[tuple[int, int], torch.Tensor]:
    reach = range(-pixels, pixels + 1)
    return {(down, right): moved(image, down, right, fill) for down in reach for right in reach}


@given(
    seed=st.integers(0, 1000),
    pixels=st.integers(0, 2),
    channels=st.integers(1, 3),
    height=st.integers(1, 4),
    width=st.integers(2, 4),
)
def test_every_shifted_image_is_one_of_the_moves(seed, pixels, channels, height, width):
    x = torch.randn(5, channels, height, width, generator=seeded(seed + 1))
    fill = [-1.0 - c for c in range(channels)]
    out = Shift(pixels, fill)(x, seeded(seed))
    for before, after in zip(x, out, strict=True):
        assert any(torch.equal(after, move) for move in all_moves(before, pixels, fill).values())


def test_every_shift_occurs_about_equally_often():
    image = torch.arange(16.0).view(1, 1, 4, 4) + 1
    out = Shift(1)(image.expand(9000, 1, 4, 4), seeded(0))
    counts = [(out == move).flatten(1).all(1).sum().item() for move in all_moves(image[0], 1, [0.0]).values()]
    assert sum(counts) == 9000
    assert all(850 < count < 1150 for count in counts)  # five standard deviations about 1000


def test_one_fill_serves_all_channels_and_the_input_stays():
    x = torch.randn(50, 3, 4, 4, generator=seeded(1))
    before = x.clone()
    one = Shift(2, fill=-0.5)(x, seeded(2))
    each = Shift(2, fill=(-0.5, -0.5, -0.5))(x, seeded(2))
    assert torch.equal(one, each)
    assert torch.equal(x, before)
    assert torch.equal(Shift(0)(x, seeded(0)), x)


def test_flip_mirrors_about_half():
    x = torch.randn(1000, 2, 3, 5, generator=seeded(3))
    before = x.clone()
    out = Flip()(x, seeded(4))
    kept = (out == x).flatten(1).all(1)
    mirrored = (out == torch.stack([image[:, :, torch.arange(4, -1, -1)] for image in x])).flatten(1).all(1)
    assert torch.all(kept ^ mirrored)
    assert 420 < mirrored.sum() < 580  # five standard deviations about 500
    assert torch.equal(x, before)


def test_compose_applies_in_order_with_one_generator():
    x = torch.randn(20, 1, 6, 6, generator=seeded(5))
    generator = seeded(6)
    expected = Flip()(Shift(2)(x, generator), generator)
    assert torch.equal(Compose([Shift(2), Flip()])(x, seeded(6)), expected)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="pixels is -1, must be 0 or more"):
        Shift(-1)
    with pytest.raises(ValueError, match="2 fill values for 3 channels"):
        Shift(1, fill=(0.0, 0.0))(torch.zeros(1, 3, 4, 4), seeded(0))


def test_shifted_digits_keep_black_borders():
    data = load("sample")
    x, y = normalize(data.train, data.mean, data.std)
    fill = black(data.mean, data.std)
    assert x.min().item() == pytest.approx(fill[0], abs=1e-6)
    batches = Batches(x[:64], y[:64], 16, augment=Shift(2, fill))
    for images, _ in batches.epoch(seeded(0)):
        assert images.min().item() == pytest.approx(fill[0], abs=1e-6)
        assert images.shape == (16, 1, 28, 28)
