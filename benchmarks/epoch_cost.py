"""What an epoch of `fit` costs beside a bare training loop: python benchmarks/epoch_cost.py [--data.dir FOLDER].

Both train the network 784-200-80-10 by SGD on the same tensors, MNIST's training images less a tenth held out, in
batches of 128, on one thread. Ours is all that `fit` does in an epoch: batches, step, metrics, evaluation of the images
held out, densities, log and checkpoints. The bare loop draws a permutation, selects, and calls forward, backward and
`torch.optim.SGD`; it looks at nothing. The epochs of both alternate in one process, and the median of the paired ratios
is the result. Without --data.dir the embedded sample is repeated ten times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from torch_bregman import models
from torch_bregman.data import load
from torch_bregman.data.idx import write_idx
from torch_bregman.train import Conf, DataConf, OptimConf, RegularizerConf, Result, RunFolder, StartConf, fit
from torch_bregman.train.history import Row
from torch_bregman.train.setup import Parts

BATCH, RATE = 128, 0.01
TARGET = 1.15
RESULTS = Path(__file__).parent / "results"


class Alternate:
    """Lets a bare epoch follow each epoch of `fit`, and times both by the wall and by the processor."""

    def __init__(self) -> None:
        self.ours: list[np.ndarray] = []
        self.bare: list[np.ndarray] = []
        self.rows: list[Row] = []

    def started(self, folder: RunFolder, conf: Conf, parts: Parts, epochs_done: int) -> None:
        """Make the bare loop's own network."""
        self.x, self.y = parts.train.images, parts.train.labels
        self.model = models.mlp([784, 200, 80, 10])
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE)
        bare_epoch(self)  # warms up
        self.since = now()

    def epoch(self, row: Row) -> None:
        """Take the time of the epoch that is over, then of a bare one."""
        start = now()
        self.ours.append(start - self.since)
        self.rows.append(row)
        bare_epoch(self)
        self.since = now()
        self.bare.append(self.since - start)

    def finished(self, result: Result) -> None:
        """What comes after the last epoch is no part of it."""

    def close(self) -> None:
        """Nothing is open."""


def now() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def bare_epoch(loop: Alternate) -> None:
    for chosen in torch.randperm(len(loop.x)).split(BATCH):
        loop.optimizer.zero_grad()
        logits = loop.model(loop.x.index_select(0, chosen))
        cross_entropy(logits, loop.y.index_select(0, chosen)).backward()
        loop.optimizer.step()


def full_sized(folder: Path) -> Path:
    """Write the sample ten times over, as a data set in idx files."""
    data = load("sample")
    for part, split in (("train", data.train), ("t10k", data.test)):
        images, labels = split.images[:, 0].numpy(), split.labels.numpy().astype(np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte", np.tile(images, (10, 1, 1)))
        write_idx(folder / f"{part}-labels-idx1-ubyte", np.tile(labels, 10))
    return folder


def measure(data: str | None, epochs: int) -> Alternate:
    """Dense SGD without a penalty, for then the bare loop does the same arithmetic."""
    pair = Alternate()
    with tempfile.TemporaryDirectory() as scratch:
        conf = Conf(
            name="epoch-cost",
            epochs=epochs + 1,
            out=scratch,
            threads=1,
            data=DataConf("mnist", data or str(full_sized(Path(scratch))), batch_size=BATCH),
            start=StartConf("dense"),
            regularizer=RegularizerConf("none", 0.0),
            optim=OptimConf("sgd", lr=RATE),
        )
        fit(conf, observers=[pair])
    del pair.ours[0], pair.bare[0], pair.rows[0]  # the first is warming up
    return pair


def report(pair: Alternate, data: str | None) -> dict[str, Any]:
    ours, bare = np.stack(pair.ours), np.stack(pair.bare)
    ratios = ours / bare
    saving = ours[:, 0] - [row["seconds"] for row in pair.rows]
    return {
        "ratio": round(float(np.median(ratios[:, 0])), 3),
        "ratio_quartiles": np.quantile(ratios[:, 0], [0.25, 0.75]).round(3).tolist(),
        "ratio_of_processor_time": round(float(np.median(ratios[:, 1])), 3),
        "target": TARGET,
        "seconds_ours": round(float(np.median(ours[:, 0])), 4),
        "seconds_of_it_saving": round(float(np.median(saving)), 4),
        "seconds_bare": round(float(np.median(bare[:, 0])), 4),
        "pairs": len(ratios),
        "images": len(pair.x),
        "data": "MNIST" if data else "the embedded sample, ten times over",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": 1,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def write(result: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "epoch_cost.json").write_text(json.dumps(result, indent=2) + "\n")
    rows = "\n".join(f"| {key.replace('_', ' ')} | {value} |" for key, value in result.items())
    about = str(__doc__).partition("\n\n")[2]
    text = f"# An epoch of `fit` beside a bare loop\n\n{about}\n| | |\n|---|---|\n{rows}\n"
    (RESULTS / "epoch_cost.md").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data.dir", dest="data", help="folder with the four files of MNIST")
    parser.add_argument("--epochs", type=int, default=20, help="pairs of epochs (default 20)")
    parser.add_argument("--dry", action="store_true", help="print only, leave the results as they are")
    arguments = parser.parse_args()
    result = report(measure(arguments.data, arguments.epochs), arguments.data)
    print(json.dumps(result, indent=2))
    if not arguments.dry:
        write(result)


if __name__ == "__main__":
    main()
