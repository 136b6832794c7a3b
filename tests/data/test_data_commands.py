from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torch_bregman.data import DataError, add, archives, get, list_sets, load


def pack(path: Path, contents: dict[str, bytes]) -> Path:
    """An archive of the kind that its name says, with members of any name at all."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
        return path
    mode = {".tar": "w", ".xz": "w:xz"}.get(path.suffix, "w:gz")
    with tarfile.open(path, mode) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["set.tar.gz", "set.tgz", "set.tar", "set.tar.xz", "set.zip"])
@pytest.mark.parametrize("zipped", [False, True])
def test_archives_of_every_kind_are_installed(tiny, tmp_path, name, zipped):
    members = {"package/readme.md": b"hello", "package/package.json": b"{}"}
    for file, content in tiny.contents.items():
        members[f"package/data/{file}{'.gz' * zipped}"] = gzip.compress(content) if zipped else content
    folder = add("tiny", pack(tmp_path / name, members))
    assert folder == tmp_path / "cache" / "tiny"
    assert tree(folder) == tiny.contents
    assert load("tiny").source == f"cache {folder}"


def test_a_folder_with_the_files_at_any_depth_is_installed(tiny, tmp_path):
    tiny.write(tmp_path / "downloads" / "deep" / "down")
    assert tree(add("tiny", tmp_path / "downloads")) == tiny.contents


def test_single_files_are_installed_alone(tiny, tmp_path):
    source = tiny.write(tmp_path / "files")
    first, *rest = sorted(source.iterdir())
    dotted = tmp_path / (first.name.replace("-idx", ".idx") + ".gz")
    dotted.write_bytes(gzip.compress(first.read_bytes()))
    assert tree(add("tiny", dotted)) == {first.name: first.read_bytes()}
    assert tree(add("tiny", *rest)) == tiny.contents


def test_names_that_climb_out_of_the_archive_reach_nothing(tiny, tmp_path):
    climbing = {f"../../../{name}": content for name, content in tiny.contents.items()}
    absolute = {f"{tmp_path}/abs/{name}": content for name, content in tiny.contents.items()}
    backslash = {f"..\\..\\{name}": content for name, content in tiny.contents.items()}
    for kind, members in enumerate((climbing, absolute, backslash)):
        for suffix in (".tar", ".zip"):
            archive = pack(tmp_path / f"{kind}{suffix}", members)
            before = tree(tmp_path)
            folder = add("tiny", archive)
            assert tree(folder) == tiny.contents
            added = set(tree(tmp_path)) - set(before)
            assert all(path.startswith("cache/tiny/") for path in added)


def test_links_and_folders_of_the_right_name_are_not_files(tiny, tmp_path):
    path = pack(tmp_path / "set.tar", dict(list(tiny.contents.items())[1:]))
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("deep/train-images-idx3-ubyte")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
        folder = tarfile.TarInfo("other/train-images-idx3-ubyte")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    with pytest.raises(DataError, match=r"set.tar: holds no train-images-idx3-ubyte \(nor .gz\) of tiny"):
        add("tiny", path)


def test_of_files_of_the_same_name_the_right_one_is_taken(tiny, tmp_path):
    others = {f"another/{name}": b"other" for name in tiny.contents}
    more = {f"more/{name}": b"more" for name in tiny.contents}
    members = others | {f"it/{name}": content for name, content in tiny.contents.items()} | more
    assert tree(add("tiny", pack(tmp_path / "both.zip", members))) == tiny.contents


@pytest.mark.parametrize("name", ["set.tar.gz", "set.zip"])
def test_a_wrong_or_missing_file_is_named_and_nothing_is_installed(tiny, tmp_path, name):
    wrong = tiny.contents | {"t10k-labels-idx1-ubyte": b"wrong"}
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte': has SHA-256 \w{64}, expected \w{64}"):
        add("tiny", pack(tmp_path / name, wrong))
    missing = {key: value for key, value in tiny.contents.items() if key != "train-labels-idx1-ubyte"}
    with pytest.raises(DataError, match=f"{name}: holds no train-labels-idx1-ubyte"):
        add("tiny", pack(tmp_path / name, missing))
    assert not (tmp_path / "cache").exists()


def test_large_members_are_refused_before_they_are_read(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_LIMIT", 1000)
    for suffix in (".tar", ".zip"):
        with pytest.raises(DataError, match="has 5,000 bytes, no file of a set more than 1,000"):
            add("tiny", pack(tmp_path / f"large{suffix}", {"train-images-idx3-ubyte": bytes(5000)}))
        bomb = {"train-images-idx3-ubyte.gz": gzip.compress(bytes(5000))}
        with pytest.raises(DataError, match="holds more than 1,000 bytes"):
            add("tiny", pack(tmp_path / f"bomb{suffix}", bomb))


def test_what_is_no_archive_is_refused(tiny, tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("hello")
    with pytest.raises(DataError, match=r"notes.txt: neither a .tar\(.gz\) or .zip archive nor one of t10k-images"):
        add("tiny", other)
    with pytest.raises(DataError, match=r"nothing.zip: no such file or folder"):
        add("tiny", tmp_path / "nothing.zip")
    whole = pack(tmp_path / "whole.tar.gz", tiny.contents).read_bytes()
    (tmp_path / "half.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"half.tar.gz: not a sound archive"):
        add("tiny", tmp_path / "half.tar.gz")


@pytest.mark.parametrize("suffix", [".tar", ".tgz", ".zip"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_to_an_archive_is_harmless_or_a_data_error(tiny, tmp_path, suffix, data):
    whole = tmp_path / f"whole{suffix}"
    raw = bytearray((whole if whole.exists() else pack(whole, tiny.contents)).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / f"damaged{suffix}"
    damaged.write_bytes(raw)
    try:
        folder = add("tiny", damaged)
    except DataError:
        return
    assert tree(folder) == tiny.contents


def test_an_archive_under_a_password_is_refused(tiny, tmp_path):
    path = pack(tmp_path / "set.zip", tiny.contents)
    raw = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = raw.find(signature)
        while start >= 0:
            raw[start + offset] |= 1  # the flag that says: encrypted
            start = raw.find(signature, start + 1)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"not a sound archive: .*encrypted"):
        add("tiny", path)


def test_cifar_archives_are_checked_by_size_and_labels(tiny_cifar, tmp_path):
    members = {f"cifar-10-batches-bin/{name}": content for name, content in tiny_cifar.contents.items()}
    folder = add("tiny-cifar", pack(tmp_path / "cifar.tar.gz", members))
    assert tree(folder) == tiny_cifar.contents
    assert load("tiny-cifar").train.images.shape == (20, 3, 32, 32)
    short = members | {"cifar-10-batches-bin/test_batch.bin": bytes(3073)}
    with pytest.raises(DataError, match=r"test_batch.bin': has 3,073 bytes, expected 12,292"):
        add("tiny-cifar", pack(tmp_path / "short.tar.gz", short))
    labels = members | {"cifar-10-batches-bin/test_batch.bin": b"\xff" * 4 * 3073}
    with pytest.raises(DataError, match="record 0 has label 255"):
        add("tiny-cifar", pack(tmp_path / "labels.tar.gz", labels))


def test_what_comes_with_the_package_cannot_be_added(tmp_path):
    with pytest.raises(DataError, match="sample comes with the package"):
        add("sample", tmp_path)


def test_adding_nothing_is_an_error(tiny):
    with pytest.raises(DataError, match="nothing to add to tiny"):
        add("tiny")


def test_get_downloads_once_then_verifies_then_repairs(tiny, tmp_path):
    downloader, asked = tiny.server()
    said: list[str] = []
    folder = get("tiny", downloader=downloader, say=said.append)
    get("tiny", downloader=downloader, say=said.append)
    assert len(asked) == 4
    (folder / "train-labels-idx1-ubyte").write_bytes(b"spoilt")
    get("tiny", downloader=downloader, say=said.append)
    assert len(asked) == 5
    assert said == [
        f"tiny: downloaded 4 of 4 files: {folder}",
        f"tiny: already there, verified all 4 files: {folder}",
        f"tiny: downloaded 1 of 4 files: {folder}",
    ]
    assert tree(folder) == tiny.contents


def test_getting_the_sample_gives_its_folder(capsys):
    assert (get("sample") / "LICENSE").is_file()
    assert "nothing to download" in capsys.readouterr().out


def test_the_list_says_where_each_set_is(tiny, tmp_path):
    before = {status.name: status.found for status in list_sets()}
    assert before["sample"] == "in the package"
    assert before["tiny"] is None
    folder = add("tiny", tiny.write(tmp_path / "files"))
    status = next(status for status in list_sets() if status.name == "tiny")
    assert status.found == f"cache {folder}"
    assert (status.train_images, status.test_images) == (12, 6)
