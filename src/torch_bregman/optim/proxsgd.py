"""Proximal stochastic gradient descent, the primal counterpart of LinBreg."""

from __future__ import annotations

from torch import Tensor
from torch.optim.sgd import sgd

from torch_bregman.optim.base import GradientOptimizer, Group, Params, at_least, check_momentum
from torch_bregman.optim.gradients import is_dense, matching, spared
from torch_bregman.optim.low_rank import threshold_into
from torch_bregman.optim.shared_low_rank import Call, threshold_shared
from torch_bregman.regularizers import Nuclear, Regularizer


class ProxSGD(GradientOptimizer):
    """Stochastic gradient step, then the proximal map: θ ← prox_{τJ}(θ − τ·d).

    d is the direction of `torch.optim.SGD`. Unlike Bregman iterations it starts dense and shrinks what it does not
    need, with a bias of λ on what it keeps. With J = 0 this is `torch.optim.SGD`.

    Args:
        params: parameters or groups, e.g. from `param_groups`.
        lr: τ ≥ 0, a number or a tensor; default 0.1.
        regularizer: J of the groups that bring none of their own; default none.
        momentum: μ in [0, 1), default 0.
        dampening: in [0, 1], default 0; as in torch, the first step is not damped.
        nesterov: look ahead; needs momentum > 0 and no dampening.
        weight_decay: wd ≥ 0, default 0: d of g + wd·θ.
        maximize: ascend instead.
        foreach, fused: which of torch's implementations takes the gradient step; default torch's own choice.

    Raises:
        ValueError: for a number out of range or options that do not go together.

    References:
        Rosasco, Villa, Vũ 2014; the baseline "ProxGD" of Bungert, Roith, Tenbrinck, Burger, JMLR 23(192), 2022.

    Example:
        >>> import torch, torch_bregman as tb
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 0.1]))
        >>> optimizer = tb.ProxSGD([weight], lr=0.1, regularizer=tb.L1(2.0))
        >>> weight.grad = torch.tensor([0.0, 0.0])
        >>> optimizer.step()
        >>> weight
        Parameter containing:
        tensor([0.8000, 0.0000], requires_grad=True)
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.1,
        *,
        regularizer: Regularizer | None = None,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "fused": fused,
        }
        super().__init__(params, defaults, regularizer)

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        check_momentum(group)
        at_least("weight_decay", group["weight_decay"], 0)

    def _step(self) -> None:
        ready = []
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            grads = [matching(param.grad, param) for param in params if param.grad is not None]
            if params:
                ready.append((group, params, grads))
        for group, params, grads in ready:
            self._descend(group, params, grads)
            if float(group["lr"]):
                self._shrink(group, params)

    def _shrink(self, group: Group, params: list[Tensor]) -> None:
        regularizer, step, lam = group["regularizer"], float(group["lr"]), group["lam"]
        if isinstance(regularizer, Nuclear):
            call = Call(regularizer, params, step * lam, 1.0, params, [self.state[param] for param in params])
            if self._is_shared(call):
                threshold_shared([call], self._processes)
            else:
                threshold_into(*call)
            self._seen.update((id(param), param._version) for param in params)
        elif regularizer.joint:
            regularizer.prox_all(group["params"], step, lam=lam, outs=group["params"])
        else:
            for param in params:
                regularizer.prox(param, step, lam=lam, out=param)

    def _descend(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        buffers = [self.state[param].get("momentum_buffer") for param in params]
        foreach, fused = group["foreach"], group["fused"] and all(map(is_dense, params))
        sgd(
            params,
            spared(grads, nesterov=group["nesterov"], foreach=foreach, fused=fused),
            buffers,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
            foreach=foreach,
            fused=fused,
        )
        if group["momentum"]:
            for param, buffer in zip(params, buffers, strict=True):
                self.state[param]["momentum_buffer"] = buffer
