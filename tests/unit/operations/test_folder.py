"""The analysis folder: what a step reads, who may write, and small files that are whole or not there."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preserve.digest import Digest, FilePin
from preserve.documents.plan import PlannedInput, PlannedStep
from preserve.documents.workflow import Resources
from preserve.errors import MachineError, UserError
from preserve.operations.folder import Folder, artifact, link_file, materials, pin_of, read_json, write_file

STEP = PlannedStep(
    id="s",
    name="s",
    stage="processing",
    image="i",
    command=("true",),
    environment={},
    inputs=(),
    outputs=("o/x",),
    network=False,
    resources=Resources(),
    values={},
)
NAMES = st.sampled_from(["a", "b", "ab", "a.txt", "deep"])
FILES = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


def pin(text: str) -> FilePin:
    return FilePin(sha256=Digest.of(text.encode()), size=len(text))


def reading(*paths: str) -> PlannedStep:
    return replace(STEP, inputs=tuple(PlannedInput(path=path) for path in paths))


def read(step: PlannedStep, *known: str) -> list[str] | None:
    found = materials(step, {path: pin(path) for path in known})
    return None if found is None else [a.path for a in found]


class TestMaterials:
    def test_a_file_that_is_not_made_yet(self) -> None:
        assert read(reading("a", "b"), "a") is None
        assert read(reading("a", "b"), "b", "a", "c") == ["a", "b"]

    def test_a_folder_is_what_was_made_in_it(self) -> None:
        assert read(reading("out/"), "out/x", "out/deep/y", "outer/z", "out") == ["out/deep/y", "out/x"]
        assert read(reading("out/"), "outer/z", "out") is None

    def test_a_step_that_reads_nothing(self) -> None:
        assert read(STEP, "a") == []

    def test_each_has_the_pin_of_its_path(self) -> None:
        known = {"a": pin("1"), "b": FilePin(sha256=Digest.of(b"2"), size=1, executable=True)}
        assert materials(reading("b", "a"), known) == (artifact("a", known["a"]), artifact("b", known["b"]))
        assert pin_of(artifact("b", known["b"])) == known["b"]

    @given(st.sets(FILES, min_size=1), st.sets(FILES), st.randoms())
    def test_neither_order_nor_strangers_matter(self, wanted: set[str], others: set[str], random: object) -> None:
        """The key of a step is made of this: it must not depend on which of two steps before it ended first."""
        known, paths = sorted(wanted | others), sorted(wanted)
        expected = read(reading(*paths), *known)
        random.shuffle(known)  # type: ignore[attr-defined]
        random.shuffle(paths)  # type: ignore[attr-defined]
        assert read(reading(*paths), *known) == expected == sorted(wanted)

    @given(st.sets(FILES, min_size=1), st.sampled_from(["a/", "deep/", "a/b/"]))
    def test_a_folder_is_all_below_it_and_nothing_else(self, known: set[str], folder: str) -> None:
        below = sorted(path for path in known if path.split("/")[: folder.count("/")] == folder[:-1].split("/"))
        below = [path for path in below if path != folder[:-1]]
        assert read(reading(folder), *known) == (below or None)


class TestHeld:
    def test_the_second_is_told_who_is_first(self, tmp_path: Path) -> None:
        folder = Folder(root=tmp_path)
        program = f"""
import os, sys
from pathlib import Path
from preserve.operations.folder import Folder
with Folder(root=Path({str(tmp_path)!r})).held():
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as first:
            assert first.stdout is not None
            pid = first.stdout.readline().strip()
            assert folder.is_held()
            with pytest.raises(MachineError, match=rf"\(process {pid}\)"), folder.held():
                pytest.fail("two at a time")
            first.kill()
        assert not folder.is_held()
        with folder.held():
            assert folder.is_held()

    def test_what_an_earlier_process_wrote_is_no_hindrance(self, tmp_path: Path) -> None:
        folder = Folder(root=tmp_path)
        (folder.state / "busy").write_text("4194304 and some more")
        assert not folder.is_held()
        with folder.held(), pytest.raises(MachineError, match=r"\(process \d+\)"), folder.held():
            pytest.fail("two at a time")

    def test_it_is_free_after_an_exception(self, tmp_path: Path) -> None:
        folder = Folder(root=tmp_path)
        with pytest.raises(LookupError), folder.held():
            raise LookupError
        assert not folder.is_held()


class TestDocuments:
    def test_what_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no preserve\.yaml"):
            Folder(root=tmp_path).workflow()
        with pytest.raises(UserError, match=r"no preserve\.lock") as caught:
            Folder(root=tmp_path).lock()
        assert caught.value.hint == "run: preserve lock"

    @pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff", b'"text"'])
    def test_a_damaged_small_file_is_an_empty_one(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "placed.json").write_bytes(data)
        assert read_json(tmp_path / "placed.json") == {}
        assert read_json(tmp_path / "missing.json") == {}

    def test_the_state_is_invisible_to_git(self, tmp_path: Path) -> None:
        assert (Folder(root=tmp_path).state / ".gitignore").read_text() == "*\n"

    def test_runs_come_in_the_order_of_time(self, tmp_path: Path) -> None:
        folder = Folder(root=tmp_path)
        for name in ("20261123T100000.000000Z", "20251231T235959.999999Z", "notes"):
            (folder.state / "runs" / name).mkdir(parents=True)
        assert [path.name[:4] for path in folder.runs()] == ["2025", "2026"]


def test_a_reader_never_sees_a_file_half_written(tmp_path: Path) -> None:
    path, texts = tmp_path / "deep" / "file", (b"a" * 100_000, b"b" * 50_000)
    write_file(path, texts[0])
    over = threading.Event()
    seen: set[bytes] = set()

    def look() -> None:
        while not over.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(50):
        write_file(path, texts[number % 2])
    over.set()
    reader.join()
    assert seen <= set(texts)
    assert [found.name for found in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("top", [None, "/dev/shm"])
def test_what_was_written_stands_in_a_second_place_too(tmp_path: Path, top: str | None) -> None:
    """In place of what stood there; by a copy where it is on another file system."""
    with tempfile.TemporaryDirectory(dir=top or tmp_path) as folder:
        first, second = Path(folder, "first"), tmp_path / "deep" / "second"
        write_file(second, b"before")
        write_file(first, b"now")
        link_file(first, second)
        assert second.read_bytes() == b"now"
        assert second.samefile(first) == (top is None)
        assert [found.name for found in second.parent.iterdir()] == ["second"]
