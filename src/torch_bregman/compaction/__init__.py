"""From zeros to a smaller model: drop units, factorise, sparse layers, save, export."""

from torch_bregman.compaction.compacting import compact
from torch_bregman.compaction.exporting import export_onnx, export_program
from torch_bregman.compaction.folder import load_compact, save_compact
from torch_bregman.compaction.latency import measure_latency
from torch_bregman.compaction.reports import CompactReport, Latency, LayerChange

__all__ = [
    "CompactReport",
    "Latency",
    "LayerChange",
    "compact",
    "export_onnx",
    "export_program",
    "load_compact",
    "measure_latency",
    "save_compact",
]
