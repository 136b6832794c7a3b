"""Adam on the dual variable."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.optim.adam import adam

from torch_bregman.optim.base import Group, Params, at_least, check_betas
from torch_bregman.optim.compiled import adabreg_formula
from torch_bregman.optim.dual_step import DualStepOptimizer, decay_into_dual
from torch_bregman.optim.mirror import Batch
from torch_bregman.optim.native import kernel as native
from torch_bregman.regularizers import Regularizer


class AdaBreg(DualStepOptimizer):
    """The Bregman version of Adam: Adam moves the dual variable, θ is its image.

    v ← v − τ·m̂ / (√n̂ + ε),  θ ← prox_{δJ}(δv), with m̂ and n̂ the bias-corrected means of g and g².

    Choosing λ: the dual step is blind to the magnitude of a gradient. Any gradient that keeps its sign crosses λ in
    about λ/τ steps, so λ here and λ for `LinBreg` live on scales orders of magnitude apart.

    With J = 0, δ = 1 and no weight decay this is `torch.optim.Adam`.

    Args:
        params: parameters or groups, e.g. from `param_groups`.
        lr: τ ≥ 0, a number or a tensor; default 1e-3.
        regularizer: J of the groups that bring none of their own; default none.
        betas: decay of the two means, each in [0, 1), default (0.9, 0.999).
        eps: ε ≥ 0, default 1e-8.
        amsgrad: divide by the largest n̂ so far (Reddi, Kale, Kumar 2018).
        delta: δ > 0, default 1. Scales magnitudes, not the support.
        weight_decay: wd ≥ 0, default 0; decoupled, and into the dual: v ← v − τ·wd·θ before the step.
        maximize: ascend instead.
        foreach, fused: which of torch's implementations takes the dual step; default the fused kernel on a CPU, torch's
            own choice elsewhere.
        compiled: move and map in one pass, default False; for elementwise regularisers, and `GroupL2` on float32
            weights on a CPU whose groups are pieces of memory (rows, filters, kernels). float32 weights on a CPU take a
            C program, on torch's number of threads: the system's compiler (CC, cc, gcc or clang) builds it at the first
            step, in about a second, and it is kept in the user's cache. All others take `torch.compile`: the first step
            then waits for seconds (6 parameters) to two minutes (144), and so does one where another set of parameters
            has gradients, but not a change of lr or λ. It pays for millions of
            weights; small models gain nothing.

    Raises:
        ValueError: for a number out of range or options that do not go together; at the first step for a C compiler
            that is missing or fails.

    References:
        Bungert, Roith, Tenbrinck, Burger, JMLR 23(192), 2022; Kingma, Ba 2015.

    Example:
        >>> import torch, torch_bregman as tb
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = tb.AdaBreg([weight], lr=0.1, regularizer=tb.L1(0.25))
        >>> for _ in range(3):
        ...     weight.grad = torch.tensor([-5.0, 0.0])
        ...     optimizer.step()
        >>> weight
        Parameter containing:
        tensor([0.0500, 0.0000], requires_grad=True)
    """

    like_param: ClassVar[frozenset[str]] = frozenset({"subgrad", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"})

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        *,
        regularizer: Regularizer | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        amsgrad: bool = False,
        delta: float = 1.0,
        weight_decay: float = 0.0,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        compiled: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "amsgrad": amsgrad,
            "delta": delta,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "fused": fused,
            "compiled": compiled,
        }
        super().__init__(params, defaults, regularizer)

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        check_betas(group)
        at_least("eps", group["eps"], 0)
        if isinstance(group["lr"], Tensor) and group["foreach"]:
            raise ValueError("lr as a tensor does not go with foreach=True: pass a float, or leave foreach unset")

    def _move(self, batch: Batch, foreach: bool | None, fused: bool | None) -> None:
        decay_into_dual(batch)
        group, states = batch.group, batch.states
        _start_means(batch, fused=bool(fused))
        beta1, beta2 = group["betas"]
        adam(
            batch.duals,
            batch.grads,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else [],
            [state["step"] for state in states],
            amsgrad=group["amsgrad"],
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=group["maximize"],
            foreach=foreach,
            fused=fused,
        )

    def _states(self, batch: Batch) -> list[list[Tensor]]:
        _start_means(batch, fused=True)
        keys = ["exp_avg", "exp_avg_sq"] + (["max_exp_avg_sq"] if batch.group["amsgrad"] else [])
        return [[state[key] for state in batch.states] for key in keys]

    def _run_native(self, batch: Batch, states: list[list[Tensor]]) -> None:
        group, rate = batch.group, float(batch.group["lr"])
        beta1, beta2 = map(float, group["betas"])
        counts = _count([state["step"] for state in batch.states])
        shrunk = {count: (rate / (1 - beta1**count), (1 - beta2**count) ** -0.5) for count in set(counts)}
        native.step(
            batch,
            states,
            [shrunk[count][0] for count in counts],
            [shrunk[count][1] for count in counts],
            update=native.ADAM,
            gain1=-(1 - beta1) if group["maximize"] else 1 - beta1,
            beta1=beta1,
            beta2=beta2,
            gain2=1 - beta2,
            eps=group["eps"],
        )

    def _run(self, batch: Batch, states: list[list[Tensor]]) -> None:
        group = batch.group
        betas = [float(beta) for beta in group["betas"]]
        numbers = [float(group[key]) for key in ("lr", "lam", "delta", "weight_decay")] + [*betas, float(group["eps"])]
        options = {"amsgrad": group["amsgrad"], "maximize": group["maximize"], "decay": group["weight_decay"] != 0}
        means, squares, *peaks = states
        corrections = _corrections([state["step"] for state in batch.states], betas, batch.duals[0].device)
        self._program(group, adabreg_formula, **options)(
            numbers, batch, means, squares, peaks[0] if peaks else [], corrections
        )


def _start_means(batch: Batch, *, fused: bool) -> None:
    amsgrad = ["max_exp_avg_sq"] if batch.group["amsgrad"] else []
    for dual, state in zip(batch.duals, batch.states, strict=True):
        if "exp_avg" not in state:
            # torch's fused kernels count steps on the device, the others on the CPU
            state["step"] = torch.zeros((), dtype=torch.float32, device=dual.device if fused else "cpu")
            for key in ("exp_avg", "exp_avg_sq", *amsgrad):
                state[key] = torch.zeros_like(dual)


def _count(steps: list[Tensor]) -> list[float]:
    """Count a step on the CPU, and return all counts."""
    # 1 as tensors: a number would be made into one again for every count
    ones = [torch.ones((), device="cpu")] * len(steps)
    torch._foreach_add_(steps, ones)  # pyright: ignore[reportPrivateImportUsage] - as torch's own optimizers count
    return torch.stack(steps).tolist()


def _corrections(steps: list[Tensor], betas: list[float], device: torch.device) -> Tensor:
    """Count a step; return 1 − β₁ᵗ and 1 − β₂ᵗ of every parameter, in two rows."""
    torch._foreach_add_(steps, 1)  # pyright: ignore[reportPrivateImportUsage] - as torch's own optimizers count
    # in the program the powers would be taken anew for every entry
    count = torch.stack(steps).to(device=device, dtype=torch.float64)
    return 1 - torch.tensor(betas, dtype=torch.float64, device=device).unsqueeze(1) ** count
