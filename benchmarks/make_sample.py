"""Make the sample of MNIST that the package carries: python benchmarks/make_sample.py FOLDER_OF_THE_FULL_SET.

600 training and 100 test images of each digit. Every image of the full set draws one number, in order, from
`random.Random(SEED).random()` (the one stream that Python guarantees never to change); of each digit those
with the smallest numbers are taken, and kept in their original order. The same images come out anywhere;
the compressed bytes also where zlib is the same.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np

from torch_bregman.data.content import read_content, sha256
from torch_bregman.data.idx import read_idx, write_idx

SEED = 2022
PER_CLASS = {"train": 600, "t10k": 100}
SAMPLE = Path(__file__).parents[1] / "src/torch_bregman/data/sample"


def pick(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Indices of `per_class` items of each class, ascending."""
    rng = random.Random(SEED)
    draws = np.array([rng.random() for _ in labels])
    by_class = (np.flatnonzero(labels == label) for label in np.unique(labels))
    return np.sort(np.concatenate([of[np.argsort(draws[of])][:per_class] for of in by_class]))


def make(full: Path, out: Path) -> None:
    """Write the four files of the sample and print what the catalog must say of them."""
    for part, per_class in PER_CLASS.items():
        images = read_idx(full / f"{part}-images-idx3-ubyte.gz", ndim=3)
        labels = read_idx(full / f"{part}-labels-idx1-ubyte.gz", ndim=1)
        chosen = pick(labels, per_class)
        for array, kind in ((images[chosen], "images-idx3"), (labels[chosen], "labels-idx1")):
            path = write_idx(out / f"{part}-{kind}-ubyte.gz", array)
            content = read_content(path)
            print(path.name, f"{path.stat().st_size:,} compressed", len(content), sha256(content))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("full", type=Path, help="folder with the four .gz files of MNIST")
    parser.add_argument("--out", type=Path, default=SAMPLE, help="where to (default: the package's own)")
    arguments = parser.parse_args()
    make(arguments.full, arguments.out)
