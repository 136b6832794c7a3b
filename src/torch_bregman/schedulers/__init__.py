"""How λ and the rank cap change over time, with the habits of torch.optim.lr_scheduler; sizes on request."""

from torch_bregman.schedulers.advice import LamAdvice, suggest_lam
from torch_bregman.schedulers.base import Schedule
from torch_bregman.schedulers.calendars import Calendar, cosine, cubic, geometric, linear, listed
from torch_bregman.schedulers.consolidation import Consolidation
from torch_bregman.schedulers.cycle_length import CycleSchedule
from torch_bregman.schedulers.lam import LamOnPlateau, LamSchedule
from torch_bregman.schedulers.rank import RankByEnergy, RankOnPlateau, RankSchedule
from torch_bregman.schedulers.size import Size
from torch_bregman.schedulers.size_control import LamByFeedback, LamByQuantile, SizeControl
from torch_bregman.schedulers.sizes import Bytes, Density, MultiplyAdds, Parameters, Rank, Units
from torch_bregman.schedulers.unit_macs import UnitMultiplyAdds, used
from torch_bregman.schedulers.waking import EntryTimes, waking_scores

__all__ = [
    "Bytes",
    "Calendar",
    "Consolidation",
    "CycleSchedule",
    "Density",
    "EntryTimes",
    "LamAdvice",
    "LamByFeedback",
    "LamByQuantile",
    "LamOnPlateau",
    "LamSchedule",
    "MultiplyAdds",
    "Parameters",
    "Rank",
    "RankByEnergy",
    "RankOnPlateau",
    "RankSchedule",
    "Schedule",
    "Size",
    "SizeControl",
    "UnitMultiplyAdds",
    "Units",
    "cosine",
    "cubic",
    "geometric",
    "linear",
    "listed",
    "suggest_lam",
    "used",
    "waking_scores",
]
