"""A linear layer of low rank that is trained without ever forming its weight, or the gradient of it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from torch_bregman.layers.backward import MoveDual
from torch_bregman.layers.checks import check_numbers, check_precision, check_rank
from torch_bregman.layers.start import decompose, random_start
from torch_bregman.linalg.engine import Thresholded
from torch_bregman.linalg.gram import GramEngine
from torch_bregman.linalg.pass_free import PassFreeEngine


class LowRankLinear(nn.Module):
    """y = x Wᵀ + b with W = δ·SVT_λ(V) in thin factors, V moved within the backward pass; cheaper than a dense layer.

    - forward: x → (x Rᵀ) L + b with W = Lᵀ R, L of rank × out and R of rank × in entries;
    - backward: ∂x = (∂y Lᵀ) R, and V ← V − τ ∂yᵀx, in place: no gradient of the weight exists;
    - `step()`: L and R from the singular values of V above λ (Cai, Candès, Shen 2010), by the tracked engine.

    V, the buffer `subgrad`, is all that is dense. It is that of `LinBreg` with `Nuclear` without momentum: momentum and
    Adam need the gradient this layer never has. `FactoredLinBreg` drives all such layers of a model, and the other
    parameters; by hand, call `step()` after each backward pass or several of them, whose gradients then add up.

    With `refresh` above 1 the layer is *pass-free*: V is read every `refresh` steps only. In between two thin products
    of it follow its updates, and their generalised Nyström approximation is thresholded instead; the error is below
    about 2e-3 of W in training. Where its small factorisations fail or the rank comes within two of the block, V is
    read at once.

    What follows from a dual that moves in the backward pass:

    - every backward pass through a forward pass in training mode moves V, `torch.autograd.grad` too, and `zero_grad`
      does not take it back. In evaluation mode, or where gradients are off, V stays as it is;
    - the step size is that in force when backward runs: `layer.lr`, or lr of the optimizer's group;
    - gradients cannot be clipped, unscaled (`GradScaler`) or averaged (DistributedDataParallel) before V moves;
    - V is float32 or float64. Under autocast the layer computes in that; parameters in half precision are refused.

    Args:
        in_features: length of x.
        out_features: length of y.
        bias: whether to add b, default True.
        lam: λ > 0.
        delta: δ > 0, default 1.
        lr: τ ≥ 0, default 0.1; while an optimizer drives the layer, its group counts.
        rank: of the random start, from 0 (W = 0) to less than both lengths, default 8; entries of variance
            2/in_features, biases uniform on (0, 1/√in_features], as by `low_rank_`.
        refresh: steps between two readings of V, ≥ 1, default 1; 10 is a good pass-free choice.
        tolerance: of the tracked engine, relative to W, default 1e-3.
        device, dtype: of bias and V.

    Raises:
        ValueError: for a number out of range, or a dtype of half precision.

    Example:
        >>> layer = LowRankLinear(6, 4, lam=0.1, rank=2)
        >>> x, y = torch.randn(8, 6), torch.randn(8, 4)
        >>> before = layer.weight
        >>> nn.functional.mse_loss(layer(x), y).backward()
        >>> bool((layer.weight == before).all())
        True
        >>> layer.step()
        >>> bool((layer.weight == before).all())
        False
    """

    subgrad: Tensor
    left: Tensor
    right: Tensor
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        lam: float,
        delta: float = 1.0,
        lr: float = 0.1,
        rank: int = 8,
        refresh: int = 1,
        tolerance: float = 1e-3,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_numbers(lam=lam, delta=delta, lr=lr, refresh=refresh, tolerance=tolerance)
        check_rank(rank, in_features, out_features)
        dtype = dtype or torch.get_default_dtype()
        check_precision(dtype)
        self.in_features, self.out_features, self.refresh = in_features, out_features, refresh
        self.options: dict[str, Any] = {"lr": lr, "lam": lam, "delta": delta}
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.register_buffer("subgrad", torch.zeros(out_features, in_features, **place))
        self.register_buffer("left", torch.zeros(0, out_features, **place), persistent=False)
        self.register_buffer("right", torch.zeros(0, in_features, **place), persistent=False)
        self.register_parameter("bias", nn.Parameter(torch.empty(out_features, **place)) if bias else None)
        self._engine = PassFreeEngine(refresh, tolerance)
        self._moved = False
        self._image_lam = lam
        # makes autograd come by where neither input nor bias ask for a gradient
        self._anchor = torch.empty(0, requires_grad=True)
        self.reset_parameters(rank)

    @torch.no_grad()
    def reset_parameters(self, rank: int = 8) -> None:
        """Draw weight and bias anew, from torch's global generator."""
        self._begin(*random_start(self.out_features, self.in_features, rank, self.subgrad.device))
        if self.bias is not None:
            self.bias.copy_((1 - torch.rand_like(self.bias)) / math.sqrt(self.in_features))

    @torch.no_grad()
    def set_weight_(self, weight: Tensor) -> LowRankLinear:
        """Start anew from a weight: V = W/δ + λ U Vᵀ, so that W is what it is.

        Args:
            weight: out × in, of less than full rank (to rounding in its dtype).

        Raises:
            ValueError: for another shape, entries that are not finite, or full rank.
        """
        self._begin(*decompose(weight, self.subgrad.shape))
        return self

    def _begin(self, U: Tensor, S: Tensor, Vh: Tensor) -> None:
        self.subgrad.copy_((U * (S / self.delta + self.lam)) @ Vh)
        self.left, self.right = (U * S).mT.to(self.subgrad).contiguous(), Vh.to(self.subgrad).contiguous()
        self._forget()

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b.

        Args:
            x: (…, in_features).
        """
        check_precision(self.subgrad.dtype)
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self._forward(x.to(self.subgrad.dtype))
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            return MoveDual.apply(x, self.left, self.right, self.bias, self._anchor, self)
        return nn.functional.linear(nn.functional.linear(x, self.right), self.left.mT, self.bias)

    @torch.no_grad()
    def move(self, dy: Tensor, x: Tensor) -> None:
        """Take V ← V − τ dyᵀx; the backward pass calls it.

        Args:
            dy: (batch, out_features).
            x: (batch, in_features).
        """
        lr = self.lr
        if lr == 0:
            return
        self.subgrad.addmm_(dy.mT, x, alpha=-lr)
        self._engine.add(dy, x, alpha=-lr)
        self._moved = True

    @torch.no_grad()
    def step(self) -> None:
        """Let W follow V; nothing happens where neither V nor λ has changed.

        Raises:
            ValueError: where V is not finite.
        """
        if self._moved or self.lam != self._image_lam:
            lam = self.lam
            check_numbers(lam=lam)
            self._take(self._engine(self.subgrad, lam))
            self._image_lam, self._moved = lam, False

    def _take(self, result: Thresholded) -> None:
        self.left = result.left if self.delta == 1 else result.left * self.delta
        self.right = result.right

    def _forget(self) -> None:
        self._moved, self._image_lam = False, self.lam
        self._engine.forget()

    @torch.no_grad()
    def restart(self) -> None:
        """Take W from V exactly, and forget what the engine has followed: for a V that other hands have changed.

        Raises:
            ValueError: where V is not finite.
        """
        self._take(GramEngine()(self.subgrad, self.lam))
        self._forget()

    @torch.no_grad()
    def rescale(self, lam: float) -> None:
        """Change λ without moving W: V ← W/δ + (λ_new/λ_old)·(V − W/δ). The optimizer's `set_lam` calls it.

        Args:
            lam: the new λ > 0.

        Raises:
            ValueError: for another λ.
        """
        check_numbers(lam=lam)
        ratio = lam / self._image_lam
        self.subgrad.mul_(ratio).addmm_(self.left.mT, self.right, alpha=(1 - ratio) / self.delta)
        self.options["lam"] = self._image_lam = lam
        self._engine.forget()

    @property
    def lr(self) -> float:
        """τ in force."""
        return float(self.options["lr"])

    @property
    def lam(self) -> float:
        """λ in force."""
        return float(self.options["lam"])

    @property
    def delta(self) -> float:
        """δ in force."""
        return float(self.options["delta"])

    @property
    def rank(self) -> int:
        """Rank of W."""
        return self.left.shape[0]

    @property
    def weight(self) -> Tensor:
        """W, formed anew at every call, out × in."""
        return self.left.mT @ self.right

    def nuclear_norm(self) -> float:
        """Return the sum of the singular values of W, whose singular vectors are the directions of the factors."""
        lengths = [torch.linalg.vector_norm(rows.double(), dim=-1) for rows in (self.left, self.right)]
        return float((lengths[0] * lengths[1]).sum())

    def mirror_residual(self) -> float:
        """Return max |W − δ·SVT_λ(V)| / (δ max |V|), by an exact decomposition."""
        exact = GramEngine()(self.subgrad, self._image_lam).matrix() * self.delta
        scale = self.delta * self.subgrad.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
        return float((self.weight - exact).abs().amax() / scale)

    def get_extra_state(self) -> dict[str, Any]:
        """Return what V alone does not tell: the factors, the λ they belong to, the memory of the engine."""
        factors = {"left": self.left, "right": self.right}
        return {**factors, "lam": self._image_lam, "moved": self._moved, "engine": self._engine.state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up what `get_extra_state` returned; tensors are copied."""
        self.left, self.right = (state[name].to(self.subgrad, copy=True) for name in ("left", "right"))
        self._image_lam, self._moved = float(state["lam"]), bool(state["moved"])
        self._engine.load_state(state["engine"])

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super()._load_from_state_dict(state_dict, prefix, *args)
        if f"{prefix}subgrad" in state_dict and f"{prefix}_extra_state" not in state_dict:
            self.restart()  # V alone, from a file that holds tensors only

    def _apply(self, fn: Any, recurse: bool = True) -> LowRankLinear:
        before = self.subgrad
        super()._apply(fn, recurse)
        if (before.dtype, before.device) != (self.subgrad.dtype, self.subgrad.device):
            self._engine.forget()  # its sketch does not move along
        return self

    def extra_repr(self) -> str:
        """Return sizes, rank and λ for `print`."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{sizes}, rank={self.rank}, lam={self.lam:g}, refresh={self.refresh}"
