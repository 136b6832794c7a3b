"""Everything a run is made of, checked; from code, YAML or the command line. Does not need torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch_bregman.train.checked import Checked, refuse_idle, within
from torch_bregman.train.optim_conf import DENSE, MultilevelConf, OptimConf
from torch_bregman.train.scale_conf import ScaleConf
from torch_bregman.train.target_conf import TargetConf
from torch_bregman.train.target_recipe import OUTGOING, with_recipe
from torch_bregman.train.yaml_file import read_mapping

_Part = TypeVar("_Part", bound=Checked)
TRACKERS = ("tensorboard", "mlflow", "trackio")


@dataclass
class DataConf(Checked):
    """Which data, and how it is cut into batches.

    Args:
        name: sample (6,000 + 1,000 real MNIST images, embedded), mnist, fashion-mnist or cifar10.
        dir: the only folder to look in; by default the usual places, then a download.
        batch_size: images a step; 0 takes the full set, as pgd needs it.
        validation: share of the training images held out to choose the best checkpoint; 0 holds out none.
        shift: pixels by which training images are shifted at random, at most.
        flip: mirror training images at random.
        noise: standard deviation of noise on pixels in [0, 1]; above 0 the network learns to give back the clean image
            (model denoiser), and PSNR stands in the place of accuracy.
    """

    name: Literal["sample", "mnist", "fashion-mnist", "cifar10"] = "sample"
    dir: str | None = None
    batch_size: int = 32
    validation: float = 0.1
    shift: int = 0
    flip: bool = False
    noise: float = 0.0

    def check(self) -> None:
        """Check ranges."""
        within("data.batch_size", self.batch_size, 0, math.inf, "0 takes the full set")
        within("data.validation", self.validation, 0, 0.9, "a share of the training images, e.g. 0.1")
        within("data.shift", self.shift, 0, 16, "pixels")
        within("data.noise", self.noise, 0, math.inf, "0 classifies images, e.g. 0.2 removes noise from them")
        if self.noise and (self.shift or self.flip):
            raise ValueError(
                f"data.noise {self.noise} and shifted or mirrored images do not go together: leave one out"
            )


@dataclass
class ModelConf(Checked):
    """Which network.

    Args:
        name: mlp, convnet, lenet_300_100, lenet5_caffe, or another name of `torch_bregman.models`.
        hidden: widths of the hidden layers of an mlp; by default 200 and 80, the network of the JMLR paper.
        options: what else the model takes.
    """

    name: str = "mlp"
    hidden: list[int] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Check that `hidden` goes with the model."""
        if self.hidden is not None and self.name != "mlp":
            raise ValueError(f"model.hidden is for mlp only, got {self.hidden!r} with {self.name!r}: leave it out")
        if self.hidden is None and self.name == "mlp":
            self.hidden = [200, 80]


_STARTS_TAKE = {
    "sparse": {"density", "view", "init"},
    "low_rank": {"rank", "init"},
    "units": {"density"},
    "dense": set(),
}


@dataclass
class StartConf(Checked):
    """How the weights start.

    Args:
        kind: sparse (few weights, larger), low_rank, units (what reads most units is 0), or dense (PyTorch's own
            initialisation).
        density: share of the weights, or units, that a start keeps, in (0, 1].
        rank: rank of a low-rank start.
        view: what a sparse start keeps or drops as one: elements, rows, columns, filters, kernels, …
        init: kaiming (for ReLU) or xavier.
    """

    kind: Literal["sparse", "low_rank", "units", "dense"] = "sparse"
    density: float = 0.01
    rank: int = 4
    view: str = "elements"
    init: Literal["kaiming", "xavier"] = "kaiming"

    def check(self) -> None:
        """Check ranges."""
        if not 0 < self.density <= 1:
            raise ValueError(f"start.density must lie in (0, 1], got {self.density!r}: 0.01 keeps 1 % of the weights")
        within("start.rank", self.rank, 1, math.inf, "a number of singular values")
        refuse_idle("start", self, {"kind", *_STARTS_TAKE[self.kind]}, self.kind)


@dataclass
class RegularizerConf(Checked):
    """What is penalised.

    Args:
        name: none, l1, nonnegative_l1 (weights start at their absolute values), elastic_net, group_l2, sparse_group,
            nuclear, dynamic_rank_nuclear, soft_bernoulli, or outgoing: a group norm on all that reads a unit, and none
            on anything else, so that whole units go.
        lam: λ ≥ 0, its strength.
        options: what else it takes: view, weighted, l1_ratio, engine, rank, max_rank, seed.
    """

    name: str = "l1"
    lam: float = 0.1
    options: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Check λ."""
        within("lam", self.lam, 0, math.inf, "0 switches the regulariser off")


@dataclass
class ScheduleConf(Checked):
    """How the learning rate changes.

    Args:
        name: a class of torch.optim.lr_scheduler, e.g. CosineAnnealingLR; by default lr stays.
        options: its arguments; T_max, total_steps and total_iters are filled in where they are missing.
        every: epoch or step.
    """

    name: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    every: Literal["epoch", "step"] = "epoch"

    def check(self) -> None:
        """Check that every field that was set has an effect."""
        if self.name is None:
            refuse_idle("schedule", self, {"name"}, "no schedule.name")
        if self.name == "ReduceLROnPlateau" and self.every == "step":
            raise ValueError(
                "schedule.every must be epoch with ReduceLROnPlateau, got step: it looks at every epoch's loss"
            )


@dataclass
class LamScheduleConf(Checked):
    """How λ changes, once an epoch, without moving a weight.

    Args:
        name: plateau (factor, patience, least, threshold), linear or cosine (start, end, steps: what λ is multiplied
            by), listed (values by epoch); by default λ stays.
        options: its arguments.
    """

    name: Literal["plateau", "linear", "cosine", "listed"] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Check that options have an effect."""
        if self.name is None:
            refuse_idle("lam_schedule", self, {"name"}, "no lam_schedule.name")


@dataclass
class RankScheduleConf(Checked):
    """How the rank cap of dynamic_rank_nuclear changes, once an epoch.

    Args:
        name: plateau (increase, patience, times, threshold), energy (tolerance, increase), linear or cosine (start,
            end, steps), listed (values by epoch); by default the cap stays.
        options: its arguments.
    """

    name: Literal["plateau", "energy", "linear", "cosine", "listed"] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Check that options have an effect."""
        if self.name is None:
            refuse_idle("rank_schedule", self, {"name"}, "no rank_schedule.name")


def _left_out(kind: type[_Part]) -> Callable[[], _Part]:
    """Return what makes a part that nobody has set, and marks it as such."""

    def make() -> _Part:
        part = kind()
        vars(part)["left_out"] = True
        return part

    return make


@dataclass
class Conf(Checked):
    """One run.

    Args:
        name: folder of the run under `out`; a name already taken gets a number.
        seed: of the start, the order of the images, augmentation and dropout.
        epochs: passes over the training images, at least 1.
        out: folder of all runs.
        device: auto, cpu, cuda, cuda:1, …
        dtype: float32, float64, or bfloat16 and float16 for autocast (weights stay float32).
        threads: of the CPU; by default PyTorch's choice.
        channels_last: channels of images beside each other in memory, often faster for convolutions (a third here on
            a CPU); the same function but for last bits, and for which of equal maxima a pooling takes.
        keep_at: sizes at which a checkpoint is kept when the network passes them: densities, or ranks of all weights
            together under a nuclear norm; see bregman path.
        track: also send the log to tensorboard, mlflow or trackio; each needs its package.
        entry_times: steps between two looks at which weights have woken, for bregman report; the log then also counts
            the live rows and columns of each weight. 0 does not look.
        data: which data.
        model: which network.
        start: how the weights start.
        regularizer: J of all weights; biases and normalisation stay free.
        rules: other regularisers by module type (Conv2d) or by a pattern of parameter names (features.*).
        optim: how the weights move.
        schedule: how the learning rate changes.
        lam_schedule: how λ changes.
        rank_schedule: how the rank cap changes.
        scale: how the work is laid out over processes and memory.
        target: how large the network may be; it also chooses what is not set: from `from_dict`, YAML and flags field by
            field, in code those of `start`, `regularizer` and `optim` that are left out.

    Example:
        >>> conf = Conf(name="tiny", epochs=2, optim=OptimConf(name="adabreg"))
        >>> conf.optim.lr
        0.001
        >>> Conf(target=TargetConf(density=0.02)).optim.lr
        0.01
    """

    name: str = "run"
    seed: int = 0
    epochs: int = 30
    out: str = "runs"
    device: str = "auto"
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    threads: int | None = None
    channels_last: bool = False
    keep_at: list[float] = field(default_factory=list)
    track: list[str] = field(default_factory=list)
    entry_times: int = 0
    data: DataConf = field(default_factory=DataConf)
    model: ModelConf = field(default_factory=ModelConf)
    start: StartConf = field(default_factory=_left_out(StartConf))
    regularizer: RegularizerConf = field(default_factory=_left_out(RegularizerConf))
    rules: dict[str, RegularizerConf] = field(default_factory=dict)
    optim: OptimConf = field(default_factory=_left_out(OptimConf))
    schedule: ScheduleConf = field(default_factory=ScheduleConf)
    lam_schedule: LamScheduleConf = field(default_factory=LamScheduleConf)
    rank_schedule: RankScheduleConf = field(default_factory=RankScheduleConf)
    scale: ScaleConf = field(default_factory=ScaleConf)
    target: TargetConf = field(default_factory=TargetConf)

    def check(self) -> None:
        """Check ranges, and what does not go together."""
        self._choose()
        self.target.settle()
        within("epochs", self.epochs, 1, math.inf, "at least one pass")
        within("seed", self.seed, 0, 2**63 - 1, "a whole number")
        if wrong := [size for size in self.keep_at if not size > 0]:
            raise ValueError(f"keep_at must be sizes > 0, got {wrong[0]!r}: densities such as 0.05, or ranks")
        if self.threads is not None:
            within("threads", self.threads, 1, 1024, "leave it out for PyTorch's choice")
        if not self.name.strip() or any(sign in self.name for sign in "/\\") or self.name in (".", ".."):
            raise ValueError(f"name must be a plain folder name, got {self.name!r}")
        if self.optim.name == "pgd" and self.data.batch_size != 0:
            raise ValueError(f"pgd needs the full batch, got data.batch_size {self.data.batch_size}: set it to 0")
        if self.optim.name == "pgd" and self.dtype == "float16":
            raise ValueError("pgd needs gradients as they are, got dtype float16, which scales them: use bfloat16")
        if wrong := [name for name in self.track if name not in TRACKERS]:
            raise ValueError(f"track must name some of {', '.join(TRACKERS)}, got {wrong[0]!r}")
        self._check_scale()
        within("entry_times", self.entry_times, 0, math.inf, "steps between two looks, e.g. 10")
        if self.entry_times and self.optim.name in DENSE:
            raise ValueError(
                f"entry_times needs a Bregman or proximal optimizer, got {self.optim.name}, where nothing sleeps: "
                "leave it out"
            )
        self._check_target()

    def _choose(self) -> None:
        """Let the recipe choose the parts that were left out, where a size is asked for."""
        kinds: dict[str, type[Any]] = {"start": StartConf, "regularizer": RegularizerConf, "optim": OptimConf}
        open_ = {name: kind for name, kind in kinds.items() if "left_out" in vars(getattr(self, name))}
        if not (open_ and self.target.asked):
            return
        given = {name: value for name, value in self.to_dict().items() if name not in open_}
        goals = {name: value for name, value in given["target"].items() if value is not None}
        chosen = with_recipe({**given, "target": goals})
        for name, kind in {**open_, "target": TargetConf}.items():
            setattr(self, name, _build(kind, chosen[name], f"{name}."))

    def _check_scale(self) -> None:
        if self.optim.name == "pgd" and self.scale.accumulate > 1:
            raise ValueError(f"scale.accumulate has no effect with pgd, got {self.scale.accumulate}: leave it out")
        if not self.scale.sharded:
            return
        if self.optim.name == "pgd" or self.dtype == "float16":
            what = "optim.name pgd" if self.optim.name == "pgd" else "dtype float16"
            raise ValueError(f"scale.sharded does not go with {what}: leave it out, or use linbreg and bfloat16")
        if self.entry_times:
            raise ValueError(f"scale.sharded does not go with entry_times {self.entry_times}: leave it out")
        if self.optim.name == "linbreg" and self.optim.multilevel.m:
            raise ValueError("scale.sharded does not go with optim.multilevel, whose supports are of whole weights")
        if self.target.asked or self.regularizer.name == OUTGOING:
            what = "a target" if self.target.asked else f"regularizer {OUTGOING}"
            raise ValueError(f"scale.sharded does not go with {what}, which looks at whole weights: leave it out")

    def _check_target(self) -> None:
        if not self.target.asked:
            return
        if self.lam_schedule.name is not None and self.target.controller != "none":
            raise ValueError("lam_schedule does not go with a target, whose controller moves λ: leave one of them out")
        if self.optim.name in ("proxsgd", "pgd") and self.target.controller != "none":
            raise ValueError(
                f"target.controller must be none for {self.optim.name}, got {self.target.controller}: its density lags "
                "behind λ, so λ stays at regularizer.lam and the freeze alone meets the target"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
        plain = dataclasses.asdict(self)
        plain["optim"]["betas"] = list(self.optim.betas)
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Conf:
        """Return the configuration of what `to_dict` returned.

        Raises:
            ValueError: for an unknown field or a wrong value.
        """
        nested = {
            "data": DataConf,
            "model": ModelConf,
            "start": StartConf,
            "regularizer": RegularizerConf,
            "optim": OptimConf,
            "schedule": ScheduleConf,
            "lam_schedule": LamScheduleConf,
            "rank_schedule": RankScheduleConf,
            "scale": ScaleConf,
            "target": TargetConf,
        }
        values = dict(with_recipe(plain))
        if values.pop("tensorboard", False):  # as configurations of runs made before 0.1 have it
            values["track"] = [*values.get("track", []), "tensorboard"]
        if isinstance(values.get("optim"), dict) and isinstance(values["optim"].get("multilevel"), dict):
            cycles = _build(MultilevelConf, values["optim"]["multilevel"], "optim.multilevel.")
            values["optim"] = {**values["optim"], "multilevel": cycles}
        for key, kind in nested.items():
            if isinstance(values.get(key), dict):
                values[key] = _build(kind, values[key], f"{key}.")
        if isinstance(values.get("rules"), dict):
            values["rules"] = {
                key: _build(RegularizerConf, rule, f"rules.{key}.") if isinstance(rule, dict) else rule
                for key, rule in values["rules"].items()
            }
        return _build(cls, values, "")

    @classmethod
    def from_yaml(cls, path: str | Path) -> Conf:
        """Read a configuration file.

        Raises:
            ValueError: for a file that is no YAML mapping, an unknown field or a wrong value.
        """
        content = read_mapping(path)
        try:
            return cls.from_dict(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _build(kind: type[Any], values: dict[str, Any], prefix: str) -> Any:
    known = {each.name for each in dataclasses.fields(kind)}
    for key in values:
        if key not in known:
            raise ValueError(f"unknown field {prefix}{key}: use one of {', '.join(sorted(known))}")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(prefix) else f"{prefix}{error}") from None
