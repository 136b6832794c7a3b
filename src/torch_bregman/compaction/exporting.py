"""A model as a file that runs without its Python code: torch.export and ONNX, both checked against the model."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from torch_bregman.compaction.latency import of_batch
from torch_bregman.compaction.recipe import replace_module
from torch_bregman.layers import CSRLinear
from torch_bregman.metrics.uses import run_once

_TOLERANCE = 1e-4


def densified(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode, in which sparse layers are dense: the formats know no sparse products.

    Example:
        >>> layer = CSRLinear.from_linear(nn.Linear(3, 2))
        >>> densified(nn.Sequential(layer))[0]
        Linear(in_features=3, out_features=2, bias=True)
    """
    model = copy.deepcopy(model)
    if isinstance(model, CSRLinear):
        return model.to_linear().eval()
    for name, module in dict(model.named_modules()).items():
        if isinstance(module, CSRLinear):
            replace_module(model, name, module.to_linear())
    return model.eval()


def export_program(path: str | Path, model: nn.Module, example: Any) -> Path:
    """Write a `.pt2` file by `torch.export`, for any number of samples; CSR layers become dense.

    Args:
        path: the file.
        model: any module.
        example: what it is called with, a tensor or a tuple of arguments, the batch first.

    Returns:
        The file.

    Raises:
        ValueError: where torch cannot export the model, or the file says something else.
    """
    path, model, arguments = Path(path), densified(model), of_batch(example, 2)
    program = _exported(model, arguments)
    _write(path, lambda: torch.export.save(program, path))
    loaded = torch.export.load(path).module()
    _compare(path, model, example, lambda inputs: tree_leaves(loaded(*inputs)), 1e-5)
    return path


def export_onnx(path: str | Path, model: nn.Module, example: Any) -> Path:
    """Write an ONNX file for any number of samples, checked in onnxruntime; CSR layers become dense.

    Needs the extra `deploy`.

    Args:
        path: the file.
        model: any module.
        example: what it is called with, a tensor or a tuple of arguments, the batch first.

    Returns:
        The file.

    Raises:
        ValueError: without the extra, where torch cannot export the model, or where outputs differ by more than 1e-4 of
            the largest, for one, two or five samples.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise ValueError(f"ONNX needs {error.name}: pip install 'torch-bregman[deploy]'") from None
    path, model = Path(path), densified(model)
    program = _exported(model, of_batch(example, 2))
    with _quiet():
        onnx = torch.onnx.export(program, dynamo=True, verbose=False)
    assert onnx is not None
    _write(path, lambda: onnx.save(str(path), include_initializers=True))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(inputs: tuple[Any, ...]) -> list[Any]:
        arrays = [x.numpy() for x in tree_leaves(inputs) if isinstance(x, Tensor)]
        return list(map(torch.as_tensor, session.run(None, dict(zip(names, arrays, strict=True)))))

    _compare(path, model, example, run, _TOLERANCE)
    return path


def _exported(model: nn.Module, arguments: tuple[Any, ...]) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple({0: batch} if isinstance(x, Tensor) and x.ndim else None for x in arguments)
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(model, arguments, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch raises a dozen kinds for what it cannot export
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"torch.export cannot export {type(model).__name__}: {reason}") from None


def _compare(path: Path, model: nn.Module, example: Any, run: Any, tolerance: float) -> None:
    for batch in (1, 2, 5):
        inputs = tuple(_varied(x) for x in of_batch(example, batch))
        expected = [leaf for leaf in tree_leaves(run_once(model, inputs)) if isinstance(leaf, Tensor)]
        for a, b in zip(expected, [y.detach() for y in run(inputs)], strict=True):
            scale = max(float(a.abs().amax()), torch.finfo(torch.float32).tiny)
            if a.shape != b.shape or not float((a - b).abs().amax()) <= tolerance * scale:
                raise ValueError(f"{path} does not say what the model says, for {batch} samples: do not use it")


def _varied(x: Any) -> Any:
    """Return samples that differ, so that mixing them up would show."""
    if not isinstance(x, Tensor) or not x.ndim or not x.is_floating_point():
        return x
    return x * torch.linspace(0.5, 1.5, len(x), dtype=x.dtype).view(-1, *[1] * (x.ndim - 1))


def _write(path: Path, save: Any) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save()
    except OSError as error:
        raise ValueError(f"cannot write {path} ({error.strerror}): choose another place") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's remarks on its own exporter to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
