"""How a gradient moves the weights: one algorithm a file, named after it."""

from torch_bregman.optim.adabreg import AdaBreg
from torch_bregman.optim.base import RegularizedOptimizer
from torch_bregman.optim.bregman import Bregman
from torch_bregman.optim.factored import FactoredLinBreg
from torch_bregman.optim.linbreg import LinBreg
from torch_bregman.optim.mirror import MirrorOptimizer
from torch_bregman.optim.multilevel import MultilevelLinBreg
from torch_bregman.optim.pgd import PGD
from torch_bregman.optim.proxsgd import ProxSGD

__all__ = [
    "PGD",
    "AdaBreg",
    "Bregman",
    "FactoredLinBreg",
    "LinBreg",
    "MirrorOptimizer",
    "MultilevelLinBreg",
    "ProxSGD",
    "RegularizedOptimizer",
]
