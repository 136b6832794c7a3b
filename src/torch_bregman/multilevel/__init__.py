"""Training whose cost follows the active network: between full steps only what is awake exists."""

from torch_bregman.multilevel.calibration import Calibration, LayerTimes, calibrate
from torch_bregman.multilevel.chain import Unsuited, linear_chain
from torch_bregman.multilevel.form import CompactForm
from torch_bregman.multilevel.making import calibration_of, compact_form
from torch_bregman.multilevel.sparse_form import SparseForm
from torch_bregman.multilevel.unit_form import UnitForm

__all__ = [
    "Calibration",
    "CompactForm",
    "LayerTimes",
    "SparseForm",
    "UnitForm",
    "Unsuited",
    "calibrate",
    "calibration_of",
    "compact_form",
    "linear_chain",
]
