"""From runs to pictures."""

from torch_bregman.report.curves import draw_curves
from torch_bregman.report.front_figure import draw_front
from torch_bregman.report.path_curve import draw_path

__all__ = ["draw_curves", "draw_front", "draw_path"]
