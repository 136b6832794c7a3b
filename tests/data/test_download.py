from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import tarfile

import pytest

from torch_bregman.data import DataError
from torch_bregman.data.download import fetch


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*")} if folder.exists() else {}


def test_everything_is_fetched_from_the_first_mirror(tiny, tmp_path):
    downloader, asked = tiny.server()
    assert fetch(tiny.info, tmp_path / "to", downloader) == list(tiny.contents)
    assert files_in(tmp_path / "to") == tiny.contents
    assert asked == [f"https://one.invalid/{name}.gz" for name in tiny.contents]


@pytest.mark.parametrize(
    "failure",
    [OSError("no route"), b"rubbish", gzip.compress(b"another file")],
    ids=["no route", "rubbish", "another file"],
)
def test_the_second_mirror_stands_in(tiny, tmp_path, caplog, failure):
    good, asked = tiny.server()

    def downloader(url, path):
        if url.startswith("https://two"):
            return good(url, path)
        if isinstance(failure, OSError):
            raise failure
        return path.write_bytes(failure)

    fetch(tiny.info, tmp_path / "to", downloader)
    assert files_in(tmp_path / "to") == tiny.contents
    assert len(asked) == 4
    assert "came from https://two.invalid/, for others failed: https://one.invalid/: " in caplog.text


def test_all_mirrors_failing_is_one_error_with_every_reason(tiny, tmp_path):
    def downloader(url, path):
        if url.startswith("https://one"):
            raise OSError("no route")
        path.write_bytes(b"<html>")

    with pytest.raises(DataError, match=r"no mirror gave a good train-images-idx3-ubyte\.gz") as caught:
        fetch(tiny.info, tmp_path / "to", downloader)
    message = str(caught.value)
    assert "https://one.invalid/: no route" in message
    assert "https://two.invalid/: not a sound gzip file" in message
    assert "bregman data add tiny PATH" in message
    assert "\n" not in message
    assert files_in(tmp_path / "to") == {}


def test_a_wrong_hash_names_file_found_and_expected_and_leaves_nothing(tiny, tmp_path):
    good, _ = tiny.server()

    def downloader(url, path):
        good(url, path)
        if "t10k-images" in url:
            path.write_bytes(gzip.compress(b"tampered"))

    with pytest.raises(DataError) as caught:
        fetch(tiny.info, tmp_path / "to", downloader)
    found, expected = hashlib.sha256(b"tampered").hexdigest(), tiny.info.test[0].digest
    assert f"has SHA-256 {found}, expected {expected}" in str(caught.value)
    assert "t10k-images-idx3-ubyte.gz" in str(caught.value)
    assert set(files_in(tmp_path / "to")) == {"train-images-idx3-ubyte", "train-labels-idx1-ubyte"}


def test_sound_files_stay_and_spoilt_ones_are_replaced_whatever_their_spelling(tiny, tmp_path):
    folder = tiny.write(tmp_path / "to", train_labels=None, t10k_labels=b"spoilt")
    (folder / "train-labels.idx1-ubyte.gz").write_bytes(b"no gzip")
    downloader, asked = tiny.server()
    fetched = fetch(tiny.info, folder, downloader)
    assert fetched == ["train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"]
    assert len(asked) == 2
    assert files_in(folder) == tiny.contents


def test_a_folder_that_cannot_be_made_is_an_error(tiny, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    downloader, _ = tiny.server()
    with pytest.raises(DataError, match=r"cannot be written to: .*: make room, or name another folder by TORCH_"):
        fetch(tiny.info, tmp_path / "file" / "to", downloader)


def tar_of(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_an_archive_is_checked_by_its_md5(tiny_cifar, tmp_path):
    raw = tar_of(tiny_cifar.contents)
    asked = []

    def downloader(url, path):
        asked.append(url)
        path.write_bytes(raw)

    md5 = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    wrong = f"tiny.tar.gz.*https://one.invalid/: has MD5 {md5}, expected unset"
    with pytest.raises(DataError, match=wrong):
        fetch(tiny_cifar.info, tmp_path / "to", downloader)
    assert files_in(tmp_path / "to") == {}

    info = dataclasses.replace(tiny_cifar.info, archive=dataclasses.replace(tiny_cifar.info.archive, md5=md5))
    assert fetch(info, tmp_path / "to", downloader) == list(tiny_cifar.contents)
    assert files_in(tmp_path / "to") == tiny_cifar.contents
    assert fetch(info, tmp_path / "to", downloader) == []
    assert asked == ["https://one.invalid/tiny.tar.gz"] * 2
