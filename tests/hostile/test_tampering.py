"""Archives that somebody changed: what is wrong is named, nothing is run, and no word says more than is known."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from archived import Files, Recorded, edited, here, problems, verified

from preserve.documents.archive import (
    BAG_INFO,
    BAGIT,
    BUNDLE,
    CITATION,
    CRATE,
    LOCK,
    MANIFEST,
    PLAN,
    PREVIEW,
    README,
    REPLAY,
    TAG_MANIFEST,
    WORKFLOW,
    record_name,
)

INPUT = "data/inputs/data/numbers.txt"
CODE = "data/inputs/code/scale.awk"
PRODUCT = "data/products/sorted/numbers.txt"
RESULT = "data/results/results/sum.txt"
LOG = "data/logs/tools/stderr"
RECORD = record_name("sum")
OCI_INDEX = "data/oci/index.json"
TAGS = (BAGIT, BAG_INFO, CITATION, CRATE, README, PREVIEW)
PAYLOAD = (INPUT, CODE, PRODUCT, RESULT, LOG, RECORD, PLAN, LOCK, WORKFLOW, REPLAY, BUNDLE, OCI_INDEX)

pytestmark = pytest.mark.apptainer


@pytest.fixture(scope="module")
def files(recorded: Recorded, apptainer: str) -> Files:
    """An archive taken apart."""
    return Files.of(recorded.archive("apptainer"))


@contextmanager
def watched_engine(folder: Path) -> Iterator[tuple[str, list[bytes]]]:
    """Where a Docker engine would listen, and what it was asked."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as server:
        address = str(folder / "d.sock")
        server.bind(address)
        server.listen()

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(64))

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield f"unix://{address}", asked
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def assert_refused(archive: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``replay`` says what is wrong before it asks any engine for anything."""
    short = Path("/tmp") / f"preserve-{archive.parent.name[-20:]}"  # a socket's name is short
    short.mkdir()
    try:
        with watched_engine(short) as (host, asked):
            monkeypatch.setenv("DOCKER_HOST", host)
            done = here("replay", "--engine", "docker", "--keep", str(short / "kept"), str(archive))
            assert done.code == 5, done.err
            assert "nothing was run" in done.err
            assert name in done.err
            assert asked == []
            assert not (short / "kept").exists()
    finally:
        shutil.rmtree(short)


def flipped(data: bytes) -> bytes:
    """The same length, one bit changed in the middle (of a text, into another text)."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


class TestOneFileChanged:
    def test_the_archive_itself_is_intact(self, files: Files, tmp_path: Path) -> None:
        again = files.with_all_derived().write(tmp_path / "again.crate.zip")
        assert Files.of(again) == files
        assert problems(again, "--deep") == {}

    @pytest.mark.parametrize("name", [*PAYLOAD, *TAGS])
    def test_alone(self, files: Files, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        archive = files.changed({name: flipped(files.data[name])}).write(tmp_path / "changed.crate.zip")
        assert name in problems(archive)
        assert_refused(archive, name, monkeypatch)

    @pytest.mark.parametrize("name", [*PAYLOAD, *TAGS])
    def test_with_the_manifests_made_anew(
        self, files: Files, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        changed = files.changed({name: flipped(files.data[name])})
        archive = changed.with_manifests().write(tmp_path / "changed.crate.zip")
        if name == BUNDLE:  # no step reads it
            assert name in problems(archive, "--deep")
            return
        assert name in problems(archive)
        assert_refused(archive, name, monkeypatch)

    @pytest.mark.parametrize("name", [*PAYLOAD, *TAGS])
    def test_taken_away(self, files: Files, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        archive = files.changed({name: None}).with_manifests().write(tmp_path / "less.crate.zip")
        assert name in problems(archive)
        assert_refused(archive, name, monkeypatch)

    @pytest.mark.parametrize("name", [MANIFEST, TAG_MANIFEST])
    def test_a_manifest(self, files: Files, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        archive = files.changed({name: flipped(files.data[name])}).write(tmp_path / "changed.crate.zip")
        assert verified(archive).code == 1
        assert_refused(archive, "", monkeypatch)
