"""Archives whose documents hold and that say a little more, or something larger, than any that preserve writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archived import Files, InMemory, Recorded, edited, here, problems, session

from preserve.digest import Digest
from preserve.documents.archive import (
    BAG_INFO,
    BLOBS,
    LOCK,
    MANIFEST,
    OCI,
    PLAN,
    README,
    TAG_MANIFEST,
    record_name,
)
from preserve.errors import Interrupted
from preserve.interfaces import Silent
from preserve.oci import Descriptor, Image
from preserve.operations.opened import open_archive
from preserve.operations.verify import Choices, verify
from preserve.stores.crate_zip import CrateZip
from preserve.stores.image_graph import layer_faults

pytestmark = pytest.mark.apptainer


@pytest.fixture(scope="module")
def files(recorded: Recorded, apptainer: str) -> Files:
    """An archive taken apart."""
    return Files.of(recorded.archive("apptainer"))


def without_images(files: Files) -> Files:
    """The same archive as ``--without images`` makes it."""
    info = files.data[BAG_INFO].replace(
        b"Preserve-Completeness: full\n", b"Preserve-Completeness: no-images\nPreserve-Without: images\n"
    )
    kept = {name: None for name in files.data if name.startswith(OCI)}
    return files.changed({**kept, BAG_INFO: info}).with_all_derived()


def test_blobs_in_an_archive_without_images(files: Files, tmp_path: Path) -> None:
    bare = without_images(files)
    assert problems(bare.write(tmp_path / "bare.crate.zip")) == {}
    name = f"{BLOBS}{'0' * 64}"
    archive = bare.changed({name: b"what nobody looks at\n"}).with_all_derived().write(tmp_path / "more.crate.zip")
    assert name in problems(archive)


def test_the_program_that_wrote_it_is_no_markup(files: Files, tmp_path: Path) -> None:
    info = files.data[BAG_INFO].replace(b"Bag-Software-Agent: ", b"Bag-Software-Agent: <img src=x> ")
    made = files.changed({BAG_INFO: info}).with_all_derived()
    assert b"<img" not in made.data[README].replace(b"\\<img", b"")


@pytest.mark.parametrize("name", [MANIFEST, TAG_MANIFEST, BAG_INFO, PLAN])
def test_a_file_that_its_crc_belies(files: Files, tmp_path: Path, name: str) -> None:
    archive = files.write(tmp_path / "changed.crate.zip")
    with CrateZip(archive) as store:
        place = next(entry.start for entry in store.entries() if entry.name == name)
    with archive.open("r+b") as stream:
        stream.seek(place + 5)
        letter = stream.read(1)[0]
        stream.seek(place + 5)
        stream.write(bytes([letter ^ 1]))
    assert name in problems(archive)


@pytest.mark.parametrize("seconds", [1.7e308, -1.0, 1e13])
def test_a_duration_that_none_has(files: Files, tmp_path: Path, seconds: float) -> None:
    changed = files
    for step in ("sum", "scaled"):
        name = record_name(step)
        changed = changed.changed({name: edited(changed, name, lambda record: record.update(wall_seconds=seconds))})
    archive = changed.with_manifests().write(tmp_path / "long.crate.zip")
    assert record_name("sum") in problems(archive)


@pytest.mark.parametrize("name", ["epoch", "size"])
@pytest.mark.parametrize("number", [b"1e999", b'"5"', b"6.5"])
def test_numbers_of_a_lock(files: Files, tmp_path: Path, name: str, number: bytes) -> None:
    key = b'"' + name.encode() + b'": '
    lock = re.sub(key + rb"\d+", key + number, files.data[LOCK])
    assert lock != files.data[LOCK]
    archive = files.changed({LOCK: lock}).with_manifests().write(tmp_path / "lock.crate.zip")
    assert LOCK in problems(archive)


@pytest.mark.parametrize("name", [TAG_MANIFEST, PLAN, record_name("sum")])
def test_a_document_that_may_be_executed(files: Files, tmp_path: Path, name: str) -> None:
    changed = replace(files, executable=files.executable | {name})
    assert problems(changed.write(tmp_path / "bits.crate.zip")) == {name: "is marked as a program, and is none"}


def test_what_was_hashed_is_what_is_judged(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody writes into the file while it is verified."""
    archive = files.write(tmp_path / "a.crate.zip")
    asked: list[str] = []
    chunks = CrateZip.chunks

    def other_the_second_time(store: CrateZip, name: str) -> Any:
        asked.append(name)
        whole = b"".join(chunks(store, name))
        yield whole if asked.count(name) == 1 or name != TAG_MANIFEST else whole.replace(b"0", b"1")

    monkeypatch.setattr(CrateZip, "chunks", other_the_second_time)
    found = verify(archive, Choices(), progress=Silent())
    assert (TAG_MANIFEST, "changed while it was verified") in {(one.path, one.problem) for one in found.findings}


def test_a_layer_that_two_images_unpack_to_different_things() -> None:
    layer = b"a layer as it is"
    good, bad = Digest.of(layer), Digest.of(b"another")
    blob = Descriptor(media_type="", digest=good, size=len(layer))

    def image(diff_id: Digest) -> Image:
        return Image(
            manifest=blob, config=blob, layers=(blob,), diff_ids=(diff_id,), platform="linux/amd64", settings={}
        )

    store = InMemory(Files(data={BLOBS + good.hex: layer}))
    (found,) = layer_faults(store, (image(good), image(bad)))  # type: ignore[arg-type]
    assert (found.expected, found.found) == (bad, good)


def test_a_layer_of_zstd_is_not_accused_of_being_another() -> None:
    layer = bytes.fromhex("28b52ffd2000010000")  # a frame with nothing in it
    blob = Descriptor(media_type="application/vnd.oci.image.layer.v1.tar+zstd", digest=Digest.of(layer), size=9)
    image = Image(
        manifest=blob, config=blob, layers=(blob,), diff_ids=(Digest.of(b""),), platform="linux/amd64", settings={}
    )
    (found,) = layer_faults(InMemory(Files(data={BLOBS + blob.digest.hex: layer})), (image,))  # type: ignore[arg-type]
    assert "zstd, which this version does not unpack" in found.problem


def test_what_an_opened_archive_says_of_itself_is_what_was_checked(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bag-info.txt says what was left out: read again, it could be another."""
    read, chunks = [], CrateZip.chunks
    monkeypatch.setattr(CrateZip, "chunks", lambda store, name: (read.append(name), chunks(store, name))[1])
    with open_archive(files.write(tmp_path / "a.crate.zip")) as opened:
        assert opened.contents.completeness == "full"
    assert read.count(BAG_INFO) == 1


def test_only_a_file_may_have_been_packed_again(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.zip").write_bytes(b"no ZIP")
    said = {name: here("verify", str(tmp_path / name)) for name in ("folder", "file.zip")}
    assert {name: (done.code, "unzip it, and verify" in done.out) for name, done in said.items()} == {
        "folder": (1, False),
        "file.zip": (1, True),
    }


def test_only_and_from(files: Files, tmp_path: Path) -> None:
    archive = files.write(tmp_path / "a.crate.zip")
    done = here("replay", "--only", "sum", "--from", "scaled", str(archive))
    assert (done.code, "do not go together" in done.err) == (2, True)


@pytest.mark.parametrize("kept", [(), ("--keep", "kept")])
def test_an_interrupted_replay_says_how_to_go_on(
    files: Files, tmp_path: Path, kept: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, **__: Mapping[str, Any]) -> None:
        raise Interrupted("interrupted; the containers are gone", hint="run the same command again to go on")

    monkeypatch.setattr("preserve.operations.replay.run_plan", stopped)
    monkeypatch.chdir(tmp_path)
    done = here("replay", *kept, str(files.write(tmp_path / "a.crate.zip")))
    assert (done.code, "to go on" in done.err) == (130, False)
    assert "begins anew" in done.err
    again = here("replay", *kept, str(tmp_path / "a.crate.zip"))
    assert (again.code, "a replay left it: rm -r " in again.err) == ((2, True) if kept else (130, False))


def test_a_name_that_no_locale_has(files: Files, tmp_path: Path) -> None:
    archive = files.write(tmp_path / "\udcff.crate.zip")
    done = session(tmp_path, "none").with_environment(PYTHONUTF8="1", LC_ALL="C.UTF-8")("verify", str(archive))
    assert "intact, unsigned" in done.out
