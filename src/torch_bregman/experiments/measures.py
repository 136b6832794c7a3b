"""What is measured of a finished run beyond its summary."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from torch_bregman.compaction import compact
from torch_bregman.linalg import svt_gram
from torch_bregman.metrics import cost_report, density_report, named_weights
from torch_bregman.optim import RegularizedOptimizer
from torch_bregman.regularizers import Nuclear
from torch_bregman.train import RunFolder, reopen
from torch_bregman.train.setup import Parts


def size(folder: RunFolder) -> dict[str, float]:
    """Return numbers stored and multiply-adds an image, each weight as it is cheaper: non-zeros, or two thin factors.

    Values are counted, not the indices that unstructured zeros need.
    """
    parts = reopen(folder)
    costs = cost_report(parts.model, parts.test.images[:1], ranks=True).weights
    shapes = {name: weight.numel() for name, weight in named_weights(parts.model).items()}
    macs = {each.name: min(each.nonzero_macs, each.rank_macs or each.macs) for each in costs}
    # every weight is used alike by all of its entries, so that numbers stored are to all entries what MACs are to MACs
    stored = sum(macs[each.name] * shapes[each.name] // each.macs for each in costs)
    return {"numbers_stored": stored, "macs_left": sum(macs.values())}


def training_cost(folder: RunFolder, gradients: float) -> dict[str, float]:
    """Return the multiply-adds of the whole training, and what share they are of those of dense training.

    An image costs 2·f + f_D while the gradient of every weight is needed and 3·f from then on, f_D the multiply-adds of
    all weights and f those of the weights that are not zero, at that end of the epoch where they are more (in the first
    one, its last): what could be saved by sparse arithmetic, not what is.

    Args:
        folder: of a finished run.
        gradients: share of the steps that need the gradient of all weights.
    """
    parts, rows = reopen(folder), folder.read_log()
    dense = {each.name: each.macs for each in cost_report(parts.model, parts.test.images[:1]).weights}
    full, images, total = sum(dense.values()), len(parts.train.labels), 0.0
    ends = [sum(macs * row["layer_density"][name] for name, macs in dense.items()) for row in rows]
    for number, left in enumerate(map(max, ends, [0.0, *ends])):
        needs = min(max(gradients * len(rows) - number, 0.0), 1.0)
        total += images * (2 * left + needs * full + (1 - needs) * left)
    return {"train_macs": total, "train_macs_share": total / (3 * full * images * len(rows))}


def after_compaction(folder: RunFolder) -> dict[str, float]:
    """Return multiply-adds, parameters and milliseconds of the compact model, and how many times as fast it is.

    Both models take turns on one thread, with batches of 1 and of 128 images.
    """
    parts = reopen(folder)
    optimizer = parts.optimizer if isinstance(parts.optimizer, RegularizedOptimizer) else None
    torch.set_num_threads(1)
    example = parts.test.images[:8]
    _, report = compact(parts.model, example, optimizer=optimizer, batch_sizes=(1, 128))
    times = {f"ms_at_{each.batch}": each.compact for each in report.latencies}
    faster = {f"faster_at_{each.batch}": each.speedup for each in report.latencies}
    return {
        "compact_macs": report.macs[1] // len(example),
        "compact_parameters": report.parameters[1],
        **times,
        **faster,
    }


def kernels_left(folder: RunFolder) -> dict[str, float]:
    """Return the share of the convolutions' kernels that are not zero, over all of them."""
    layers = [layer for layer in density_report(reopen(folder).model).layers if layer.kernel_density is not None]
    kernels = [layer.shape[0] * layer.shape[1] for layer in layers]
    left = sum(count * (layer.kernel_density or 0) for count, layer in zip(kernels, layers, strict=True))
    return {"kernel_density": left / sum(kernels)}


def thresholding(folder: RunFolder) -> dict[str, float]:
    """Return milliseconds a step and the worst error of thresholding singular values, in 30 steps after the last epoch.

    The error is ‖θ − SVT_λ(v)‖ / ‖SVT_λ(v)‖, with SVT in float64, after every step and over all low-rank weights.
    """
    parts = reopen(folder)
    times, errors = [], []
    pairs = parts.train.epoch(torch.Generator().manual_seed(0))
    torch.set_num_threads(1)
    for (x, y), _ in zip(pairs, range(30), strict=False):
        times.append(_step(parts, x, y))
        errors.append(_error(parts))
    return {"step_ms": 1000 * float(torch.tensor(times).median()), "svt_error": max(errors)}


def _step(parts: Parts, x: Tensor, y: Tensor) -> float:
    """Take one step; return the seconds of this thread that it took."""
    start = time.thread_time()
    parts.optimizer.zero_grad()
    cross_entropy(parts.model(x), y).backward()
    parts.optimizer.step()
    return time.thread_time() - start


@torch.no_grad()
def _error(parts: Parts) -> float:
    optimizer = parts.optimizer
    assert isinstance(optimizer, RegularizedOptimizer)
    groups = [group for group in optimizer.param_groups if isinstance(group["regularizer"], Nuclear)]
    errors = []
    for group in groups:
        for weight in group["params"]:
            exact = svt_gram(optimizer.state[weight]["subgrad"].double(), group["lam"])
            errors.append(float((weight - exact).norm() / exact.norm()))
    return max(errors)


def rows_left(folder: RunFolder) -> dict[str, float]:
    """Return the share of rows (units) that are not zero, over all weights, and how many the narrowest layer has."""
    layers = density_report(reopen(folder).model).layers
    alive = [round(layer.shape[0] * layer.row_density) for layer in layers]
    return {"row_density": sum(alive) / sum(layer.shape[0] for layer in layers), "narrowest": min(alive)}


@torch.no_grad()
def similarity(folder: RunFolder) -> dict[str, float]:
    """Return the mean structural similarity (SSIM) of what a denoising network makes of the test images to clean ones.

    Raises:
        ValueError: where torchmetrics is missing.
    """
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError:
        raise ValueError("torchmetrics is not installed: pip install 'torch-bregman[images]'") from None
    parts = reopen(folder)
    parts.model.eval()
    total = 0.0
    for x, clean in parts.test.epoch():
        found = structural_similarity_index_measure(parts.model(x), clean, data_range=1.0)
        assert isinstance(found, Tensor)
        total += float(found) * len(x)
    return {"test_ssim": total / len(parts.test.labels)}
