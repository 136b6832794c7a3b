"""Experiments: one readable recipe a file, the configuration its variants share beside it."""

from torch_bregman.experiments.catalog import EXPERIMENTS, find
from torch_bregman.experiments.recipe import SCALES, Curves, Experiment, Quantity, Scale, Scatter, Variant

__all__ = [
    "EXPERIMENTS",
    "SCALES",
    "Curves",
    "Experiment",
    "Quantity",
    "Scale",
    "Scatter",
    "Variant",
    "find",
]
