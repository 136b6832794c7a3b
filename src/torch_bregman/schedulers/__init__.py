"""How λ and the rank cap change over time, with the habits of torch.optim.lr_scheduler."""

from torch_bregman.schedulers.base import Schedule
from torch_bregman.schedulers.calendars import Calendar, cosine, linear, listed
from torch_bregman.schedulers.lam import LamOnPlateau, LamSchedule
from torch_bregman.schedulers.rank import RankByEnergy, RankOnPlateau, RankSchedule

__all__ = [
    "Calendar",
    "LamOnPlateau",
    "LamSchedule",
    "RankByEnergy",
    "RankOnPlateau",
    "RankSchedule",
    "Schedule",
    "cosine",
    "linear",
    "listed",
]
