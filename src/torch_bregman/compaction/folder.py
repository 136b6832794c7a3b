"""A compact model as a folder: its tensors in safetensors, the surgery as JSON; nothing in it can run code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from torch_bregman.compaction.compacting import FORMAT, signature
from torch_bregman.compaction.recipe import apply_recipe
from torch_bregman.compaction.reports import CompactReport
from torch_bregman.layers import LowRankLinear, from_factored

TENSORS = "model.safetensors"
RECIPE = "recipe.json"


def save_compact(path: str | Path, model: nn.Module, report: CompactReport) -> Path:
    """Write a compact model as a folder with `model.safetensors` and `recipe.json`.

    Args:
        path: the folder; made where it is not there.
        model: what `compact` returned, trained further or not.
        report: what `compact` returned with it: it holds the recipe.

    Returns:
        The folder.

    Raises:
        ValueError: for a model that the report does not belong to, or a folder that cannot be written.

    Example:
        >>> import torch_bregman as tb
        >>> small, report = tb.compact(tb.models.mlp([6, 5, 3]), torch.randn(2, 6), batch_sizes=())
        >>> folder = save_compact("small", small, report)
        >>> sorted(file.name for file in folder.iterdir())
        ['model.safetensors', 'recipe.json']
    """
    folder, tensors = Path(path), _tensors(model)
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if shapes != report.recipe["compact"]:
        raise ValueError("this report belongs to another model: pass both as compact() returned them")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
        (folder / RECIPE).write_text(json.dumps(report.recipe, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot write to {folder} ({error.strerror}): choose another folder") from None
    return folder


def load_compact(path: str | Path, model: nn.Module) -> nn.Module:
    """Turn a fresh instance of the original architecture into the compact model of a folder.

    Args:
        path: what `save_compact` wrote.
        model: of the same architecture as the one that was compacted; changed in place, its weights do not matter.

    Returns:
        The compact model.

    Raises:
        ValueError: for a folder that is missing, damaged or of another kind, and for another architecture.

    Example:
        >>> import torch_bregman as tb
        >>> small, report = tb.compact(tb.models.mlp([6, 5, 3]), torch.randn(2, 6), batch_sizes=())
        >>> folder, x = save_compact("small", small, report), torch.randn(4, 6)
        >>> torch.equal(load_compact(folder, tb.models.mlp([6, 5, 3]))(x), small(x))
        True
    """
    folder = Path(path)
    recipe, tensors = _read_recipe(folder), _read_tensors(folder)
    if any(isinstance(module, LowRankLinear) for module in model.modules()):
        model = from_factored(model)
    _check_architecture(recipe, model)
    apply_recipe(model, recipe["steps"])
    own = _tensors(model)
    shapes = {name: tuple(t.shape) for name, t in own.items()}
    if shapes != {name: tuple(t.shape) for name, t in tensors.items()}:
        raise ValueError(f"{folder / TENSORS} does not hold the tensors its recipe speaks of: restore both from a copy")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
    return model


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers, tied ones once, as safetensors wants it."""
    state, found, seen = model.state_dict(keep_vars=True), {}, set()
    for name, tensor in state.items():
        if isinstance(tensor, Tensor) and id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor.detach()
    return {name: t if t.is_contiguous() else t.contiguous() for name, t in found.items()}


def _read_recipe(folder: Path) -> dict[str, Any]:
    path = folder / RECIPE
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no compact model: there is no {RECIPE}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({str(error).splitlines()[0]}): restore it from a copy") from None
    if not isinstance(recipe, dict) or not {"format", "model", "state", "steps", "compact"} <= recipe.keys():
        raise ValueError(f"{path} is no recipe of a compact model")
    if recipe["format"] != FORMAT:
        raise ValueError(f"{path} has format {recipe['format']!r}, this version reads {FORMAT}: update torch-bregman")
    return recipe


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / TENSORS
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no compact model: there is no {TENSORS}") from None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({str(error).splitlines()[0]}): restore it from a copy") from None


def _check_architecture(recipe: dict[str, Any], model: nn.Module) -> None:
    saved, own = recipe["state"], signature(model)
    if saved == own:
        return
    odd = next((name for name in (*saved, *own) if saved.get(name) != own.get(name)), "")
    was, this = recipe["model"], type(model).__name__
    raise ValueError(
        f"the folder was made from another architecture, {was} with {odd!r} of shape {saved.get(odd)}, this {this} has "
        f"{own.get(odd)}: build the model as it was before it was compacted"
    )
