"""What a compaction did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from torch_bregman.metrics import CostReport, text_table


@dataclass(frozen=True)
class LayerChange:
    """One layer before and after."""

    name: str
    before: str
    after: str
    parameters: tuple[int, int]
    macs: tuple[int, int]


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of a forward pass, the dense original beside the compact model, in turns."""

    batch: int
    dense: float
    compact: float

    @property
    def speedup(self) -> float:
        """How many times faster the compact model is."""
        return self.dense / self.compact


@dataclass(frozen=True)
class CompactReport:
    """What a compaction did; `str()` makes tables of it."""

    layers: tuple[LayerChange, ...]
    parameters: tuple[int, int]
    """Before and after."""
    bytes: tuple[int, int]
    macs: tuple[int, int]
    latencies: tuple[Latency, ...]
    error: float
    """Largest difference of outputs, relative to the largest output."""
    left: dict[str, str]
    """Why units that a weight makes were left as they are."""
    recipe: dict[str, Any]
    """What turns a fresh instance of the model into the compact one."""

    def __str__(self) -> str:
        header = ["layer", "before", "after", "parameters", "", "MACs", ""]
        lines = text_table(header, [*map(_cells, self.layers)], "<<<>>>>")
        totals = [("parameters", self.parameters), ("bytes", self.bytes), ("MACs", self.macs)]
        rows = [[what, str(b), str(a), f"{a / max(b, 1):.1%}"] for what, (b, a) in totals]
        rows += [
            [f"ms at batch {each.batch}", f"{each.dense:.3f}", f"{each.compact:.3f}", f"{each.speedup:.2f}× as fast"]
            for each in self.latencies
        ]
        lines += ["", *text_table(["in all", "before", "after", ""], rows, "<>>>")]
        lines.append(f"outputs differ by {self.error:.1e} at most, relative to the largest")
        return "\n".join(lines + [f"left as it is: {name}, {reason}" for name, reason in self.left.items()])


def _cells(layer: LayerChange) -> list[str]:
    pairs = (*layer.parameters, *layer.macs)
    return [layer.name, layer.before, layer.after, *map(str, pairs)]


def layer_changes(before: nn.Module, after: nn.Module, costs: tuple[CostReport, CostReport]) -> tuple[LayerChange, ...]:
    """Return the layers that cost multiply-adds, or lost parameters, before and after."""
    found = []
    for name, module in before.named_modules():
        if not any(True for _ in module.parameters(recurse=False)) or _within_attention(before, name):
            continue
        other = after.get_submodule(name)
        macs = (_macs(costs[0], name), _macs(costs[1], name))
        sizes = (_size(module), _size(other))
        found.append(LayerChange(name or type(module).__name__, spell(module), spell(other), sizes, macs))
    return tuple(found)


def _within_attention(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention)


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _macs(costs: CostReport, name: str) -> int:
    return sum(w.macs for w in costs.weights if w.name == name or w.name.startswith(f"{name}." if name else ""))


def spell(module: Any) -> str:
    """Return the kind and the sizes of a layer in a few words."""
    kind = type(module).__name__
    if isinstance(module, nn.Sequential) and len(module) == 2 and hasattr(module[0], "weight"):
        return f"{spell(module[0])}, {spell(module[1])}"
    for inputs, outputs in (("in_features", "out_features"), ("in_channels", "out_channels")):
        if hasattr(module, inputs):
            return f"{kind} {getattr(module, inputs)} → {getattr(module, outputs)}"
    if hasattr(module, "num_heads"):
        return f"{kind} with {module.num_heads} heads"
    return f"{kind} {module.num_features}" if hasattr(module, "num_features") else kind
