"""Readers without their library, and files that another process has to survive first."""

from __future__ import annotations

import importlib
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import h5py
import pytest
import uproot
from matplotlib.figure import Figure
from pairs import judged
from PIL import Image
from pyarrow import parquet, table

from preserve.comparators import trial
from preserve.comparators.choosing import Obstructed, read_leaves
from preserve.comparators.leaves import Limits, TooMuch, Unreadable
from preserve.comparators.readers import reader


def hdf5(value: int) -> Callable[[Path], None]:
    def fill(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file["x"] = value
            file["names"] = ["a", "b"]

    return fill


def root(value: int) -> Callable[[Path], None]:
    def fill(path: Path) -> None:
        with uproot.recreate(path, compression=None) as file:
            file["note"] = f"note {value}"
            file.mktree("t", {"x": "f8"}).extend({"x": [float(value)] * 10})

    return fill


def pdf(value: int) -> Callable[[Path], None]:
    def fill(path: Path) -> None:
        figure = Figure(figsize=(1, 1))
        figure.text(0, 0, str(value))
        figure.savefig(path)

    return fill


FILES: dict[str, tuple[str, Callable[[int], Callable[[Path], None]]]] = {
    "a.root": ("root", root),
    "a.h5": ("hdf5", hdf5),
    "a.parquet": ("arrow", lambda value: lambda path: parquet.write_table(table({"x": [value]}), path)),
    "a.png": ("images", lambda value: lambda path: Image.new("L", (2, 2), value).save(path)),
    "a.pdf": ("pdf", pdf),
}
READERS = {"a.root": "root", "a.h5": "hdf5", "a.parquet": "arrow", "a.png": "image", "a.pdf": "pdf"}


@pytest.mark.parametrize("name", FILES)
def test_what_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    extra, fill = FILES[name]
    libraries = ("uproot", "awkward", "h5py", "pyarrow", "PIL", "pypdfium2")
    real = importlib.import_module

    def without(module: str, package: str | None = None) -> ModuleType:
        if module.partition(".")[0] in libraries:
            raise ImportError(module)
        return real(module, package)

    monkeypatch.setattr(importlib, "import_module", without)
    result = judged(name, fill(1), fill(2))
    assert (result.verdict, result.passed) == ("uncomparable", False)
    assert f"pip install 'hep-preserve[{extra}]'" in str(result.facts)


@pytest.mark.parametrize("name", FILES)
def test_equal_files_need_no_library(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    FILES[name][1](1)(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    monkeypatch.setattr(trial, "survive", None)
    assert judged(name, content, content).verdict == "identical"


class TestTrial:
    """The other process: what kills it does not kill this one."""

    def test_it_is_replaced_when_it_is_lost(self, tmp_path: Path) -> None:
        hdf5(1)(tmp_path / "a.h5")
        trial.survive("hdf5", tmp_path / "a.h5", Limits())
        lost = trial._trial()._process
        assert lost is not None
        os.kill(lost.pid, signal.SIGKILL)
        with pytest.raises(Unreadable, match="died"):
            trial.survive("hdf5", tmp_path / "a.h5", Limits())
        trial.survive("hdf5", tmp_path / "a.h5", Limits())

    def test_a_reader_that_does_not_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        os.mkfifo(tmp_path / "a.png")  # nobody ever writes into it
        monkeypatch.setattr(trial, "_PATIENCE", 1)
        with pytest.raises(TooMuch, match="not done after 1 seconds"):
            trial.survive("image", tmp_path / "a.png", Limits())

    def test_its_findings_arrive_as_they_are(self, tmp_path: Path) -> None:
        hdf5(1)(tmp_path / "a.h5")
        with pytest.raises(TooMuch):
            trial.survive("hdf5", tmp_path / "a.h5", Limits(depth=0, bytes=4))
        (tmp_path / "a.h5").write_bytes(b"no HDF5")
        with pytest.raises(Unreadable, match="is no HDF5"):
            trial.survive("hdf5", tmp_path / "a.h5", Limits())


@pytest.mark.parametrize("name", FILES)
def test_random_damage_is_survived(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every outcome is fine but one that ends this process or takes for ever."""
    monkeypatch.setattr(trial, "_PATIENCE", 5)
    FILES[name][1](1)(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    refused = 0
    for seed in range(25):
        chance = random.Random(seed)  # noqa: S311  the same damage each time
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 2, 5, 20])):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        (tmp_path / name).write_bytes(damaged)
        try:
            leaves = read_leaves(reader(READERS[name]), tmp_path / name, Limits())
        except Obstructed:
            refused += 1
        else:
            assert leaves
    assert refused
