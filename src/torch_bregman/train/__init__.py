"""Training from one configuration: the loop, evaluation, checkpoints, the log.

What stands here is imported on first use, so that configurations can be checked without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch_bregman.train.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
    from torch_bregman.train.conf import Conf, DataConf, ModelConf, RegularizerConf, ScheduleConf, StartConf
    from torch_bregman.train.evaluation import Score, evaluate
    from torch_bregman.train.loop import fit, reopen, resume
    from torch_bregman.train.observer import Observer, Result
    from torch_bregman.train.optim_conf import OptimConf
    from torch_bregman.train.run_folder import RunFolder
    from torch_bregman.train.steps import TrainingDivergedError
    from torch_bregman.train.target_conf import TargetConf
    from torch_bregman.train.terminal import Terminal

__all__ = [
    "CheckpointError",
    "Conf",
    "DataConf",
    "ModelConf",
    "Observer",
    "OptimConf",
    "RegularizerConf",
    "Result",
    "RunFolder",
    "ScheduleConf",
    "Score",
    "StartConf",
    "TargetConf",
    "Terminal",
    "TrainingDivergedError",
    "evaluate",
    "fit",
    "load_checkpoint",
    "reopen",
    "resume",
    "save_checkpoint",
]

_MODULES = {
    "checkpoint": ("CheckpointError", "load_checkpoint", "save_checkpoint"),
    "conf": ("Conf", "DataConf", "ModelConf", "RegularizerConf", "ScheduleConf", "StartConf"),
    "evaluation": ("Score", "evaluate"),
    "loop": ("fit", "reopen", "resume"),
    "observer": ("Observer", "Result"),
    "optim_conf": ("OptimConf",),
    "run_folder": ("RunFolder",),
    "steps": ("TrainingDivergedError",),
    "target_conf": ("TargetConf",),
    "terminal": ("Terminal",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
