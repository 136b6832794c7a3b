"""Singular value thresholding on plain tensors; knows nothing of training."""

from torch_bregman.linalg.auto import AutoEngine
from torch_bregman.linalg.engine import Engine, Thresholded
from torch_bregman.linalg.full import FullEngine
from torch_bregman.linalg.gram import GramEngine, svt_gram
from torch_bregman.linalg.matmul import MatmulEngine
from torch_bregman.linalg.randomized import RandomizedEngine
from torch_bregman.linalg.table import ENGINES, new_engine
from torch_bregman.linalg.tracked import TrackedEngine

__all__ = [
    "ENGINES",
    "AutoEngine",
    "Engine",
    "FullEngine",
    "GramEngine",
    "MatmulEngine",
    "RandomizedEngine",
    "Thresholded",
    "TrackedEngine",
    "new_engine",
    "svt_gram",
]
