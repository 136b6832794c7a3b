"""Which data sets there are: plain facts, importable without torch.

For CIFAR-10 no SHA-256 is given for the single files: only the MD5 of the archive is published, so the
archive is checked against that, and the files in it by their size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch_bregman.data.content import sha256
from torch_bregman.data.errors import DataError


@dataclass(frozen=True)
class DataFile:
    """One file of a data set.

    Args:
        name: its standard name, without ``.gz``.
        size: bytes, decompressed.
        digest: SHA-256 of the decompressed content, in hexadecimal; None where it is not published.

    Example:
        >>> DataFile("abc", 3, sha256(b"abc")).fault(b"abc") is None
        True
    """

    name: str
    size: int
    digest: str | None = None

    def fault(self, content: bytes) -> str | None:
        """What tells some content from this file's.

        Args:
            content: decompressed bytes.

        Returns:
            Found and expected size or SHA-256, or None where it is this file.

        Example:
            >>> DataFile("abc", 3).fault(b"ab")
            'has 2 bytes, expected 3'
        """
        if self.digest is None:
            return None if len(content) == self.size else f"has {len(content):,} bytes, expected {self.size:,}"
        found = sha256(content)
        return None if found == self.digest else f"has SHA-256 {found}, expected {self.digest}"


@dataclass(frozen=True)
class Archive:
    """An archive that holds all the files of a set.

    Args:
        name: its file name.
        md5: MD5 of the archive, in hexadecimal.

    Example:
        >>> Archive("cifar-10-binary.tar.gz", md5="c32a1d4ab5d03f1284b67883e8d87530").name
        'cifar-10-binary.tar.gz'
    """

    name: str
    md5: str


@dataclass(frozen=True)
class SetInfo:
    """What is known of one data set.

    Args:
        name: what users call it by.
        about: what it is, in a few words.
        licence: under which its files may be used.
        format: ``idx`` (``train`` and ``test`` are an images and a labels file each) or ``cifar`` (any
            number of batches).
        train: files of the training part.
        test: files of the test part.
        sizes: number of training and test images.
        shape: channels, height, width.
        num_classes: labels run from 0 to this less one.
        mean: of each channel over the training part, pixels scaled to 0..1.
        std: standard deviation likewise.
        mirrors: addresses of the folders it can be downloaded from, in order of preference.
        archive: what lies there where it is not the single files, each with ``.gz`` to its name.
        folders: where other software leaves it on a machine; relative ones are relative to the working
            directory.
        embedded: whether the package carries it.

    Example:
        >>> [file.name for file in lookup("mnist").test]
        ['t10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte']
    """

    name: str
    about: str
    licence: str
    format: Literal["idx", "cifar"]
    train: tuple[DataFile, ...]
    test: tuple[DataFile, ...]
    sizes: tuple[int, int]
    shape: tuple[int, int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirrors: tuple[str, ...] = ()
    archive: Archive | None = None
    folders: tuple[str, ...] = ()
    embedded: bool = False

    @property
    def files(self) -> tuple[DataFile, ...]:
        """All files, the training part first."""
        return self.train + self.test


def _pair(part: str, count: int, images: str, labels: str) -> tuple[DataFile, DataFile]:
    """The two idx files of one part of a set of 28 × 28 images."""
    return (
        DataFile(f"{part}-images-idx3-ubyte", 16 + count * 28 * 28, images),
        DataFile(f"{part}-labels-idx1-ubyte", 8 + count, labels),
    )


def _batch(name: str) -> DataFile:
    return DataFile(name, 10_000 * 3073)


_SAMPLE = SetInfo(
    name="sample",
    about="handwritten digits: a tenth of MNIST, balanced, inside the package",
    licence="CC BY-SA 3.0",
    format="idx",
    train=_pair(
        "train",
        6_000,
        "5be1bd42fd533f6915def3427c96739f4e0e0dea79cf5c03b7be9a45a2541b1c",
        "63d988e3613e10a321ba644c7043ef1f3b9742b8668bdd5a6629f90a4f5e4998",
    ),
    test=_pair(
        "t10k",
        1_000,
        "e42c90ed20e7a6854a8a8b627ef5deb678e82ee5fee1d80e9c3ecb01ef9fd7bd",
        "e85c3635dd021f26e830c4067c14dd106d8aa1836c19f4cb2e0abaef4b062dc1",
    ),
    sizes=(6_000, 1_000),
    shape=(1, 28, 28),
    num_classes=10,
    mean=(0.1307,),  # those of the full set, so that what is trained on one can be tried on the other
    std=(0.3081,),
    embedded=True,
)

_MNIST = SetInfo(
    name="mnist",
    about="handwritten digits",
    licence="CC BY-SA 3.0",
    format="idx",
    train=_pair(
        "train",
        60_000,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    test=_pair(
        "t10k",
        10_000,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    sizes=(60_000, 10_000),
    shape=(1, 28, 28),
    num_classes=10,
    mean=(0.1307,),
    std=(0.3081,),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    folders=("data/MNIST/raw",),
)

_FASHION_MNIST = SetInfo(
    name="fashion-mnist",
    about="pictures of clothes",
    licence="MIT",
    format="idx",
    train=_pair(
        "train",
        60_000,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    test=_pair(
        "t10k",
        10_000,
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    sizes=(60_000, 10_000),
    shape=(1, 28, 28),
    num_classes=10,
    mean=(0.2860,),
    std=(0.3530,),
    mirrors=(
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    folders=("data/FashionMNIST/raw", "/usr/share/datasets/fashion-mnist"),
)

_CIFAR10 = SetInfo(
    name="cifar10",
    about="small colour photographs of ten kinds of things",
    licence="none stated; cite Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    format="cifar",
    train=tuple(_batch(f"data_batch_{number}.bin") for number in range(1, 6)),
    test=(_batch("test_batch.bin"),),
    sizes=(50_000, 10_000),
    shape=(3, 32, 32),
    num_classes=10,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    archive=Archive("cifar-10-binary.tar.gz", md5="c32a1d4ab5d03f1284b67883e8d87530"),
    folders=("data/cifar-10-batches-bin",),
)

CATALOG: dict[str, SetInfo] = {info.name: info for info in (_SAMPLE, _MNIST, _FASHION_MNIST, _CIFAR10)}


def lookup(name: str) -> SetInfo:
    """Facts about the data set of that name.

    Args:
        name: ``sample``, ``mnist``, ``fashion-mnist`` or ``cifar10``.

    Returns:
        Its record.

    Raises:
        DataError: no such set; the message lists the names.

    Example:
        >>> lookup("mnist").sizes
        (60000, 10000)
    """
    if name not in CATALOG:
        raise DataError(f"no data set {name!r}: choose one of {', '.join(CATALOG)}")
    return CATALOG[name]
