"""What files hashed to: remembered while they are as they were, and no more than a help."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preserve.digest import Digest
from preserve.stores.hashes import HashMemory


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    return path


def remember_and_change(file: Path, memory: Path) -> None:
    """Another content, with the size and time of the one that is remembered."""
    known = HashMemory(memory)
    known.pin(file)
    known.save()
    before = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_that_is_as_it_was_is_not_read_again(file: Path, tmp_path: Path) -> None:
    remember_and_change(file, tmp_path / "hashes.json")
    assert HashMemory(tmp_path / "hashes.json").pin(file).sha256 == Digest.of(b"one")
    os.utime(file)
    assert HashMemory(tmp_path / "hashes.json").pin(file).sha256 == Digest.of(b"two")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '{"FILE": null}', '{"FILE": [1]}', '{"FILE": "abcd"}'])
def test_a_damaged_memory_costs_hashing_again_only(file: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "hashes.json").write_text(text.replace("FILE", str(file)))
    memory = HashMemory(tmp_path / "hashes.json")
    assert memory.pin(file).sha256 == Digest.of(b"one")
    memory.save()
    assert str(Digest.of(b"one")) in (tmp_path / "hashes.json").read_text()


def test_what_earlier_processes_knew_can_be_doubted(file: Path, tmp_path: Path) -> None:
    remember_and_change(file, tmp_path / "hashes.json")
    doubting = HashMemory(tmp_path / "hashes.json", anew=True)
    assert doubting.pin(file).sha256 == Digest.of(b"two")
    doubting.save()
    assert HashMemory(tmp_path / "hashes.json").pin(file).sha256 == Digest.of(b"two")


def test_a_link_is_still_what_was_pinned_until_it_is_written_to(file: Path, tmp_path: Path) -> None:
    memory, link = HashMemory(tmp_path / "hashes.json"), tmp_path / "link"
    pin = memory.pin(file)
    link.hardlink_to(file)
    os.utime(file)
    assert memory.is_still(file, pin, at=link)
    file.rename(tmp_path / "away")
    file.write_bytes(b"two")
    assert memory.is_still(file, pin, at=link)
    assert not memory.is_still(file, pin, at=file)
    link.write_bytes(b"new")
    assert not memory.is_still(file, pin, at=link)
    assert not memory.is_still(file, pin, at=tmp_path / "nowhere")
