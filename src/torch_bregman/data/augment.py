"""Light augmentation of a batch of images, all images at once, each with a draw of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


def black(mean: Sequence[float], std: Sequence[float]) -> tuple[float, ...]:
    """What black is after normalisation: -mean/std, the value to fill `Shift`'s border with.

    Args:
        mean: one number a channel.
        std: one number a channel.

    Returns:
        One number a channel.

    Example:
        >>> black((0.5,), (0.25,))
        (-2.0,)
    """
    return tuple(-m / s for m, s in zip(mean, std, strict=True))


@dataclass(frozen=True)
class Shift:
    """Move each image by a random whole number of pixels, -pixels to pixels, down and across.

    Args:
        pixels: the largest move either way, 0 or more.
        fill: value of what comes into view, one for all channels or one for each; of normalised images what
            black became, see `black`.

    Raises:
        ValueError: ``pixels`` is negative; at the call, a number of fill values that does not fit the
            channels.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> Shift(2)(torch.ones(8, 1, 28, 28), generator).shape
        torch.Size([8, 1, 28, 28])
    """

    pixels: int
    fill: float | Sequence[float] = 0.0

    def __post_init__(self) -> None:
        if self.pixels < 0:
            raise ValueError(f"pixels is {self.pixels}, must be 0 or more")

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Shifted copies of images (B, C, H, W)."""
        count, _, height, width = x.shape
        draws = torch.randint(2 * self.pixels + 1, (2, count), generator=generator).to(x.device)
        # every window of the padded images as a view; one gather takes the chosen ones
        windows = self._pad(x).unfold(2, height, 1).unfold(3, width, 1)
        return windows[torch.arange(count, device=x.device), :, draws[0], draws[1]]

    def _pad(self, x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        fill = torch.as_tensor(self.fill, dtype=x.dtype, device=x.device).reshape(-1)
        if len(fill) not in (1, channels):
            raise ValueError(f"{len(fill)} fill values for {channels} channels: give one, or one for each")
        p = self.pixels
        padded = fill.view(1, -1, 1, 1).expand(count, channels, height + 2 * p, width + 2 * p).clone()
        padded[:, :, p : p + height, p : p + width] = x
        return padded


@dataclass(frozen=True)
class Flip:
    """Mirror each image left to right with probability 1/2.

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0]]]])
        >>> Flip()(x, torch.Generator().manual_seed(2)).flatten().sort().values.tolist()
        [1.0, 2.0]
    """

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Images (B, C, H, W), some of them mirrored."""
        mirrored = torch.rand(len(x), generator=generator).to(x.device) < 0.5
        return torch.where(mirrored.view(-1, 1, 1, 1), x.flip(-1), x)


@dataclass(frozen=True)
class Noise:
    """Add independent Gaussian noise to every pixel.

    Args:
        std: its standard deviation, 0 or more, in the unit of the images.

    Raises:
        ValueError: ``std`` is negative.

    Example:
        >>> noisy = Noise(0.2)(torch.zeros(8, 1, 28, 28), torch.Generator().manual_seed(0))
        >>> round(float(noisy.std()), 2)
        0.2
    """

    std: float

    def __post_init__(self) -> None:
        if self.std < 0:
            raise ValueError(f"std is {self.std}, must be 0 or more")

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Noisy copies of images."""
        return x + self.std * torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)


@dataclass(frozen=True)
class Compose:
    """One augmentation after another.

    Args:
        transforms: callables (x, generator) -> x, in the order they are to be applied.

    Example:
        >>> augment = Compose([Shift(2), Flip()])
        >>> augment(torch.ones(8, 3, 32, 32), torch.Generator().manual_seed(0)).shape
        torch.Size([8, 3, 32, 32])
    """

    transforms: Sequence[Callable[[Tensor, Generator], Tensor]]

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Images (B, C, H, W), through every transform."""
        for transform in self.transforms:
            x = transform(x, generator)
        return x
