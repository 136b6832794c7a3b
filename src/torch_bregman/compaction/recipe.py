"""The recipe of a surgery: plain steps that turn a model, and later a fresh instance of it, into the compact form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from torch_bregman.layers.csr import CSRLinear
from torch_bregman.layers.factors import factored_convolution, factored_linear, separable_convolution
from torch_bregman.layers.heads import HeadAttention

Step: TypeAlias = dict[str, Any]
"""One step: "do" names it, the rest says where and how much, in strings and numbers."""


def slice_step(tensor: str, dim: int, kept: Tensor) -> Step:
    """Keep some entries of a tensor along a dimension."""
    return {"do": "slice", "tensor": tensor, "dim": dim, "keep": spell_indices(kept.nonzero().flatten().tolist())}


def apply_step(model: nn.Module, step: Step) -> None:
    """Carry out one step, in place.

    Raises:
        ValueError: for a step that is unknown or does not fit the model.
    """
    if step.get("do") not in _STEPS:
        raise ValueError(f"the recipe has a step {step.get('do')!r} that is unknown here: update torch-bregman")
    try:
        _STEPS[step["do"]](model, step)
    except (KeyError, AttributeError, IndexError, TypeError, RuntimeError) as error:
        raise ValueError(f"the recipe does not fit this model at step {step} ({error})") from None


def spell_indices(indices: Iterable[int]) -> str:
    """Return rising indices as ranges.

    Example:
        >>> spell_indices([0, 1, 2, 5, 7, 8])
        '0-2,5,7-8'
    """
    runs = [[i for _, i in run] for _, run in groupby(enumerate(indices), lambda pair: pair[1] - pair[0])]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def read_indices(text: str) -> list[int]:
    """Return the indices that `spell_indices` spelled."""
    found: list[int] = []
    for run in filter(None, text.split(",")):
        first, _, last = run.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found


def owners(model: nn.Module, name: str) -> list[tuple[nn.Module, str]]:
    """Return every module that holds a parameter or buffer, and under which name: several where it is tied."""
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    target = getattr(module, own)
    return [
        (each, key)
        for each in dict.fromkeys(model.modules())
        for held in (each._parameters, each._buffers)
        for key, tensor in held.items()
        if tensor is target
    ]


def replace_module(model: nn.Module, name: str, made: nn.Module) -> None:
    """Put a module in the place of another, wherever that is used."""
    before = model.get_submodule(name)
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if child is before:
                parent._modules[key] = made


def _slice(model: nn.Module, step: Step) -> None:
    places = owners(model, step["tensor"])
    tensor = getattr(*places[0])
    index = torch.tensor(read_indices(step["keep"]), dtype=torch.long, device=tensor.device)
    cut = tensor.detach().index_select(step["dim"], index).contiguous()
    made = nn.Parameter(cut, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else cut
    for module, key in places:
        setattr(module, key, made)
    for module, _ in places:
        _note_sizes(module)


def _note_sizes(module: Any) -> None:
    """Let a module's own numbers say what its tensors are."""
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.conv._ConvTransposeNd):
        module.in_channels, module.out_channels = module.weight.shape[:2]
    elif isinstance(module, nn.modules.conv._ConvNd):
        per_group = module.out_channels // module.groups
        if module.groups > 1:
            module.groups = module.weight.shape[0] // per_group
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, _NormBase):
        known = weight if weight is not None else module.running_mean
        module.num_features = module.num_features if known is None else len(known)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = module.weight.shape[1]


def _heads(model: nn.Module, step: Step) -> None:
    attention = model.get_submodule(step["module"])
    assert isinstance(attention, nn.MultiheadAttention)
    replace_module(model, step["module"], HeadAttention.from_attention(attention))


def _bias(model: nn.Module, step: Step) -> None:
    layer: Any = model.get_submodule(step["module"])
    outputs = layer.weight.shape[1 if isinstance(layer, nn.modules.conv._ConvTransposeNd) else 0]
    layer.bias = nn.Parameter(layer.weight.new_zeros(outputs), requires_grad=layer.weight.requires_grad)


def _fold(model: nn.Module, step: Step) -> None:
    """Multiply a batch normalisation in evaluation into the layer before it."""
    layer: Any = model.get_submodule(step["module"])
    norm: Any = model.get_submodule(step["norm"])
    with torch.no_grad():
        scale = torch.rsqrt(norm.running_var.double() + norm.eps)
        scale = scale if norm.weight is None else scale * norm.weight
        shift = (layer.bias if layer.bias is not None else 0.0) - norm.running_mean.double()
        shift = shift * scale + (0.0 if norm.bias is None else norm.bias)
        layer.weight.copy_(layer.weight.double() * scale.view(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias = nn.Parameter(shift.to(layer.weight.dtype), requires_grad=layer.weight.requires_grad)
    replace_module(model, step["norm"], nn.Identity())


def _factorise(model: nn.Module, step: Step) -> None:
    make: Any = _FORMS[step["form"]]
    layer = model.get_submodule(step["module"])
    replace_module(model, step["module"], make(layer, step["rank"]))


def _csr(model: nn.Module, step: Step) -> None:
    linear: Any = model.get_submodule(step["module"])
    weight = linear.weight
    made = CSRLinear(
        linear.in_features, linear.out_features, step["nonzeros"], linear.bias is not None, weight.device, weight.dtype
    )
    made.values.requires_grad_(weight.requires_grad)
    if linear.bias is not None:
        made.bias = linear.bias
    replace_module(model, step["module"], made.train(linear.training))


_FORMS = {"linear": factored_linear, "1x1": factored_convolution, "separable": separable_convolution}
_STEPS: dict[str, Callable[[nn.Module, Step], None]] = {
    "slice": _slice,
    "heads": _heads,
    "bias": _bias,
    "fold": _fold,
    "factorise": _factorise,
    "csr": _csr,
}


def apply_recipe(model: nn.Module, steps: Sequence[Step]) -> None:
    """Carry out all steps, in place."""
    for step in steps:
        apply_step(model, step)
