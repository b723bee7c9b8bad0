"""Every blob of an image, changed or one byte longer: refused before any engine sees it, by every way in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from archived import Files, Recorded, assert_refused, problems, remove_image, session, unseen_image
from conftest import ENGINES, PATH, TinyImage

from preserve import engines
from preserve.digest import Digest
from preserve.documents.archive import BLOBS
from preserve.documents.lockfile import ImagePin
from preserve.errors import DigestMismatch
from preserve.interfaces import LastingEngine
from preserve.oci import Layout

KINDS = ("manifest", "config", "layer")
WAYS = ("changed", "longer")


def spoilt(data: bytes, way: str) -> bytes:
    """The same length with one bit changed, or one byte more (which JSON does not mind)."""
    return data + b"\n" if way == "longer" else data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def blob_of(kind: str, manifest: bytes, manifest_digest: str) -> str:
    """Digest of one of an image's blobs."""
    described = json.loads(manifest)
    digests = {
        "manifest": manifest_digest,
        "config": described["config"]["digest"],
        "layer": described["layers"][0]["digest"],
    }
    found: str = digests[kind]
    return found


@pytest.fixture(scope="module")
def files(recorded: Recorded, apptainer: str) -> Files:
    """An archive taken apart."""
    return Files.of(recorded.archive("apptainer"))


@pytest.fixture
def name(files: Files, kind: str) -> str:
    """Name of a blob in the archive."""
    lock = json.loads(files.data["data/workflow/preserve.lock"])
    digest = lock["images"]["tiny"]["manifest_digest"]
    manifest = files.data[BLOBS + digest.removeprefix("sha256:")]
    return BLOBS + blob_of(kind, manifest, digest).removeprefix("sha256:")


@pytest.mark.apptainer
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
class TestInAnArchive:
    def test_the_bag_notices(
        self, files: Files, name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        archive = files.changed({name: spoilt(files.data[name], way)}).write(tmp_path / "blob.crate.zip")
        assert name in problems(archive)
        assert_refused(archive, name, monkeypatch)

    def test_with_all_manifests_made_anew_its_own_name_tells(
        self, files: Files, name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        changed = files.changed({name: spoilt(files.data[name], way)})
        archive = changed.with_manifests().write(tmp_path / "blob.crate.zip")
        assert problems(archive)[name] == "is not the blob it is named after"
        assert_refused(archive, name, monkeypatch)


@pytest.fixture
def unseen(tiny_image: TinyImage, tmp_path: Path) -> ImagePin:
    """An image that no engine knows, in a layout of its own."""
    return unseen_image(tiny_image, tmp_path / "layout")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, unseen: ImagePin, tmp_path: Path) -> Iterator[LastingEngine]:
    """Each engine, with nothing prepared."""
    host = request.getfixturevalue("docker_host") if request.param == "docker" else None
    if request.param == "apptainer":
        request.getfixturevalue("apptainer")
    yield engines.BUILT_IN[request.param](host=host, cache=tmp_path / "cache", program=None, search_path=PATH)
    if host is not None:
        remove_image(host, unseen)


class TestInALayout:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("kind", KINDS)
    def test_an_engine_is_not_given_it(
        self, engine: LastingEngine, unseen: ImagePin, kind: str, way: str, tmp_path: Path
    ) -> None:
        layout = Layout(tmp_path / "layout")
        manifest = layout.read(unseen.manifest_digest)
        blob = layout.blob(Digest(blob_of(kind, manifest, unseen.manifest_digest)))
        blob.chmod(0o644)
        before = blob.read_bytes()
        blob.write_bytes(spoilt(before, way))
        with pytest.raises(DigestMismatch, match=blob.name):
            engine.load(unseen, layout.path)
        blob.write_bytes(before)  # and what was refused has left nothing behind that stands in the way
        engine.load(unseen, layout.path)

    @pytest.mark.apptainer
    def test_of_a_kept_folder(self, recorded: Recorded, apptainer: str, tmp_path: Path) -> None:
        """What was replayed there is run again: its image was changed meanwhile, and is not to be had elsewhere."""
        kept = tmp_path / "kept"
        user = session(tmp_path, "apptainer")
        user("replay", "--keep", str(kept), str(recorded.archive("apptainer")))
        shutil.rmtree(kept / ".preserve" / "images" / "apptainer", ignore_errors=True)
        layer = max((kept / ".preserve/images/oci/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
        layer.chmod(0o644)
        layer.write_bytes(spoilt(layer.read_bytes(), "changed"))
        done = user("archive", "-C", str(kept), "-o", str(tmp_path / "again.crate.zip"), expect=None)
        assert done.code in (3, 5), done.err
        assert not (tmp_path / "again.crate.zip").exists()
