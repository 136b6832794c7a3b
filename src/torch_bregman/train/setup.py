"""From a configuration to the parts of a run: data, model, optimizer, schedule."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

import torch_bregman.optim as optim
from torch_bregman.data import Batches, Compose, DataSet, Flip, Shift, Split, black, holdout, load, normalize
from torch_bregman.groups import param_groups
from torch_bregman.init import low_rank_, sparsify_
from torch_bregman.models import MODELS, build
from torch_bregman.regularizers import Regularizer, from_spec
from torch_bregman.train.conf import Conf, RegularizerConf

_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class Parts:
    """All that the loop works with.

    Args:
        device: where everything lives.
        train: batches of the training images.
        validation: batches held out, or None.
        test: batches of the test images.
        model: the network.
        optimizer: what moves it.
        scheduler: what moves the learning rate, or None.
        scaler: of the gradients, for float16 only.
        autocast: the type of autocast, or None.
        penalty: J as a term of the loss, for the dense baselines, or None.
        source: where the data came from.
    """

    device: torch.device
    train: Batches
    validation: Batches | None
    test: Batches
    model: nn.Module
    optimizer: Optimizer
    scheduler: Any
    scaler: torch.amp.GradScaler | None
    autocast: torch.dtype | None
    penalty: Callable[[], Tensor] | None
    source: str


def set_up(conf: Conf) -> Parts:
    """Return all parts of the run that a configuration describes, at its start.

    Raises:
        ValueError: where data is missing or malformed, or parts do not go together.
    """
    device = pick_device(conf.device)
    data = load(conf.data.name, conf.data.dir)
    train, validation, test = _batches(conf, data, device)
    model = _model(conf, data).to(device=device, dtype=torch.float64 if conf.dtype == "float64" else None)
    optimizer, penalty = _optimizer(conf, model)
    return Parts(
        device=device,
        train=train,
        validation=validation,
        test=test,
        model=model,
        optimizer=optimizer,
        scheduler=_scheduler(conf, optimizer, len(train)),
        scaler=torch.amp.GradScaler(device.type) if conf.dtype == "float16" else None,
        autocast=_AUTOCAST.get(conf.dtype),
        penalty=penalty,
        source=data.source,
    )


def pick_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the GPU where there is one.

    Raises:
        ValueError: for a device that PyTorch does not know or that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used ({reason}): use auto or cpu") from None
    return device


def _batches(conf: Conf, data: DataSet, device: torch.device) -> tuple[Batches, Batches | None, Batches]:
    dtype = torch.float64 if conf.dtype == "float64" else torch.float32

    def ready(split: Split) -> tuple[Tensor, Tensor]:
        return normalize(split, data.mean, data.std, device, dtype)

    train, aside = holdout(data.train, conf.data.validation, conf.seed) if conf.data.validation else (data.train, None)
    augment = [Shift(conf.data.shift, black(data.mean, data.std))] if conf.data.shift else []
    augment += [Flip()] if conf.data.flip else []
    batches = Batches(*ready(train), conf.data.batch_size, augment=Compose(augment) if augment else None)
    held_out = Batches(*ready(aside), _EVALUATED, shuffle=False) if aside else None
    return batches, held_out, Batches(*ready(data.test), _EVALUATED, shuffle=False)


_EVALUATED = 1000
"""Images a batch of evaluation: large enough to be fast, small enough for any memory."""


def _model(conf: Conf, data: DataSet) -> nn.Module:
    channels, height, width = data.shape
    shape: dict[str, Any] = {"in_channels": channels, "size": height, "classes": data.num_classes}
    if conf.model.name == "mlp":
        shape = {"sizes": [channels * height * width, *(conf.model.hidden or []), data.num_classes]}
    takes = inspect.signature(MODELS[conf.model.name]).parameters if conf.model.name in MODELS else {}
    fitting = {key: value for key, value in shape.items() if key in takes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(conf.seed)
        model = build(conf.model.name, **{**fitting, **conf.model.options})
    start = conf.start
    if start.kind == "sparse":
        sparsify_(model, start.density, seed=conf.seed, view=start.view, init=start.init)
    elif start.kind == "low_rank":
        low_rank_(model, start.rank, seed=conf.seed, init=start.init)
    return model


def _optimizer(conf: Conf, model: nn.Module) -> tuple[Optimizer, Callable[[], Tensor] | None]:
    rules: dict[Any, Regularizer] = {_key(name, model): _regularizer(rule) for name, rule in conf.rules.items()}
    rules.setdefault(nn.Module, _regularizer(conf.regularizer))
    groups = param_groups(model, rules)
    arguments = conf.optim.arguments()
    name = conf.optim.name
    if name == "bregman":
        del arguments["delta"]
        base = _lookup(torch.optim, conf.optim.base or "", Optimizer, "optim.base")
        built = _call(base, "optim.options", groups, **arguments, **conf.optim.options)
        return optim.Bregman(built, delta=conf.optim.delta), None
    if name in ("sgd", "adam"):
        kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[name]
        plain = [{key: value for key, value in group.items() if key != "regularizer"} for group in groups]
        return kind(plain, **arguments), _penalty(groups)
    kind = {"linbreg": optim.LinBreg, "adabreg": optim.AdaBreg, "proxsgd": optim.ProxSGD, "pgd": optim.PGD}[name]
    return kind(groups, **arguments), None


def _regularizer(conf: RegularizerConf) -> Regularizer:
    try:
        return from_spec({"name": conf.name, **conf.options}, conf.lam)
    except TypeError as error:
        raise ValueError(f"regularizer {conf.name!r} cannot take the options {conf.options}: {error}") from None


def _key(name: str, model: nn.Module) -> type[nn.Module] | str:
    """Return the module type of that name where the model has one, else the name as a pattern."""
    return next((kind for module in model.modules() for kind in type(module).__mro__ if kind.__name__ == name), name)


def _penalty(groups: list[dict[str, Any]]) -> Callable[[], Tensor] | None:
    terms = [(g["regularizer"], p) for g in groups if g["regularizer"].lam > 0 for p in g["params"]]
    return (lambda: torch.stack([regularizer.value(p) for regularizer, p in terms]).sum()) if terms else None


def _scheduler(conf: Conf, optimizer: Optimizer, steps: int) -> Any:
    if conf.schedule.name is None:
        if conf.schedule.options:
            raise ValueError(f"schedule.options {conf.schedule.options} have no effect without schedule.name")
        return None
    kind = _lookup(lr_scheduler, conf.schedule.name, lr_scheduler.LRScheduler, "schedule.name")
    total = conf.epochs * (steps if conf.schedule.every == "step" else 1)
    takes = inspect.signature(kind).parameters
    lengths = {key: total for key in ("T_max", "total_steps", "total_iters") if key in takes}
    return _call(kind, "schedule.options", optimizer, **{**lengths, **conf.schedule.options})


def _lookup(module: Any, name: str, parent: type[Any], what: str) -> type[Any]:
    kind = getattr(module, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, parent)):
        raise ValueError(f"{what} must name a class in {module.__name__}, got {name!r}")
    return kind


def _call(kind: type[Any], what: str, *args: Any, **options: Any) -> Any:
    try:
        return kind(*args, **options)
    except TypeError as error:
        raise ValueError(f"{what} do not fit {kind.__name__}: {error}") from None
