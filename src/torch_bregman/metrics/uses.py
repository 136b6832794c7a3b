"""How often a forward pass multiplies by each weight: what multiply-adds are counted from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from torch_bregman.layers import CSRLinear, HeadAttention, LowRankLinear

Example: TypeAlias = Tensor | tuple[Any, ...]
"""What a model is called with: one tensor, or a tuple of all its arguments."""


@dataclass(frozen=True, eq=False)
class Use:
    """What one layer does with one of its weights in a forward pass.

    Args:
        name: of the weight, from the model; of the layer where it multiplies two activations.
        weight: None where it multiplies two activations, as attention does.
        times: multiply-adds of each entry; all of them where there is no weight.
        groups: into how many parts a grouped convolution cuts the first dimension.
        factors: the weight is stored and used as these: two thin factors, or its non-zero entries.
    """

    name: str
    weight: Tensor | None
    times: int
    groups: int = 1
    factors: tuple[Tensor, ...] | None = None


@dataclass(frozen=True, eq=False)
class Uses:
    """What a forward pass does with the weights of a model.

    Args:
        weights: one entry for each weight of each layer, in the order of the first calls.
        uncounted: "name (type)" of modules that were called, or hold weights, but have no rule here.
    """

    weights: tuple[Use, ...]
    uncounted: tuple[str, ...]


def trace_uses(model: nn.Module, example: Example) -> Uses:
    """Return how often each weight is multiplied by, from one forward pass in evaluation mode.

    Counted are Linear, Bilinear, Conv1d to Conv3d and their transposes (grouped ones too), MultiheadAttention with its
    two products of activations, RNN, LSTM, GRU and `LowRankLinear`, subclasses included; lookups in an Embedding
    multiply nothing. A shared module counts at every call. Positions in the padding count, as in the literature.

    Args:
        model: any module; its modes are left as they were.
        example: what it is called with, a tensor or a tuple of arguments.

    Example:
        >>> uses = trace_uses(nn.Conv2d(1, 2, 3), torch.zeros(1, 1, 8, 8)).weights
        >>> [(use.name, use.times) for use in uses]
        [('weight', 36)]
    """
    counts: dict[nn.Module, dict[str, Use]] = {}
    called: set[nn.Module] = set()
    names = {module: name for name, module in reversed(list(model.named_modules()))}

    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        called.add(module)
        rule = _rule(module)
        if rule is not None:
            _add(counts.setdefault(module, {}), rule(names[module], module, args, kwargs, output))

    handles = [module.register_forward_hook(hook, with_kwargs=True) for module in names]
    try:
        run_once(model, example)
    finally:
        for handle in handles:
            handle.remove()
    inside = {inner for module in counts for inner in module.modules()}
    left_out = [names[m] + f" ({type(m).__name__})" for m in model.modules() if m not in inside and _matters(m, called)]
    return Uses(tuple(use for each in counts.values() for use in each.values()), tuple(left_out))


@torch.no_grad()
def run_once(model: nn.Module, example: Example) -> Any:
    """Return what a model makes of an example in evaluation mode; every module is afterwards in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        return model(*example) if type(example) is tuple else model(example)  # a PackedSequence is one argument
    finally:
        for module, training in modes:
            module.training = training


def _add(found: dict[str, Use], uses: Iterable[Use]) -> None:
    for use in uses:
        before = found[use.name].times if use.name in found else 0
        found[use.name] = Use(use.name, use.weight, before + use.times, use.groups, use.factors)


def _matters(module: nn.Module, called: set[nn.Module]) -> bool:
    """Whether a module without a rule belongs on the list: a leaf that was called, or a holder of weights."""
    leaf = module in called and not any(True for _ in module.children())
    return not isinstance(module, _FREE) and (leaf or any(p.ndim > 1 for p in module.parameters(recurse=False)))


def _rule(module: nn.Module) -> Callable[..., Iterable[Use]] | None:
    return next((rule for kind, rule in _RULES.items() if isinstance(module, kind)), None)


def _child(name: str, attribute: str) -> str:
    return f"{name}.{attribute}".lstrip(".")


def _linear(name: str, module: Any, args: Any, kwargs: Any, output: Tensor) -> Iterable[Use]:
    yield Use(_child(name, "weight"), module.weight, output.numel() // max(module.out_features, 1))


def _low_rank(name: str, module: LowRankLinear, args: Any, kwargs: Any, output: Tensor) -> Iterable[Use]:
    times = output.numel() // max(module.out_features, 1)
    yield Use(_child(name, "weight"), module.weight, times, factors=(module.left, module.right))


def _sparse(name: str, module: CSRLinear, args: Any, kwargs: Any, output: Tensor) -> Iterable[Use]:
    times = output.numel() // max(module.out_features, 1)
    yield Use(_child(name, "weight"), module.weight, times, factors=(module.values,))


def _heads(name: str, module: HeadAttention, args: Any, kwargs: Any, output: Any) -> Iterable[Use]:
    query, key, value = (args[i] if i < len(args) else kwargs[n] for i, n in enumerate(("query", "key", "value")))
    positions = [x.numel() // module.embed_dim for x in (query, key, value)]
    for part, weight, times in zip(("q", "k", "v"), module.in_proj_weight.chunk(3), positions, strict=True):
        yield Use(_child(name, f"in_proj_weight[{part}]"), weight, times)
    batch = query.shape[0 if module.batch_first else 1] if query.ndim == 3 else 1
    width = module.num_heads * module.head_dim
    yield Use(name or "attention", None, 2 * width * positions[0] * (positions[1] // max(batch, 1)))


def _convolution(name: str, module: Any, args: Any, kwargs: Any, output: Tensor) -> Iterable[Use]:
    yield Use(_child(name, "weight"), module.weight, output.numel() // max(module.out_channels, 1), module.groups)


def _transposed(name: str, module: Any, args: Any, kwargs: Any, output: Tensor) -> Iterable[Use]:
    source = args[0] if args else kwargs["input"]
    yield Use(_child(name, "weight"), module.weight, source.numel() // max(module.in_channels, 1), module.groups)


def _attention(name: str, module: nn.MultiheadAttention, args: Any, kwargs: Any, output: Any) -> Iterable[Use]:
    query, key, value = (args[i] if i < len(args) else kwargs[n] for i, n in enumerate(("query", "key", "value")))
    width = module.embed_dim
    asked, keys, values = query.numel() // width, key.numel() // module.kdim, value.numel() // module.vdim
    if module.in_proj_weight is not None:
        parts = zip(("q", "k", "v"), module.in_proj_weight.split(width), (asked, keys, values), strict=True)
        for part, weight, times in parts:
            yield Use(_child(name, f"in_proj_weight[{part}]"), weight, times)
    else:
        for part, times in (("q", asked), ("k", keys), ("v", values)):
            yield Use(_child(name, f"{part}_proj_weight"), getattr(module, f"{part}_proj_weight"), times)
    batch = query.shape[0 if module.batch_first else 1] if query.ndim == 3 else 1
    extra = (module.bias_k is not None) + module.add_zero_attn
    yield Use(name or "attention", None, 2 * width * asked * (keys // max(batch, 1) + extra))
    yield Use(_child(name, "out_proj.weight"), module.out_proj.weight, asked)


def _bilinear(name: str, module: nn.Bilinear, args: Any, kwargs: Any, output: Tensor) -> Iterable[Use]:
    yield Use(_child(name, "weight"), module.weight, output.numel() // max(module.out_features, 1))


def _recurrent(name: str, module: nn.RNNBase, args: Any, kwargs: Any, output: Any) -> Iterable[Use]:
    source = args[0] if args else kwargs["input"]
    steps = math.prod((source.data if isinstance(source, PackedSequence) else source).shape[:-1])
    for own, weight in module.named_parameters(recurse=False):
        if weight.ndim > 1:
            yield Use(_child(name, own), weight, steps)


_RULES: dict[Any, Callable[..., Iterable[Use]]] = {
    LowRankLinear: _low_rank,
    CSRLinear: _sparse,
    HeadAttention: _heads,
    nn.Linear: _linear,
    nn.Bilinear: _bilinear,
    (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d): _transposed,
    (nn.Conv1d, nn.Conv2d, nn.Conv3d): _convolution,
    nn.MultiheadAttention: _attention,
    nn.RNNBase: _recurrent,
}
_FREE = (nn.Embedding, nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)
