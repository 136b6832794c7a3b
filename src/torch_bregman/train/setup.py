"""From a configuration to the parts of a run: data, model, optimizer, schedule."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torch_bregman.data import Batches, Compose, DataSet, Flip, Noise, Shift, Split, black, holdout, load, normalize
from torch_bregman.distributed.processes import size, together
from torch_bregman.distributed.sharded import is_sharded
from torch_bregman.distributed.wrapping import copied, cut, full_state, synchronised_norms
from torch_bregman.init import low_rank_, sparsify_
from torch_bregman.metrics import TrainingFlops, training_flops
from torch_bregman.models import MODELS, build
from torch_bregman.multilevel import CompactForm, Unsuited, compact_form
from torch_bregman.optim import MultilevelLinBreg, RegularizedOptimizer
from torch_bregman.schedulers import CycleSchedule, EntryTimes, Schedule, linear
from torch_bregman.train.conf import Conf
from torch_bregman.train.optimization import build_optimizer, build_scheduler, not_free
from torch_bregman.train.options import call
from torch_bregman.train.schedules import build_schedules
from torch_bregman.train.targets import build_controls, build_rates
from torch_bregman.train.task import Task, task_of
from torch_bregman.unit_groups import start_units_

_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Control(Protocol):
    """What is advanced after every step, and has a state for the checkpoint."""

    def step(self) -> None:
        """Do what is due."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""


@dataclass(frozen=True, eq=False)
class Parts:
    """All that the loop works with.

    Args:
        device: where everything lives.
        train: batches of the training images.
        validation: batches held out, or None.
        test: batches of the test images.
        model: the network.
        network: what is called in training: the model, or what averages its gradients over processes.
        optimizer: what moves it.
        scheduler: what moves the learning rate, or None.
        schedules: what moves λ and the rank cap, once an epoch.
        controls: what steers λ to the size asked for and freezes the network, once a step.
        every_step: whether the scheduler moves once a step.
        scaler: of the gradients, for float16 only.
        autocast: the type of autocast, or None.
        penalty: J as a term of the loss, for the dense baselines, or None.
        source: where the data came from.
        task: what is asked of the model.
        blank: the model without values, where the processes hold parts of it.
        flops: counts what training costs.
        form: the compact form in which the model is trained, or None.
        notes: what the user should hear of at the start.
    """

    device: torch.device
    train: Batches
    validation: Batches | None
    test: Batches
    model: nn.Module
    network: nn.Module
    optimizer: Optimizer
    scheduler: Any
    schedules: list[Schedule]
    controls: list[Control]
    every_step: bool
    scaler: torch.amp.GradScaler | None
    autocast: torch.dtype | None
    penalty: Callable[[], Tensor] | None
    source: str
    task: Task
    blank: nn.Module
    flops: TrainingFlops
    form: CompactForm | None = None
    notes: tuple[str, ...] = ()

    def whole_model(self) -> nn.Module:
        """Return the model with all its weights in this process; every process has to call it."""
        if self.network is not self.model or not any(map(is_sharded, self.model.parameters())):
            return self.model
        model = copy.deepcopy(self.blank).to_empty(device=self.device)
        model.load_state_dict(full_state(self.model))
        return model.train(self.model.training)


def set_up(conf: Conf) -> Parts:
    """Return all parts of the run that a configuration describes, at its start.

    Raises:
        ValueError: where data is missing or malformed, or parts do not go together.
    """
    device, data, (train, validation, test), model = together(lambda: _local_parts(conf))
    flops = training_flops(model, test.images[:1])
    blank = model
    if conf.scale.sharded and size() > 1:
        blank = copy.deepcopy(model).to("meta")
        cut(model)
    optimizer, penalty = together(lambda: build_optimizer(conf, model, test.images[:1]))
    if size() > 1 and isinstance(optimizer, RegularizedOptimizer):
        optimizer.share_thresholds()
    form, notes = _form(conf, model, optimizer, test.images[:1])
    by_recipe = conf.target.asked and conf.schedule.name is None
    scheduler, schedules, controls = together(
        lambda: (
            (build_rates if by_recipe else build_scheduler)(conf, optimizer, len(train)),
            build_schedules(conf, optimizer),
            build_controls(conf, optimizer, model, test.images[:1], len(train)),
        )
    )
    return Parts(
        device=device,
        train=train,
        validation=validation,
        test=test,
        model=model,
        network=model if conf.scale.sharded else copied(model),
        optimizer=optimizer,
        scheduler=scheduler,
        schedules=schedules,
        controls=[*controls, *_cycles(conf, optimizer, len(train)), *_watching(conf, optimizer)],
        every_step=by_recipe or (conf.schedule.name is not None and conf.schedule.every == "step"),
        scaler=torch.amp.GradScaler(device.type) if conf.dtype == "float16" else None,
        autocast=_AUTOCAST.get(conf.dtype),
        penalty=penalty,
        source=data.source,
        task=task_of(conf),
        blank=blank,
        flops=flops,
        form=form,
        notes=notes,
    )


def _local_parts(
    conf: Conf,
) -> tuple[torch.device, DataSet, tuple[Batches, Batches | None, Batches], nn.Module]:
    if size() > 1 and conf.optim.name == "pgd":
        raise ValueError(f"pgd searches its step in one process, got {size()}: use linbreg, or one process")
    device = pick_device(conf.device)
    data = load(conf.data.name, conf.data.dir)
    batches = _batches(conf, data, device)
    model = _model(conf, data).to(device=device, dtype=torch.float64 if conf.dtype == "float64" else None)
    model = synchronised_norms(model)
    _check_fit(conf, model, batches[2].images[:2], data)
    return device, data, batches, model


def _watching(conf: Conf, optimizer: Optimizer) -> list[EntryTimes]:
    if conf.entry_times and isinstance(optimizer, RegularizedOptimizer):
        return [EntryTimes(optimizer, conf.entry_times)]
    return []


def _cycles(conf: Conf, optimizer: Optimizer, steps: int) -> list[CycleSchedule]:
    """Return what lets the cycles grow, where they shall; `steps` are those of an epoch."""
    cycles = conf.optim.multilevel
    if cycles.m is None or cycles.m_start is None or not isinstance(optimizer, MultilevelLinBreg):
        return []
    over = max(1, round(cycles.m_over * conf.epochs * steps))
    return [CycleSchedule(optimizer, linear(cycles.m_start, cycles.m, over))]


def _form(
    conf: Conf, model: nn.Module, optimizer: Optimizer, image: Tensor
) -> tuple[CompactForm | None, tuple[str, ...]]:
    """Return the compact form, or why there is none."""
    cycles = conf.optim.multilevel
    if not isinstance(optimizer, MultilevelLinBreg) or not cycles.m or cycles.form == "masks":
        return None, ()
    if size() > 1 or conf.scale.accumulate > 1:
        what = f"{size()} processes" if size() > 1 else f"scale.accumulate {conf.scale.accumulate}"
        return None, (f"{_BY_MASKS}: {what}",)
    if conf.dtype in _AUTOCAST:
        return None, (f"{_BY_MASKS}: dtype {conf.dtype} is autocast",)
    try:
        return compact_form(
            model, optimizer, image, batch=conf.data.batch_size or 128, below=cycles.below, compiled=cycles.compiled
        ), ()
    except Unsuited as reason:
        return None, (f"{_BY_MASKS}: {reason}",)


_BY_MASKS = "trained by masks, which saves no time"


def pick_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the GPU where there is one.

    Raises:
        ValueError: for a device that PyTorch does not know or that is not there.
    """
    if name == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
        float(torch.zeros((), device=device))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:120]
        raise ValueError(f"device {name!r} cannot be used ({reason}): use auto or cpu") from None
    return device


def _batches(conf: Conf, data: DataSet, device: torch.device) -> tuple[Batches, Batches | None, Batches]:
    dtype = torch.float64 if conf.dtype == "float64" else torch.float32

    def ready(split: Split) -> tuple[Tensor, Tensor]:
        return normalize(split, data.mean, data.std, device, dtype)

    if conf.data.noise:
        return _noisy_batches(conf, data, device, dtype)
    train, aside = holdout(data.train, conf.data.validation, conf.seed) if conf.data.validation else (data.train, None)
    augment = [Shift(conf.data.shift, black(data.mean, data.std))] if conf.data.shift else []
    augment += [Flip()] if conf.data.flip else []
    batches = Batches(*ready(train), conf.data.batch_size, augment=Compose(augment) if augment else None)
    held_out = Batches(*ready(aside), _EVALUATED, shuffle=False) if aside else None
    return batches, held_out, Batches(*ready(data.test), _EVALUATED, shuffle=False)


def _noisy_batches(
    conf: Conf, data: DataSet, device: torch.device, dtype: torch.dtype
) -> tuple[Batches, Batches | None, Batches]:
    """Return batches of noisy images with the clean ones, pixels in [0, 1]; in training the noise is ever new."""
    noise, rng = Noise(conf.data.noise), torch.Generator().manual_seed(conf.seed)
    channels = data.shape[0]

    def clean(split: Split) -> Tensor:
        return normalize(split, [0.0] * channels, [1.0] * channels, device, dtype)[0]

    def evaluated(split: Split) -> Batches:
        images = clean(split)
        return Batches(noise(images, rng), images, _EVALUATED, shuffle=False)

    train, aside = holdout(data.train, conf.data.validation, conf.seed) if conf.data.validation else (data.train, None)
    images = clean(train)
    batches = Batches(images, images, conf.data.batch_size, augment=noise)
    return batches, evaluated(aside) if aside else None, evaluated(data.test)


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
        model = call(build, f"model {conf.model.name!r}", conf.model.name, **{**fitting, **conf.model.options})
    start = conf.start
    if start.kind == "sparse":
        sparsify_(model, start.density, seed=conf.seed, view=start.view, init=start.init)
    elif start.kind == "units":
        image, weights = torch.zeros(1, *data.shape), not_free(conf, model)
        call(start_units_, "start.kind units", model, image, start.density, seed=conf.seed, weights=weights)
    elif start.kind == "low_rank":
        low_rank_(model, start.rank, seed=conf.seed, init=start.init)
    return _in_format(conf, model)


def _in_format(conf: Conf, model: nn.Module) -> nn.Module:
    """Return the model with its convolutions in the memory format asked for.

    Raises:
        ValueError: where there is nothing to put in another format.
    """
    if not conf.channels_last:
        return model
    if not any(param.dim() == 4 for param in model.parameters()):
        raise ValueError(
            f"channels_last has no effect on model {conf.model.name!r}, without convolutions: leave it out"
        )
    return model.to(memory_format=torch.channels_last)  # pyright: ignore - torch declares it with other arguments only


@torch.no_grad()
def _check_fit(conf: Conf, model: nn.Module, images: Tensor, data: DataSet) -> None:
    """Raise ValueError where the model does not take these images or returns something else than is asked for."""
    model.eval()
    try:
        shape = tuple(model(images).shape)
    except Exception as error:  # whatever a layer makes of a wrong shape
        reason = " ".join(str(error).split())
        raise ValueError(
            f"model {conf.model.name!r} does not take images of shape {tuple(images.shape[1:])} ({reason}): "
            "choose another model, or change model.options"
        ) from None
    wanted = tuple(images.shape) if conf.data.noise else (len(images), data.num_classes)
    if shape != wanted:
        what = "clean images, as denoiser does" if conf.data.noise else "a number for each class"
        raise ValueError(
            f"model {conf.model.name!r} maps {len(images)} images to {shape}, must be {wanted}, {what}: "
            "change model.options"
        )
    model.train()
