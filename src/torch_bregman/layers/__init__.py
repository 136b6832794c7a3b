"""Layers that are small while they train."""

from torch_bregman.layers.conversion import from_factored, to_factored
from torch_bregman.layers.low_rank import LowRankLinear

__all__ = ["LowRankLinear", "from_factored", "to_factored"]
