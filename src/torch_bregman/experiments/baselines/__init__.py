"""Methods of others that sizes on request are compared with: small and plain, for any torch optimizer."""

from torch_bregman.experiments.baselines.evolution import SparseEvolution
from torch_bregman.experiments.baselines.magnitude import GradualPruning
from torch_bregman.experiments.baselines.masked import Masked

__all__ = ["GradualPruning", "Masked", "SparseEvolution"]
