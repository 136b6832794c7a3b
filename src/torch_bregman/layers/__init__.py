"""Layers that are small: in factors while they train, and what a compact model is made of."""

from torch_bregman.layers.conversion import from_factored, to_factored
from torch_bregman.layers.csr import CSRLinear
from torch_bregman.layers.factors import FactoredLinear
from torch_bregman.layers.heads import HeadAttention
from torch_bregman.layers.low_rank import LowRankLinear

__all__ = ["CSRLinear", "FactoredLinear", "HeadAttention", "LowRankLinear", "from_factored", "to_factored"]
