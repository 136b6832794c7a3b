"""Methods of others that sizes on request are compared with: small and plain, for any torch optimizer."""

from torch_bregman.experiments.baselines.evolution import SparseEvolution
from torch_bregman.experiments.baselines.magnitude import GradualPruning
from torch_bregman.experiments.baselines.masked import Masked
from torch_bregman.experiments.baselines.one_shot import LassoPruning, OneShotPruning, ProximalPruning
from torch_bregman.experiments.baselines.random_masks import RandomMasks, StaticMasks
from torch_bregman.experiments.baselines.rates import two_phases
from torch_bregman.experiments.baselines.rigl import RigL

__all__ = [
    "GradualPruning",
    "LassoPruning",
    "Masked",
    "OneShotPruning",
    "ProximalPruning",
    "RandomMasks",
    "RigL",
    "SparseEvolution",
    "StaticMasks",
    "two_phases",
]
