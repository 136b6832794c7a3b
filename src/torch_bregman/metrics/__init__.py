"""What a model is made of: density, live units, rank."""

from torch_bregman.metrics.nonzeros import count_nonzeros, density, layer_densities, named_weights
from torch_bregman.metrics.ranks import rank
from torch_bregman.metrics.reports import DensityReport, LayerDensity, density_report
from torch_bregman.metrics.spectra import Spectrum, effective_rank, judge, kept_energy
from torch_bregman.metrics.tables import text_table

__all__ = [
    "DensityReport",
    "LayerDensity",
    "Spectrum",
    "count_nonzeros",
    "density",
    "density_report",
    "effective_rank",
    "judge",
    "kept_energy",
    "layer_densities",
    "named_weights",
    "rank",
    "text_table",
]
