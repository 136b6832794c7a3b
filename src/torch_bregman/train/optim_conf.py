"""How the weights move: the optimizer of a run, checked. Does not need torch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from torch_bregman.train.checked import Checked, refuse_idle, within


@dataclass
class MultilevelConf(Checked):
    """Cycles of coarse steps on a frozen support, on tensors that hold the support only, and one fine step (linbreg).

    Args:
        m: coarse steps between two fine ones, e.g. 25; by default every step is full. λ must be smaller than without.
        m_start: coarse steps of the first cycles, e.g. 2, for a better support; by default m.
        m_over: share of all steps over which they rise from there to m.
        clip: norm of a group that wakes, in λ√n, at most.
        form: auto trains on compact tensors where model and regulariser allow it, masks never.
        below: density up to which a layer is compact under l1; by default measured at the start, which may differ from
            run to run in the last bits of the weights. 0.1 suits layers of 1000 units and batches of 128.
        compiled: products under l1 by a C program, twice as fast; needs a C compiler, and waits for it at the start.
    """

    m: int | None = None
    m_start: int | None = None
    m_over: float = 0.2
    clip: float = 1.1
    form: Literal["auto", "masks"] = "auto"
    below: float | None = None
    compiled: bool = False

    def check(self) -> None:
        """Check ranges, and that nothing is set without m."""
        if self.m is None:
            refuse_idle("optim.multilevel", self, {"m"}, "no optim.multilevel.m")
            return
        within("optim.multilevel.m", self.m, 0, math.inf, "coarse steps in a cycle, e.g. 25")
        if not self.clip > 1:
            raise ValueError(f"optim.multilevel.clip must be a number > 1, got {self.clip!r}: 1.1 is a good choice")
        if self.m_start is None:
            refuse_idle("optim.multilevel", self, {f.name for f in dataclasses.fields(self)} - {"m_over"}, "no m_start")
        else:
            within("optim.multilevel.m_start", self.m_start, 1, self.m, "fewer than m, e.g. 2")
        if not 0 < self.m_over <= 1:
            raise ValueError(f"optim.multilevel.m_over must lie in (0, 1], got {self.m_over!r}: a share of all steps")
        if self.form == "masks":
            refuse_idle("optim.multilevel", self, {"m", "m_start", "m_over", "clip", "form"}, "form masks")
        if self.below is not None:
            within("optim.multilevel.below", self.below, 0, 1, "a density, e.g. 0.1")


_SGD = {"lr", "momentum", "dampening", "nesterov", "weight_decay"}
_ADAM = {"lr", "betas", "eps", "amsgrad", "weight_decay"}
_TAKES: dict[str, set[str]] = {
    "linbreg": _SGD | {"accelerated", "delta", "compiled", "multilevel"},
    "adabreg": _ADAM | {"delta", "compiled"},
    "proxsgd": _SGD,
    "pgd": {"lr", "accelerated", "backtracking"},
    "bregman": {"lr", "weight_decay", "delta", "base", "options"},
    "sgd": _SGD,
    "adam": _ADAM,
    "adamw": _ADAM,
}
_RATES = {
    "linbreg": 0.1,
    "proxsgd": 0.1,
    "pgd": 1.0,
    "sgd": 0.1,
    **dict.fromkeys(("adabreg", "bregman", "adam", "adamw"), 1e-3),
}
DENSE = ("sgd", "adam", "adamw")
"""Names of the dense baselines."""


@dataclass
class OptimConf(Checked):
    """How the weights move. A field that the optimizer does not take is refused.

    Args:
        name: linbreg, adabreg, proxsgd, pgd, bregman (any torch optimizer, see base); sgd, adam and adamw are the
            dense baselines, where a regulariser is added to the loss.
        lr: τ ≥ 0; by default 0.1 for linbreg, proxsgd and sgd, 1e-3 for adabreg, bregman, adam and adamw, 1 for pgd.
        momentum: μ in [0, 1).
        dampening: in [0, 1]; the paper's momentum has dampening = momentum.
        nesterov: look ahead; needs momentum.
        accelerated: Nesterov's own sequence of momenta with restart, for full batches (linbreg, pgd).
        betas: decay of Adam's two means.
        eps: Adam's ε.
        amsgrad: divide by the largest second moment so far.
        weight_decay: into the dual for Bregman methods, decoupled for adabreg and adamw, into the gradient for sgd and
            adam.
        delta: δ > 0, the elastic-net parameter.
        backtracking: factor by which pgd shrinks τ.
        compiled: one compiled pass a step; needs a C compiler on a CPU, and waits for it at the start.
        base: class in torch.optim that bregman runs on the dual variables, e.g. RMSprop.
        options: what else that class takes.
        multilevel: full gradients now and then only (linbreg).
    """

    name: Literal["linbreg", "adabreg", "proxsgd", "pgd", "bregman", "sgd", "adam", "adamw"] = "linbreg"
    lr: float | None = None
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    accelerated: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    amsgrad: bool = False
    weight_decay: float = 0.0
    delta: float = 1.0
    backtracking: float = 0.5
    compiled: bool = False
    base: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    multilevel: MultilevelConf = field(default_factory=MultilevelConf)

    def check(self) -> None:
        """Check that every field that was set has an effect."""
        self.betas = (float(self.betas[0]), float(self.betas[1]))
        if self.multilevel.m is not None and self.name != "linbreg":
            raise ValueError(
                f"optim.multilevel is for linbreg, got {self.name}: what it remembers of a weight needs the full "
                "gradient at every step; set optim.name to linbreg, or leave it out"
            )
        refuse_idle("optim", self, {"name", *_TAKES[self.name]}, self.name)
        if self.lr is None:
            self.lr = _RATES[self.name]
        within("optim.lr", self.lr, 0, math.inf, "a step size")
        if (self.name == "bregman") != (self.base is not None):
            raise ValueError(f"optim.base must name a class of torch.optim for bregman, got {self.base!r}")
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError(
                f"optim.nesterov needs momentum > 0 and dampening = 0, got momentum {self.momentum} and dampening "
                f"{self.dampening}: set optim.momentum to 0.9 and optim.dampening to 0"
            )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the optimizer's class."""
        return {key: getattr(self, key) for key in sorted(_TAKES[self.name] - {"base", "options", "multilevel"})}
