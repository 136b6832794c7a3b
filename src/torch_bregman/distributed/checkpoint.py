"""Sharded checkpoints: every process writes its parts, and any number of processes can read them."""

from __future__ import annotations

import io
import pickle
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from torch_bregman.distributed.processes import from_first, is_joined


def save_parts(folder: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Write model and optimizer into a folder, each process what it holds; what was there before is replaced.

    All processes call it. A Bregman optimizer whose processes share thresholds is asked to `collect_engines` first.

    Args:
        folder: seen by all processes.
        model: whole, copied or cut into DTensors.
        optimizer: of its parameters.
    """
    from_first(lambda: shutil.rmtree(folder, ignore_errors=True))
    with _quiet():
        save(_state(model, optimizer), checkpoint_id=str(folder), no_dist=not is_joined())


def load_parts(folder: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Read what `save_parts` wrote, into a model laid out over any number of processes; nothing of it is run as code.

    Raises:
        ValueError: for a folder that is missing or damaged, or belongs to another model or optimizer.
    """
    state = _state(model, optimizer)
    try:
        reader, planner = _Reader(str(folder)), ShapeLoadPlanner()
        reader.read_metadata()  # dcp would log a traceback of its own
        with _quiet():
            load(state, storage_reader=reader, planner=planner, no_dist=not is_joined())
    except (Exception, CheckpointException) as error:  # damaged files raise a dozen kinds
        raise ValueError(f"sharded checkpoint {folder} cannot be read: {_reason(error)}") from None
    set_model_state_dict(model, state["model"])
    set_optimizer_state_dict(model, optimizer, state["optimizer"], options=_OPTIONS)


@contextmanager
def _quiet() -> Iterator[None]:
    """Return a context without the warning that a single process is one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
        yield


_OPTIONS = StateDictOptions(flatten_optimizer_state_dict=False)


def _state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    grads = [param.grad for param in model.parameters()]
    optimizer.zero_grad()  # the helper takes a step with lr = 0 to make state, and refuses to with gradients
    state = {
        "model": get_model_state_dict(model),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=_OPTIONS),
    }
    for param, grad in zip(model.parameters(), grads, strict=True):
        param.grad = grad
    return state


class ShapeLoadPlanner(DefaultLoadPlanner):
    """Loads tensors whose shape has changed since, such as low-rank factors of another rank.

    To be passed as `planner` to `torch.distributed.checkpoint.load` where a Bregman optimizer under a nuclear norm is
    among what is loaded: its factors and engines have the shapes, and are there or not, as the checkpoint has them.
    Values are read with `weights_only=True`.
    """

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """Give `state_dict` the keys and shapes of the checkpoint's low-rank factors and engines."""
        if metadata is not None:
            _match_factors(state_dict, metadata)
        super().set_up_planner(state_dict, metadata, is_coordinator)

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Take up a plain value."""
        safe = io.BytesIO()
        torch.save(torch.load(value, weights_only=True), safe)
        safe.seek(0)
        super().load_bytes(read_item, safe)


_FACTORS = frozenset({"left", "right", "engine"})


def _match_factors(state_dict: dict[str, Any], metadata: Metadata) -> None:
    paths = flatten_state_dict(state_dict)[1]
    for path in paths.values():
        if _place(path) is not None:
            _remove(state_dict, path)
    for name, path in (metadata.planner_data or {}).items():
        stored = metadata.state_dict_metadata[name]
        if _place(path) is None:
            continue
        is_tensor = isinstance(stored, TensorStorageMetadata)
        value = torch.empty(stored.size, dtype=stored.properties.dtype) if is_tensor else 0
        _put(state_dict, path, value)


def _place(path: tuple[Any, ...]) -> int | None:
    """Return where in a path the name of a low-rank factor stands: after `state` and a parameter's name."""
    if "state" not in path:
        return None
    place = path.index("state") + 2
    return place if place < len(path) and path[place] in _FACTORS else None


def _remove(state_dict: Any, path: tuple[Any, ...]) -> None:
    place = _place(path)
    *above, name = path[: place + 1] if place is not None else path
    for key in above:
        state_dict = state_dict[key]
    state_dict.pop(name, None)


def _put(state_dict: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        state_dict = state_dict.setdefault(key, {})
    state_dict[path[-1]] = value


class _Reader(FileSystemReader):
    """Reads the list of parts, which PyTorch keeps as a pickle, without running any code of it."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with (Path(self.path) / ".metadata").open("rb") as file:
            metadata = _Unpickler(file).load()
        if metadata.storage_meta is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Unpickler(pickle.Unpickler):
    _MODULES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
    _NAMES = frozenset({"torch Size", "torch.serialization _get_layout", "collections OrderedDict"})

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name) if "." not in name else None
        own = module in self._MODULES and isinstance(found, type) and found.__module__ == module
        own = own or (module.split(".")[0] == "pathlib" and isinstance(found, type) and issubclass(found, Path))
        if own or isinstance(found, torch.dtype) or f"{module} {name}" in self._NAMES:
            return found
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")


def _reason(error: BaseException) -> str:
    failures = getattr(error, "failures", None)
    if failures:
        error = next(iter(failures.values()))[0]
    return " ".join(str(error).split())[:300] or type(error).__name__
