"""How λ changes over time, with the habits of torch.optim.lr_scheduler."""

from torch_bregman.schedulers.lam import LamSchedule

__all__ = ["LamSchedule"]
