"""The nuclear norm: low rank."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from torch_bregman.distributed.sharded import gathered, is_sharded, sharded_like
from torch_bregman.linalg import Engine, GramEngine, Thresholded, new_engine
from torch_bregman.regularizers.base import Regularizer, at_least_float, largest, write
from torch_bregman.views import View, get_view


@dataclass(frozen=True)
class Nuclear(Regularizer):
    """J(x) = λ w Σ σ_i(X), σ_i the singular values of x seen as a matrix X: weights grow in rank.

    prox_{sJ} is singular value thresholding, U max(S − sλw, 0) Vᵀ; the dual norm is σ_1/w. w = 1, or √(mn) for an m × n
    matrix: then weights of different sizes can share one λ, for σ_i/√(mn) is what an entry of the direction is in the
    mean square, as ‖x_g‖/√n_g is of a group. With w = 1 the directions of small matrices wake later.

    Args:
        lam: λ ≥ 0, default 1.
        view: how a weight becomes a matrix, a name or a `View`, default "rows": out × (in·k·k) for convolutions.
            "spatial" gives (out·k) × (in·k), "kernels" (out·in) × (k·k).
        engine: how optimizers threshold singular values step after step: auto (default), full, gram, tracked, matmul,
            or "randomized(16)", the truncated SVD of the literature, which caps the rank. `prox` itself is exact.
        weighted: w = √(mn); else w = 1 (default), as in the literature.

    Raises:
        ValueError: for an unknown view, or, when used, for a tensor that has no such matrix or is not finite.

    References:
        Cai, Candès, Shen 2010; Bungert et al., JMLR 2022.

    Example:
        >>> import torch
        >>> Nuclear(lam=1.0).prox(torch.diag(torch.tensor([3.0, 0.5])))
        tensor([[2., 0.],
                [0., 0.]])
    """

    view: str | View = "rows"
    engine: str = "auto"
    weighted: bool = field(default=False, kw_only=True)
    name: ClassVar[str] = "nuclear"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "view", get_view(self.view))
        object.__setattr__(self, "engine", str(new_engine(self.engine)))

    def value(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return λ w Σ σ_i."""
        matrix = self.matrix(x)
        total = torch.linalg.svdvals(at_least_float(matrix)).sum() if matrix.numel() else x.sum()
        return (self.strength(lam) * self.weight(matrix) * total).to(x.dtype)

    def prox(self, x: Tensor, step: float = 1.0, *, lam: float | None = None, out: Tensor | None = None) -> Tensor:
        """Return U max(S − step·λ·w, 0) Vᵀ, exactly."""
        threshold = step * self.strength(lam)
        if threshold == 0 and self.admits_all(x) and torch.isfinite(x).all():
            return write(x, out) if out is not None else x.clone()
        wide = x if x.dtype == torch.float64 else x.double()
        matrix = self.threshold(self.matrix(wide), threshold, GramEngine()).matrix().to(x.dtype)
        return write(self.restore(matrix, x), out)

    def threshold(self, matrix: Tensor, threshold: float, engine: Engine) -> Thresholded:
        """Return the factors of SVT_{tw} as an engine finds them.

        Args:
            matrix: a weight as a matrix, or a batch of them (b, m, n).
            threshold: t ≥ 0.
            engine: may remember the last matrix it saw.
        """
        return engine(matrix, threshold * self.weight(matrix if matrix.ndim == 2 else matrix[0]))

    def weight(self, x: Tensor) -> float:
        """Return w for a weight, whatever its shape: it has as many entries as its matrix."""
        return math.sqrt(x.numel()) if self.weighted else 1.0

    def admits_all(self, x: Tensor) -> bool:
        """Return whether weights of this shape may have any rank."""
        return True

    def new_engine(self) -> Engine:
        """Return an engine for one weight, without memory."""
        return new_engine(self.engine)

    def batch_engine(self, device: torch.device) -> Engine | None:
        """Return an engine for many matrices at once, None where the engine follows each by itself."""
        kind = self.engine.split("(")[0]
        if kind == "auto" and device.type != "cpu":
            return new_engine("matmul")
        return new_engine(self.engine) if kind in ("gram", "full", "matmul") else None

    def subgradient(self, x: Tensor, *, lam: float | None = None) -> Tensor:
        """Return λ·w·U Vᵀ over the singular values that are not zero to rounding."""
        matrix = self.matrix(x)
        if matrix.numel() == 0:
            return torch.zeros_like(x)
        U, S, Vh = torch.linalg.svd(at_least_float(matrix), full_matrices=False)
        # float32 weights made by a product of factors carry its rounding as singular values of about eps·σ_1
        noise = 4 * max(matrix.shape) ** 0.5 * torch.finfo(matrix.dtype).eps * S[0]
        kept = noise < S
        directions = (U[:, kept] @ Vh[kept]).to(x.dtype)
        return self.restore(directions, x).mul(self.strength(lam) * self.weight(matrix))

    def levels(self, v: Tensor) -> Tensor:
        """Return σ_i/w, falling."""
        matrix = self.matrix(v)
        return torch.linalg.svdvals(at_least_float(matrix)) / max(self.weight(matrix), 1.0)

    def dual_norm(self, x: Tensor) -> Tensor:
        """Return σ_1/w."""
        matrix = self.matrix(x)
        if matrix.numel() == 0:
            return largest(x)
        return (torch.linalg.matrix_norm(at_least_float(matrix), ord=2) / self.weight(matrix)).to(x.dtype)

    def coupled(self, mask: Tensor) -> Tensor:
        """Widen any mark to the whole tensor."""
        return mask.any().expand_as(mask)

    def matrix(self, x: Tensor) -> Tensor:
        """Return x as a matrix; a DTensor is gathered from all processes."""
        return get_view(self.view).matrix(gathered(x))

    def shape(self, x: Tensor) -> torch.Size:
        """Return rows and columns of x as a matrix; nothing is computed or gathered."""
        return get_view(self.view).matrix(torch.empty(x.shape, device="meta")).shape

    def restore(self, matrix: Tensor, like: Tensor) -> Tensor:
        """Undo `matrix`: return the entries in the shape of `like`, cut as `like` where that is a DTensor."""
        if not is_sharded(like):
            return get_view(self.view).restore(matrix, like)
        shape = torch.empty(like.shape, device="meta")
        return sharded_like(get_view(self.view).restore(matrix, shape), like)
