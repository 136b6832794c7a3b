"""From a finished run to its compact model, and how fast that is beside the dense original."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from torch_bregman.compaction import (
    CompactReport,
    compact,
    export_onnx,
    export_program,
    load_compact,
    measure_latency,
    save_compact,
)
from torch_bregman.metrics import text_table
from torch_bregman.optim import RegularizedOptimizer
from torch_bregman.train.atomic import replace_file
from torch_bregman.train.conf import Conf
from torch_bregman.train.evaluation import judge
from torch_bregman.train.loop import reopen
from torch_bregman.train.reproducible import reproducible
from torch_bregman.train.run_folder import RunFolder
from torch_bregman.train.setup import Parts, set_up

ORIGIN = "run.json"
"""In the folder of a compact model: where the run is that it came from, seen from the folder."""

REPORT = "report.json"
"""In the same folder: what the compaction did, for `bregman report`."""


@dataclass(frozen=True)
class CompactRequest:
    """What `bregman compact` was asked for.

    Args:
        run: folder of the run, or its name in `out`.
        out: folder of all runs.
        to: folder of the compact model, by default `compact` in that of the run.
        export: formats to write beside it, onnx or pt2.
        batch_sizes: at which latency is measured.
        round_to: widths are multiples of this.
        fold_norms: whether batch normalisation is multiplied into the layers before it.
    """

    run: str
    out: str = "runs"
    to: str | None = None
    export: Sequence[str] = ()
    batch_sizes: Sequence[int] = (1, 128)
    round_to: int = 1
    fold_norms: bool = False


def compact_run(request: CompactRequest) -> Path:
    """Compact the model of a finished run, print the report, write the folder and the exports.

    Raises:
        ValueError: for a run that is not there or not finished, and for what `compact` and the exports refuse.
    """
    folder, conf = _finished(request.run, request.out)
    parts = reopen(folder)
    with reproducible(conf.threads):
        example = parts.test.images[:8]
        optimizer = parts.optimizer if isinstance(parts.optimizer, RegularizedOptimizer) else None
        small, report = compact(
            parts.model,
            example,
            optimizer=optimizer,
            round_to=request.round_to,
            fold_norms=request.fold_norms,
            batch_sizes=tuple(request.batch_sizes),
        )
        print(report)
        print(_on_the_test_set(parts, small))
        to = save_compact(Path(request.to) if request.to else folder.path / "compact", small, report)
        origin = json.dumps({"run": os.path.relpath(folder.path, to)}) + "\n"
        replace_file(to / ORIGIN, lambda file: file.write(origin.encode()))
        replace_file(to / REPORT, lambda file: file.write(_plain(report).encode()))
        print(f"compact model in {to}")
        for kind in request.export:
            print(f"{kind} in {_EXPORTS[kind](to / f'model.{kind}', small, example)}")
    return to


def bench_run(place: str, out: str = "runs", batch_sizes: Sequence[int] = (1, 128)) -> str:
    """Return a table of the latencies of a compact model beside its dense original.

    Args:
        place: folder of the compact model, or of the run or its name in `out`.
        out: folder of all runs.
        batch_sizes: samples a pass.

    Raises:
        ValueError: where there is no compact model, or the run that it came from is gone.
    """
    if any(n < 1 for n in batch_sizes):
        raise ValueError(f"batch sizes must be >= 1, got {list(batch_sizes)}")
    compacted, folder, conf = _origin(place, out)
    parts = reopen(folder)
    with reproducible(conf.threads):
        small = load_compact(compacted, set_up(conf).model)
        rows = []
        for n in batch_sizes:
            dense, now = measure_latency([parts.model, small], parts.test.images[:1], n, seconds=1.0)
            rows.append([str(n), f"{dense:.3f}", f"{now:.3f}", f"{dense / now:.2f}"])
    header = ["batch", "dense, ms", "compact, ms", "times as fast"]
    return "\n".join([*text_table(header, rows, ">>>>"), f"median, {torch.get_num_threads()} threads"])


def _plain(report: CompactReport) -> str:
    """Return sizes before and after, and latencies in milliseconds on so many threads, as JSON."""
    sizes = {"parameters": report.parameters, "bytes": report.bytes, "macs": report.macs}
    latencies = [asdict(each) for each in report.latencies]
    return json.dumps({**sizes, "latencies": latencies, "threads": torch.get_num_threads()}, indent=1) + "\n"


_EXPORTS = {"onnx": export_onnx, "pt2": export_program}


def _finished(run: str, out: str) -> tuple[RunFolder, Conf]:
    folder, conf = RunFolder.open(run, out)
    if folder.read_summary() is None:
        raise ValueError(f"run {folder.path} is not finished: go on with bregman resume {folder.path}")
    return folder, conf


def _origin(place: str, out: str) -> tuple[Path, RunFolder, Conf]:
    """Return the folder of a compact model, and the run that it came from."""
    for path in (Path(place), Path(place) / "compact", Path(out) / place / "compact"):
        if (path / ORIGIN).is_file():
            try:
                run = json.loads((path / ORIGIN).read_text(encoding="utf-8"))["run"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{path / ORIGIN} is damaged: make the folder anew with bregman compact") from None
            return path, *_finished(str(path / run), out)
    raise ValueError(f"there is no compact model in {place} or {Path(out) / place}: bregman compact {place} makes one")


def _on_the_test_set(parts: Parts, small: nn.Module) -> str:
    """Return what both models score on the whole test set, in one line."""
    before, after = (judge(model, parts.test, parts.task, parts.autocast)[1] for model in (parts.model, small))
    return f"test {parts.task.metric} {before:.4f} before, {after:.4f} after"
