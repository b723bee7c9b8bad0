"""Which files were opened, seen by inotify on this machine: no container."""

from __future__ import annotations

import mmap
import os
import subprocess
from pathlib import Path

import pytest

from preserve.errors import MachineError
from preserve.operations.watching import InputWatch

PATHS = ("a.txt", "deep/b.txt", "deep/er/c d.txt", "é☃.txt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in PATHS:
        (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / path).write_text("content")
    return tmp_path / "in"


def test_nothing_is_opened_by_looking(folder: Path) -> None:
    with InputWatch(folder, {}) as watch:
        subprocess.run(["ls", "-lR", folder], check=True, capture_output=True)
        assert (folder / "a.txt").stat().st_size == 7
    assert watch.unopened(PATHS) == PATHS


@pytest.mark.parametrize("path", PATHS)
def test_reading_is_seen_at_any_depth_and_by_any_name(folder: Path, path: str) -> None:
    with InputWatch(folder, {}) as watch:
        (folder / path).read_text()
    assert watch.unopened(PATHS) == tuple(other for other in PATHS if other != path)


def test_mapping_is_seen(folder: Path) -> None:
    with (
        InputWatch(folder, {}) as watch,
        (folder / "a.txt").open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        assert mapped[:4] == b"cont"
    assert "a.txt" not in watch.unopened(PATHS)


def test_another_link_to_the_same_file_is_another_file(folder: Path, tmp_path: Path) -> None:
    os.link(folder / "a.txt", tmp_path / "link")
    with InputWatch(folder, {}) as watch:
        (tmp_path / "link").read_text()
    assert watch.unopened(PATHS) == PATHS


def test_a_file_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "far").write_text("x")
    with InputWatch(folder, {"far.txt": tmp_path / "far"}) as watch:
        assert (tmp_path / "far").read_text() == "x"
    assert watch.unopened(("far.txt", "a.txt")) == ("a.txt",)


def test_one_file_from_elsewhere_under_two_names(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "far").write_text("x")
    with InputWatch(folder, {"one.txt": tmp_path / "far", "two.txt": tmp_path / "far"}) as watch:
        assert (tmp_path / "far").read_text() == "x"
    assert watch.unopened(("one.txt", "two.txt")) == ()


def test_many_openings_lose_nothing(folder: Path) -> None:
    with InputWatch(folder, {}) as watch:
        for _ in range(20_000):  # more than the kernel keeps
            os.close(os.open(folder / "a.txt", os.O_RDONLY))
        (folder / "deep" / "b.txt").read_text()
    assert set(watch.unopened(PATHS)) in ({"deep/er/c d.txt", "é☃.txt"}, set())  # never one that was opened


def test_what_is_not_there_cannot_be_watched(folder: Path, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(MachineError, match="inputs cannot be watched"):
        InputWatch(folder, {"x": tmp_path / "none"})
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
