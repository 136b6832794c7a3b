"""What a network is to learn: to tell classes apart, or to give back clean images."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from torch_bregman.train.conf import Conf


class Task(Protocol):
    """A loss, and a number by which networks are judged; larger is better."""

    metric: str
    """Name of that number, as in `test_accuracy`."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss over a batch."""
        ...

    def judged(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the metric over a batch."""
        ...


class Classification:
    """Cross-entropy in nats, and the share of images classified correctly."""

    metric = "accuracy"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy."""
        return cross_entropy(outputs, targets)

    def judged(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return how many images are classified correctly."""
        return (outputs.argmax(1) == targets).sum()


class Denoising:
    """Mean squared error, and the peak signal-to-noise ratio of images with pixels in [0, 1].

    PSNR = −10 log₁₀ of the mean squared error of an image, in decibels; the mean over images is reported.

    Example:
        >>> float(Denoising().judged(torch.full((1, 1, 2, 2), 0.1), torch.zeros(1, 1, 2, 2)))
        20.0
    """

    metric = "psnr"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error."""
        return mse_loss(outputs, targets)

    def judged(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the images' PSNR; a perfect image counts as one that is off by rounding."""
        errors = (outputs - targets).flatten(1).square().mean(1)
        return (-10 * errors.clamp_min(torch.finfo(errors.dtype).tiny).log10()).sum()


CLASSIFICATION = Classification()
_DENOISING = Denoising()


def task_of(conf: Conf) -> Task:
    """Return what a configuration asks a network to learn."""
    return _DENOISING if conf.data.noise > 0 else CLASSIFICATION
