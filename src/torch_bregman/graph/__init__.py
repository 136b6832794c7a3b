"""Tracing a model: who makes and who reads each unit."""

from torch_bregman.graph.tracing import Unsupported, trace_units
from torch_bregman.graph.units import Axis, Role, UnitGraph

__all__ = ["Axis", "Role", "UnitGraph", "Unsupported", "trace_units"]
