"""From runs to pictures."""

from torch_bregman.report.curves import draw_curves

__all__ = ["draw_curves"]
