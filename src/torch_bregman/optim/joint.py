"""Groups whose parameters a regulariser takes together: what else is done tensor by tensor, done for all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_bregman.optim.rescaling import rescaled, rounding
from torch_bregman.regularizers import UnitL2
from torch_bregman.regularizers.unit_l2 import in_a_row

Group = dict[str, Any]
State = dict[str, Any]


def start_joint(group: Group, states: list[State]) -> bool:
    """Start the duals that are missing, v = θ/δ + λp with p of all weights together; return whether there were any."""
    missing = [state for state in states if "subgrad" not in state]
    if missing:
        for param, state, dual in zip(group["params"], states, _fresh(group), strict=True):
            if "subgrad" not in state:
                state["subgrad"] = torch.empty_like(param, dtype=dual.dtype).copy_(dual)
                state["lam"] = group["lam"]
    return bool(missing)


def reconcile_joint(group: Group, states: list[State]) -> int:
    """Start the duals of all units anew where a weight is not the image of its dual; return of how many entries."""
    params, delta = group["params"], group["delta"]
    duals = [state["subgrad"] for state in states]
    images = _images(group, states)
    slack = delta * max((rounding(v) for v in duals if v.numel()), default=0.0)
    changed = [
        (param.detach() - image).abs() > 2 * torch.finfo(param.dtype).eps * image.abs() + slack
        for param, image in zip(params, images, strict=True)
    ]
    count = sum(int(mask.sum()) for mask in changed)
    if count:
        masks = group["regularizer"].coupled_all(changed)
        for state, mask, dual in zip(states, masks, _fresh(group), strict=True):
            state["subgrad"].copy_(torch.where(mask, dual, state["subgrad"]))
            state["lam"] = group["lam"]
    return count


def rescale_joint(group: Group, states: list[State], lam: float) -> None:
    """Change λ without moving a weight, see `rescaled`."""
    old = states[0]["lam"]
    joined, duals = _joined(group), [state["subgrad"] for state in states]
    v, theta = in_a_row(duals), in_a_row(_wide(group))
    if any(param.dtype != dual.dtype for param, dual in zip(group["params"], duals, strict=True)):
        theta = joined.mirror(v, group["delta"], lam=old)  # what the halves have lost would be amplified
    moved = rescaled(v, theta, {**group, "regularizer": joined}, old, lam)
    for state, part in zip(states, joined.split(moved), strict=True):
        state["subgrad"].copy_(part)
        state["lam"] = lam


def joint_residual(group: Group, states: list[State]) -> float:
    """Return max |θ − prox_{δJ}(δv)| / (δ max |v|)."""
    duals = [state["subgrad"] for state in states]
    images = in_a_row(_images(group, states))
    if not images.numel():
        return 0.0
    scale = group["delta"] * in_a_row(duals).abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    return float((in_a_row([param.detach() for param in group["params"]]) - images).abs().amax() / scale)


def frozen(image: Tensor, state: State) -> Tensor:
    """Return the image of a dual where its support is frozen: 0 off it, even where λ has fallen since."""
    return image * state["awake"] if "awake" in state else image


def _images(group: Group, states: list[State]) -> list[Tensor]:
    duals = [state["subgrad"] for state in states]
    images = group["regularizer"].mirror_all(duals, group["delta"], lam=states[0]["lam"])
    return [frozen(image, state) for image, state in zip(images, states, strict=True)]


def _fresh(group: Group) -> list[Tensor]:
    joined = _joined(group)
    return joined.split(joined.inverse_mirror(in_a_row(_wide(group)), group["delta"], lam=group["lam"]))


def _joined(group: Group) -> Any:
    regularizer: UnitL2 = group["regularizer"]
    return regularizer.joined([param.shape for param in group["params"]])


def _wide(group: Group) -> list[Tensor]:
    """Return the weights, in the widest of their types but at least float32."""
    dtype = torch.float32
    for param in group["params"]:
        dtype = torch.promote_types(dtype, param.dtype)
    return [param.detach().to(dtype) for param in group["params"]]
