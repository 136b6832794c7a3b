"""What a model is made of and what it costs: density, live units, rank, multiply-adds, bytes."""

from torch_bregman.metrics.costs import CostReport, WeightCost, cost_report, stored_bytes
from torch_bregman.metrics.nonzeros import count_nonzeros, density, layer_densities, named_weights
from torch_bregman.metrics.ranks import rank
from torch_bregman.metrics.reports import DensityReport, LayerDensity, density_report
from torch_bregman.metrics.spectra import Spectrum, effective_rank, judge, kept_energy
from torch_bregman.metrics.tables import text_table
from torch_bregman.metrics.training import TrainingFlops, training_flops
from torch_bregman.metrics.uses import Use, Uses, trace_uses

__all__ = [
    "CostReport",
    "DensityReport",
    "LayerDensity",
    "Spectrum",
    "TrainingFlops",
    "Use",
    "Uses",
    "WeightCost",
    "cost_report",
    "count_nonzeros",
    "density",
    "density_report",
    "effective_rank",
    "judge",
    "kept_energy",
    "layer_densities",
    "named_weights",
    "rank",
    "stored_bytes",
    "text_table",
    "trace_uses",
    "training_flops",
]
