"""An archive as a folder: regular files only, and no link followed at any moment."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from preserve.stores.damage import Damaged
from preserve.stores.unpacked import UnpackedArchive


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An unpacked archive of three files."""
    top = tmp_path / "top"
    (top / "data/inputs").mkdir(parents=True)
    (top / "data/inputs/a").write_bytes(b"a")
    (top / "data/run").write_bytes(b"run")
    (top / "data/run").chmod(0o755)
    (top / "README.md").write_bytes(b"read me")
    return top


def test_it_is_read_like_a_packed_one(folder: Path) -> None:
    with UnpackedArchive(folder) as archive:
        assert dict(archive.files()) == {"data/inputs/a": 1, "data/run": 3, "README.md": 7}
        assert list(archive.files()) == ["data/inputs/a", "data/run", "README.md"]
        assert [archive.executable(name) for name in archive.files()] == [False, True, False]
        assert b"".join(archive.chunks("README.md")) == b"read me"
        with archive.open("data/run") as stream:
            assert stream.read() == b"run"
        assert list(archive.check_form()) == []


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


MADE = {
    "a link to a file": lambda path: path.symlink_to("a"),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to a folder": lambda path: path.symlink_to("/etc"),
    "a fifo": os.mkfifo,
    "a socket": _socket,
}


@pytest.mark.parametrize("kind", MADE)
def test_anything_but_files_and_folders_is_refused(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "data/inputs")  # a socket's name is short
    MADE[kind](Path("x"))
    with pytest.raises(Damaged, match="data/inputs/x: is a link, a device or the like"):
        UnpackedArchive(folder)


@pytest.mark.parametrize(
    "name", ["data/inputs/A", "data/sp ace", "data/new\nline", "evil.txt", "data/esc\x1b", "data/\udcff"]
)
def test_a_name_that_archives_do_not_have_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(Damaged) as caught:
        UnpackedArchive(folder)
    assert "\x1b" not in str(caught.value)


def test_a_file_that_becomes_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs/a").write_bytes(b"s")
    with UnpackedArchive(folder) as archive:
        (folder / "README.md").unlink()
        (folder / "README.md").symlink_to(tmp_path / "secret")
        with pytest.raises(Damaged, match=r"README\.md: changed while it was read"):
            archive.open("README.md")
        (folder / "data/inputs").rename(folder / "data/was")
        (folder / "data/inputs").symlink_to(tmp_path / "inputs")
        with pytest.raises(Damaged, match="data/inputs/a: changed while it was read"):
            list(archive.chunks("data/inputs/a"))


@pytest.mark.parametrize("change", [b"", b"read me again"])
def test_a_file_of_another_size_is_noticed(folder: Path, change: bytes) -> None:
    with UnpackedArchive(folder) as archive:
        (folder / "README.md").write_bytes(change)
        with pytest.raises(Damaged, match="changed while it was read"):
            archive.open("README.md")


def test_a_removed_file_is_noticed(folder: Path) -> None:
    with UnpackedArchive(folder) as archive:
        (folder / "data/run").unlink()
        with pytest.raises(Damaged, match="data/run"):
            archive.executable("data/run")
        with pytest.raises(Damaged, match="is not in the archive"):
            archive.open("data/none")
