"""From a configuration to what moves the weights, and what moves the learning rate."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

import torch_bregman.optim as optim
from torch_bregman.distributed.sharded import is_sharded
from torch_bregman.groups import param_groups
from torch_bregman.regularizers import NonNegativeL1, NoRegularizer, Regularizer, from_spec
from torch_bregman.rules import collect
from torch_bregman.train.conf import Conf, RegularizerConf
from torch_bregman.train.options import call, lookup
from torch_bregman.train.target_recipe import OUTGOING
from torch_bregman.unit_groups import outgoing_groups

_BREGMAN = {"linbreg": optim.LinBreg, "adabreg": optim.AdaBreg, "proxsgd": optim.ProxSGD, "pgd": optim.PGD}
_DENSE = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def build_optimizer(conf: Conf, model: nn.Module, image: Tensor) -> tuple[Optimizer, Callable[[], Tensor] | None]:
    """Return the optimizer, and for a dense baseline the penalty that is added to its loss.

    Weights that must not be negative start at their absolute values.

    Args:
        conf: the run.
        model: of the run.
        image: a batch of one, to find which weights read a unit.

    Raises:
        ValueError: for rules that do not fit the model, names that are unknown, and options that cannot be taken.
    """
    groups = param_groups(model, _rules(conf, model, image))
    if conf.target.scope == "layer":
        groups = [each for group in groups for each in _apart(group)]
    _start_in_domain(groups)
    name, arguments = conf.optim.name, conf.optim.arguments()
    if name == "bregman":
        return _wrap(conf, groups), None
    if name in _DENSE:
        plain = [{key: value for key, value in group.items() if key != "regularizer"} for group in groups]
        return _DENSE[name](plain, **arguments, fused=_fusible(model)), _penalty(groups, name)
    cycles = conf.optim.multilevel
    if cycles.m is not None:
        return optim.MultilevelLinBreg(groups, **arguments, m=cycles.m, clip=cycles.clip), None
    return _BREGMAN[name](groups, **arguments), None


def _fusible(model: nn.Module) -> bool | None:
    """Return True where torch has its fast step for all weights: nine times as fast for Adam on a CPU; else None."""
    params = list(model.parameters())
    plain = all(param.device.type in ("cpu", "cuda") and param.is_floating_point() for param in params)
    return True if plain and not any(map(is_sharded, params)) else None


def build_scheduler(conf: Conf, optimizer: Optimizer, steps: int) -> Any:
    """Return the schedule of the learning rate, None where it stays.

    Args:
        conf: the run.
        optimizer: whose learning rate it moves.
        steps: batches an epoch.

    Raises:
        ValueError: for a name that is unknown, and options that cannot be taken.
    """
    name = conf.schedule.name
    if name is None:
        return None
    kind = lookup(lr_scheduler, name, lr_scheduler.LRScheduler, "schedule.name")
    total = conf.epochs * (steps if conf.schedule.every == "step" else 1)
    takes = inspect.signature(kind).parameters
    lengths = {key: total for key in ("T_max", "total_steps", "total_iters") if key in takes}
    options = {**lengths, **conf.schedule.options}
    call(_rehearse, f"schedule {name}", kind, **options)
    return call(kind, f"schedule {name}", optimizer, **options)


def _wrap(conf: Conf, groups: list[dict[str, Any]]) -> Optimizer:
    base = lookup(torch.optim, conf.optim.base or "", Optimizer, "optim.base")
    # weight decay is for Bregman, which converts it, and not every base takes it
    groups = [{**group, "weight_decay": conf.optim.weight_decay} for group in groups]
    built = call(base, f"optim.base {conf.optim.base}", groups, **{"lr": conf.optim.lr, **conf.optim.options})
    return optim.Bregman(built, delta=conf.optim.delta)


def not_free(conf: Conf, model: nn.Module) -> set[str]:
    """Return the names of the parameters that no rule leaves without a regulariser."""
    return _not_under([name for name, rule in conf.rules.items() if rule.name == "none"], model)


def _not_under(names: Iterable[str], model: nn.Module) -> set[str]:
    keys = [_key(name, model) for name in names]
    places = collect(model, model.named_parameters(remove_duplicate=False))
    return {place.name for place in places if not any(place.matches(key) for key in keys)}


def _rules(conf: Conf, model: nn.Module, image: Tensor) -> dict[Any, Regularizer]:
    rules: dict[Any, Regularizer] = {
        _key(name, model): _regularizer(f"rules.{name}", rule) for name, rule in conf.rules.items()
    }
    if conf.regularizer.name == OUTGOING:
        found = call(
            outgoing_groups, "regularizer outgoing", model, image, conf.regularizer.lam, **conf.regularizer.options
        )
        left = _not_under(conf.rules, model)  # what is said of a weight goes before what is found
        return {**{key: rule for key, rule in found.items() if not left.isdisjoint(_names(key))}, **rules}
    rules.setdefault(nn.Module, _regularizer("regularizer", conf.regularizer))
    return rules


def _names(key: str | tuple[str, ...]) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key


def _apart(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a group for each weight that has a regulariser."""
    if isinstance(group["regularizer"], NoRegularizer):
        return [group]
    members = zip(group["params"], group["param_names"], strict=True)
    return [{**group, "params": [param], "param_names": [name]} for param, name in members]


def _regularizer(field: str, conf: RegularizerConf) -> Regularizer:
    if taken := sorted({"name", "lam"} & conf.options.keys()):
        raise ValueError(f"{field}.options must not set {taken[0]}: that is {field}.{taken[0]}")
    return call(_from_spec, f"{field}.name {conf.name}", conf.name, conf.lam, **conf.options)


def _from_spec(name: str, lam: float, /, **options: Any) -> Regularizer:
    return from_spec({"name": name, **options}, lam)


def _key(name: str, model: nn.Module) -> type[nn.Module] | str:
    """Return the module type of that name, of the model or of torch.nn, else the name as a pattern."""
    for module in model.modules():
        for kind in type(module).__mro__:
            if kind.__name__ == name:
                return kind
    known = getattr(nn, name, None)
    return known if inspect.isclass(known) and issubclass(known, nn.Module) else name


@torch.no_grad()
def _start_in_domain(groups: list[dict[str, Any]]) -> None:
    for group in groups:
        if isinstance(group["regularizer"], NonNegativeL1):
            for param in group["params"]:
                param.abs_()


def _penalty(groups: list[dict[str, Any]], optimizer: str) -> Callable[[], Tensor] | None:
    terms = [(g["regularizer"], p) for g in groups if g["regularizer"].lam > 0 for p in g["params"]]
    if unfit := [each.name for each, _ in terms if not each.deterministic or isinstance(each, NonNegativeL1)]:
        raise ValueError(f"{unfit[0]} is no penalty that {optimizer} could add to the loss: use linbreg or proxsgd")
    return (lambda: torch.stack([regularizer.value(p) for regularizer, p in terms]).sum()) if terms else None


def _rehearse(kind: type[Any], /, **options: Any) -> None:
    """Step a schedule twice beside a toy: what is wrong with options shows in a step, hours later maybe."""
    toy = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.5)
    schedule = kind(toy, **options)
    arguments = (1.0,) if kind is lr_scheduler.ReduceLROnPlateau else ()
    for _ in range(min(2, options.get("total_steps") or 2)):
        toy.step()
        schedule.step(*arguments)
