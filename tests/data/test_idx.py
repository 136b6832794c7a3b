from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from torch_bregman.data import DataError, read_idx
from torch_bregman.data.content import decompress, sha256
from torch_bregman.data.idx import encode_idx, parse_idx, write_idx

SOUND = bytes([0, 0, 8, 2]) + struct.pack(">2I", 2, 3) + bytes(range(6))
ZIPPED = gzip.compress(SOUND, mtime=0)  # a time stamp would make test names differ between processes
DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}


@pytest.mark.parametrize(("code", "kind"), DTYPES.items())
def test_reads_each_type_as_the_format_describes(code, kind):
    values = [1, 2, 100] if kind == "u1" else [-1, 2, 100]
    letter = {"u1": "B", "i1": "b", "i2": "h", "i4": "i", "f4": "f", "f8": "d"}[kind]
    content = bytes([0, 0, code, 1]) + struct.pack(">I", 3) + struct.pack(f">3{letter}", *values)
    array = parse_idx(content, "made")
    assert array.dtype == np.dtype(kind)
    assert array.tolist() == values
    array[0] = 0  # writable, so that torch.from_numpy takes it


@pytest.mark.parametrize("name", ["a", "a.gz"])
@given(
    array=st.sampled_from(sorted(DTYPES.values())).flatmap(
        lambda kind: hnp.arrays(kind, hnp.array_shapes(max_dims=4, max_side=4))
    )
)
def test_round_trip(tmp_path_factory, name, array):
    path = write_idx(tmp_path_factory.mktemp("idx") / name, array)
    back = read_idx(path, ndim=array.ndim)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\0", "not an idx file: starts with 00"),
        (b"\x89PNG" + SOUND, "starts with 89504e47"),
        (ZIPPED, "let its name end in .gz"),
        (b"\0\0\x07\2" + SOUND[4:], "type code 0x07 is not one of"),
        (b"\0\0\x08\0", "has 0 dimensions, must have 1 to 32"),
        (b"\0\0\x08\x21" + bytes(200), "has 33 dimensions"),
        (SOUND[:7], "truncated: 7 bytes, its header alone needs 12"),
        (SOUND[:-1], r"truncated: 17 bytes, shape \(2, 3\) needs 18"),
        (SOUND + b"!", "1 bytes left over"),
        (b"\0\0\x08\1" + bytes(4), "holds no items"),
        (b"\0\0\x0e\x04" + b"\xff" * 16, "truncated"),
    ],
)
def test_malformed_content_is_refused(tmp_path, content, message):
    path = tmp_path / "some-file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_wrong_number_of_dimensions_is_refused():
    with pytest.raises(DataError, match="has 2 dimensions, must have 3"):
        parse_idx(SOUND, "labels", ndim=3)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (SOUND, "not a sound gzip file"),
        (ZIPPED[:-9], "not a sound gzip file"),
        (ZIPPED[:-8] + bytes(8), "not a sound gzip file: CRC"),
        (ZIPPED[:10] + b"\xff" * 20, "not a sound gzip file"),
        (ZIPPED + b"rubbish", "not a sound gzip file"),
        (b"", "is empty"),
    ],
)
def test_bad_gzip_is_refused(tmp_path, raw, message):
    path = tmp_path / "some.gz"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=message):
        read_idx(path)


def test_unreadable_is_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_idx(tmp_path / "nothing")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_idx(tmp_path)

    def deny(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", deny)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        read_idx(str(tmp_path / "locked"))


@pytest.mark.parametrize("parse", [parse_idx, decompress])
@given(content=st.binary(max_size=200))
def test_any_bytes_give_a_result_or_a_data_error(parse, content):
    try:
        result = parse(content, "fuzz")
    except DataError:
        return
    assert isinstance(result, (np.ndarray, bytes))


@given(
    code=st.sampled_from([*DTYPES, 0, 10, 255]),
    shape=st.lists(st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1)), max_size=5),
    items=st.binary(max_size=64),
)
def test_any_header_gives_its_shape_or_a_data_error(code, shape, items):
    content = bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + items
    try:
        array = parse_idx(content, "fuzz")
    except DataError:
        return
    assert array.shape == tuple(shape)
    assert array.nbytes == len(items)


@given(st.data())
def test_any_damage_to_gzip_gives_the_content_or_a_data_error(data):
    raw = bytearray(ZIPPED)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert decompress(bytes(raw), "fuzz") == SOUND
    except DataError:
        return


def test_decompression_stops_at_the_limit():
    bomb = gzip.compress(bytes(5_000_000))
    assert len(decompress(bomb, "large", limit=5_000_000)) == 5_000_000
    with pytest.raises(DataError, match="holds more than 4,999,999 bytes"):
        decompress(bomb, "large", limit=4_999_999)


def test_the_same_array_gives_the_same_compressed_bytes(tmp_path):
    array = np.arange(100, dtype=np.uint8)
    first, second = (write_idx(tmp_path / name, array).read_bytes() for name in ("a.gz", "b.gz"))
    assert first == second


@pytest.mark.parametrize("array", [np.array(1, "u1"), np.zeros(0, "u1"), np.zeros(3, "i8"), np.array(["a"])])
def test_what_the_format_cannot_hold_is_not_written(array):
    with pytest.raises(DataError, match="idx holds no"):
        encode_idx(array)


def test_sha256_of_the_standard():
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
