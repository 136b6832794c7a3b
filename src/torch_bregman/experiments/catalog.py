"""All experiments by name. A new one is a file with its recipe and a line here."""

from __future__ import annotations

from difflib import get_close_matches

from torch_bregman.experiments.acceleration import ACCELERATION_CONVNET, ACCELERATION_FULL_BATCH, ACCELERATION_MLP
from torch_bregman.experiments.dynamic_rank import DYNAMIC_RANK
from torch_bregman.experiments.frontier import FRONTIERS
from torch_bregman.experiments.frontier_low_rank import LOW_RANK_FRONTIERS
from torch_bregman.experiments.frontier_units import FRONTIER_FILTERS, FRONTIER_UNITS
from torch_bregman.experiments.frontier_units_rates import FRONTIER_FILTERS_RATES, FRONTIER_UNITS_RATES
from torch_bregman.experiments.jmlr_convnet import JMLR_CONVNET, JMLR_CONVNET_GROUPS, JMLR_CONVNET_RATES
from torch_bregman.experiments.jmlr_denoiser import JMLR_DENOISER, JMLR_DENOISER_RATES
from torch_bregman.experiments.jmlr_mlp import JMLR_MLP, JMLR_MLP_RATES
from torch_bregman.experiments.norms import NORMS_CONVNET, NORMS_MLP
from torch_bregman.experiments.recipe import Experiment
from torch_bregman.experiments.size_fashion import SIZE_FASHION, SIZE_FASHION_RATES
from torch_bregman.experiments.sizes import SIZE_LENET, SIZE_LENET5, SIZE_LOW_RANK, SIZE_MLP, SIZE_RATES
from torch_bregman.experiments.truncated_svd import TRUNCATED_SVD

TUNED = {each.rates: each for each in (*FRONTIERS.values(), *LOW_RANK_FRONTIERS.values())}
"""Frontiers by the experiment that tunes them."""

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        ACCELERATION_MLP,
        ACCELERATION_CONVNET,
        ACCELERATION_FULL_BATCH,
        NORMS_MLP,
        NORMS_CONVNET,
        DYNAMIC_RANK,
        TRUNCATED_SVD,
        JMLR_MLP,
        JMLR_MLP_RATES,
        JMLR_CONVNET,
        JMLR_CONVNET_GROUPS,
        JMLR_CONVNET_RATES,
        SIZE_LENET,
        SIZE_LENET5,
        SIZE_MLP,
        SIZE_LOW_RANK,
        SIZE_RATES,
        SIZE_FASHION,
        SIZE_FASHION_RATES,
        JMLR_DENOISER,
        JMLR_DENOISER_RATES,
        *(made for each in TUNED.values() for made in (each.compared(), each.tuned())),
        FRONTIER_UNITS_RATES,
        FRONTIER_UNITS,
        FRONTIER_FILTERS_RATES,
        FRONTIER_FILTERS,
    )
}


def find(name: str) -> Experiment:
    """Return the experiment of that name.

    Raises:
        ValueError: where there is none.

    Example:
        >>> find("jmlr-mlp").name
        'jmlr-mlp'
    """
    if name not in EXPERIMENTS:
        close = get_close_matches(name, EXPERIMENTS, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise ValueError(f"there is no experiment {name!r}: {meant}bregman experiment list names them all")
    return EXPERIMENTS[name]
