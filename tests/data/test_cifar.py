from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_bregman.data import DataError
from torch_bregman.data.cifar import parse_cifar, read_cifar


def record(label: int, pixel) -> bytes:
    """One record, byte by byte: label, then planes of red, green and blue, row by row."""
    planes = (pixel(c, y, x) for c in range(3) for y in range(32) for x in range(32))
    return bytes([label, *planes])


def pixel_of(image: int):
    return lambda c, y, x: (7 * image + 50 * c + 3 * y + x) % 256


def test_reads_records_in_the_order_of_the_format(tmp_path):
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(record(9, pixel_of(0)) + record(0, pixel_of(1)))
    images, labels = read_cifar(path)
    assert images.shape == (2, 3, 32, 32)
    assert images.dtype == labels.dtype == np.uint8
    assert labels.tolist() == [9, 0]
    for image, channel, y, x in [(0, 0, 0, 0), (0, 2, 31, 5), (1, 1, 4, 30)]:
        assert images[image, channel, y, x] == pixel_of(image)(channel, y, x)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (bytes(3072), "3,072 bytes are no whole number of records of 3073"),
        (bytes(3074), "3,074 bytes are no whole number"),
        (bytes(3073) + b"\x0a" + bytes(3072), "record 1 has label 10, must be 0 to 9"),
    ],
)
def test_malformed_content_is_refused(tmp_path, content, message):
    path = tmp_path / "test_batch.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_cifar(path)


@given(st.integers(0, 3), st.integers(0, 255), st.integers(-1, 1))
def test_any_bytes_give_images_or_a_data_error(records, byte, extra):
    content = bytes([byte]) * max(0, records * 3073 + extra)
    try:
        images, labels = parse_cifar(content, "fuzz")
    except DataError:
        assert byte > 9 or extra or not records
    else:
        assert len(images) == len(labels) == records
