from __future__ import annotations

import gzip

import numpy as np
import pytest

from torch_bregman.data import DataError
from torch_bregman.data.sources import read_set


def no_network(url, path):
    raise AssertionError(f"asked the network for {url}")


def check(raw, made):
    """What was read is what was made."""
    arrays = made.arrays
    np.testing.assert_array_equal(raw.train[0][:, 0], arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(raw.train[1], arrays["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(raw.test[0][:, 0], arrays["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(raw.test[1], arrays["t10k-labels-idx1-ubyte"])
    assert raw.genuine


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_every_spelling_of_the_files_is_read(tiny, tmp_path, dotted, zipped):
    for name, content in tiny.contents.items():
        spelling = (name.replace("-idx", ".idx") if dotted else name) + (".gz" if zipped else "")
        (tmp_path / spelling).write_bytes(gzip.compress(content) if zipped else content)
    check(read_set("tiny", tmp_path), tiny)


def test_places_are_used_in_order(tiny, tmp_path, monkeypatch):
    root = tmp_path / "root"
    downloader, asked = tiny.server()
    places = [
        (root / "tiny", "TORCH_BREGMAN_DATA"),
        (root, "TORCH_BREGMAN_DATA"),
        (tmp_path / "cache" / "tiny", "cache"),
        (tmp_path / "work" / "data/Tiny/raw", "folder data/Tiny/raw"),
    ]
    for folder, _ in places:
        tiny.write(folder)
    monkeypatch.setenv("TORCH_BREGMAN_DATA", str(root))
    for folder, label in places:
        raw = read_set("tiny", downloader=no_network)
        assert raw.source in (f"{label} {folder}", label)
        check(raw, tiny)
        for path in folder.iterdir():
            if path.is_file():
                path.unlink()
    raw = read_set("tiny", downloader=downloader)
    assert raw.source == f"downloaded to {tmp_path / 'cache' / 'tiny'}"
    check(raw, tiny)
    assert len(asked) == 4
    assert read_set("tiny", downloader=no_network).source.startswith("cache")


def test_a_given_directory_is_the_only_place(tiny, tmp_path, monkeypatch):
    tiny.write(tmp_path / "root" / "tiny")
    tiny.write(tmp_path / "cache" / "tiny")
    monkeypatch.setenv("TORCH_BREGMAN_DATA", str(tmp_path / "root"))
    given = tiny.write(tmp_path / "given", t10k_labels=None)
    with pytest.raises(DataError, match=r"given/t10k-labels-idx1-ubyte: missing \(.gz would do\)"):
        read_set("tiny", given, downloader=no_network)
    with pytest.raises(DataError, match="nowhere: no such folder: name the one with train-images-idx3-ubyte"):
        read_set("tiny", tmp_path / "nowhere", downloader=no_network)


def test_a_given_directory_may_hold_own_data(tiny, tmp_path, idx_bytes):
    own = {part: np.full((2, 3, 3), 7, np.uint8) for part in ("train_images", "t10k_images")}
    labels = {part: np.array([0, 2], np.uint8) for part in ("train_labels", "t10k_labels")}
    changed = {part: idx_bytes(array) for part, array in (own | labels).items()}
    folder = tiny.write(tmp_path / "own", **changed)
    raw = read_set("tiny", folder)
    assert raw.train[0].shape == (2, 1, 3, 3)
    assert raw.test[1].tolist() == [0, 2]
    assert not raw.genuine


FLOAT = bytes([0, 0, 0x0D, 1, 0, 0, 0, 12]) + bytes(48)
FLOAT_IMAGES = bytes([0, 0, 0x0D, 3, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 1]) + bytes(48)
NEGATIVE = bytes([0, 0, 0x09, 1, 0, 0, 0, 12]) + b"\xff" * 12


@pytest.mark.parametrize(
    ("part", "make", "message"),
    [
        ("train_labels", lambda idx: idx(np.zeros(11, np.uint8)), "12 images, but 11 labels"),
        ("train_labels", lambda idx: idx(np.full(12, 3, np.uint8)), r"labels run 3..3, must be 0..2"),
        ("train_labels", lambda idx: NEGATIVE, r"labels run -1..-1, must be 0..2"),
        ("train_labels", lambda idx: FLOAT, "labels to it are float32, must be integers"),
        ("train_labels", lambda idx: idx(np.zeros((12, 1), np.uint8)), "has 2 dimensions, must have 1"),
        ("train_images", lambda idx: idx(np.zeros((12, 20), np.uint8)), "has 2 dimensions, must have 3"),
        ("train_images", lambda idx: FLOAT_IMAGES, "images are float32, must be uint8"),
        ("train_images", lambda idx: idx(np.zeros((12, 5, 5), np.uint8)), r"differ in shape \(C, H, W\)"),
        (
            "t10k_images",
            lambda idx: idx(np.zeros((6, 5, 4), np.uint8))[:-1],
            "t10k-images-idx3-ubyte: truncated",
        ),
        ("t10k_images", lambda idx: b"", "t10k-images-idx3-ubyte: is empty"),
    ],
)
def test_own_data_that_does_not_fit_together_is_refused(tiny, tmp_path, idx_bytes, part, make, message):
    folder = tiny.write(tmp_path / "own", **{part: make(idx_bytes)})
    with pytest.raises(DataError, match=message) as caught:
        read_set("tiny", folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("place", ["cache/tiny", "work/data/Tiny/raw", "root/tiny"])
def test_spoilt_files_are_an_error_everywhere_else(tiny, tmp_path, monkeypatch, idx_bytes, place):
    (tmp_path / "root").mkdir()
    monkeypatch.setenv("TORCH_BREGMAN_DATA", str(tmp_path / "root"))
    tiny.write(tmp_path / place, t10k_labels=idx_bytes(np.zeros(6, np.uint8)))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte: has SHA-256 \w{64}, expected \w{64}"):
        read_set("tiny", downloader=no_network)


def test_another_set_in_the_shared_folder_is_passed_over(tiny, tmp_path, monkeypatch, idx_bytes):
    root = tiny.write(tmp_path / "root", train_labels=idx_bytes(np.zeros(12, np.uint8)))
    monkeypatch.setenv("TORCH_BREGMAN_DATA", str(root))
    with pytest.raises(DataError, match="root holds other data than tiny"):
        read_set("tiny", download=False)
    tiny.write(tmp_path / "cache" / "tiny")
    assert read_set("tiny", download=False).source.startswith("cache")


def test_not_found_says_where_it_looked_and_what_to_do(tiny, tmp_path):
    tiny.write(tmp_path / "work/data/Tiny/raw", train_labels=None)
    looked = "no cache .*/tiny; folder data/Tiny/raw lacks train-labels"
    with pytest.raises(DataError, match=looked + ".*: allow the download, `bregman data add tiny PATH`"):
        read_set("tiny", download=False)


def test_a_variable_that_names_no_folder_is_an_error(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_BREGMAN_DATA", str(tmp_path / "typo"))
    with pytest.raises(DataError, match=r"TORCH_BREGMAN_DATA names .*typo.*, which is no folder: "):
        read_set("tiny", downloader=no_network)


def test_cifar_batches_follow_one_another(tiny_cifar, tmp_path):
    folder = tiny_cifar.write(tmp_path / "work/data/cifar")
    raw = read_set("tiny-cifar", folder)
    records = np.concatenate([tiny_cifar.arrays[f"data_batch_{number}.bin"] for number in range(1, 6)])
    np.testing.assert_array_equal(raw.train[0].reshape(20, 3072), records[:, 1:])
    np.testing.assert_array_equal(raw.train[1], records[:, 0])
    np.testing.assert_array_equal(raw.test[1], tiny_cifar.arrays["test_batch.bin"][:, 0])


def test_the_cache_is_in_the_systems_place_unless_moved(monkeypatch):
    import pooch

    from torch_bregman.data.cache import cache_folder

    monkeypatch.delenv("TORCH_BREGMAN_CACHE")
    assert cache_folder("mnist") == pooch.os_cache("torch-bregman") / "mnist"
