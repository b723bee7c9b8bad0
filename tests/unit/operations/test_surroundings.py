"""This machine as records describe it, and images: searched once, remembered by the config's digest."""

from __future__ import annotations

import io
import json
import os
import platform
import tarfile
from pathlib import Path

import pytest

from preserve.documents.lockfile import ImagePin
from preserve.documents.record import Library
from preserve.errors import DigestMismatch
from preserve.oci import CONFIG, LAYER, MANIFEST, Layout
from preserve.operations.folder import Folder
from preserve.operations.surroundings import image_used, read_machine

GLIBC = b"GNU C Library (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36.\n"
FOUND = (Library(name="glibc", version="2.36-9+deb12u14", file="lib/libc.so.6"),)


def layer() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("lib/libc.so.6")
        member.size = len(GLIBC)
        archive.addfile(member, io.BytesIO(GLIBC))
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(root=tmp_path)


@pytest.fixture
def pin(folder: Folder) -> ImagePin:
    """An image in the folder's layout, with one layer and an environment."""
    layout = Layout(folder.layout).create()
    data = layout.add_bytes(layer())
    environment = ["PATH=/bin", "OMP_NUM_THREADS=1", "OPENBLAS_CORETYPE=Haswell", "NO_VALUE"]
    settings = {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Env": environment},
        "rootfs": {"type": "layers", "diff_ids": [data.digest]},
    }
    config = layout.add_bytes(json.dumps(settings).encode())
    blobs = [
        {"mediaType": kind, "digest": blob.digest, "size": blob.size}
        for kind, blob in ((CONFIG, config), (LAYER, data))
    ]
    manifest = layout.add_bytes(
        json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": blobs[0], "layers": blobs[1:]}).encode()
    )
    return ImagePin(
        reference="docker://example.org/tiny",
        platform="linux/amd64",
        manifest_digest=manifest.digest,
        config_digest=config.digest,
        diff_ids=(data.digest,),
    )


class TestImages:
    def test_libraries_and_variables(self, folder: Folder, pin: ImagePin) -> None:
        used = image_used(folder, "tiny", pin)
        assert (used.name, used.manifest_digest, used.config_digest) == ("tiny", pin.manifest_digest, pin.config_digest)
        assert used.libraries == FOUND
        assert used.variables == {"OMP_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Haswell"}

    def test_the_layers_are_read_once(self, folder: Folder, pin: ImagePin) -> None:
        first = image_used(folder, "tiny", pin)
        Layout(folder.layout).blob(pin.diff_ids[0]).unlink()
        assert image_used(folder, "tiny", pin) == first

    @pytest.mark.parametrize("damage", [b"", b"{}", b'{"schema": "preserve/libraries/1", "libraries": [{"name": 1}]}'])
    def test_a_memory_that_cannot_be_read_is_made_again(self, folder: Folder, pin: ImagePin, damage: bytes) -> None:
        image_used(folder, "tiny", pin)
        [memory] = (folder.layout.parent / "libraries").iterdir()
        memory.write_bytes(damage)
        assert image_used(folder, "tiny", pin).libraries == FOUND
        assert memory.read_bytes() != damage

    def test_what_cannot_be_known_is_remembered_too(self, folder: Folder, pin: ImagePin) -> None:
        memory = folder.layout.parent / "libraries" / f"{pin.config_digest.hex}.json"
        memory.parent.mkdir(parents=True)
        memory.write_bytes(b'{"schema": "preserve/libraries/1", "libraries": null}')
        assert image_used(folder, "tiny", pin).libraries is None

    def test_a_damaged_layer(self, folder: Folder, pin: ImagePin) -> None:
        Layout(folder.layout).blob(pin.diff_ids[0]).write_bytes(layer() + b"\0" * 512)
        with pytest.raises(DigestMismatch):
            image_used(folder, "tiny", pin)


def test_this_machine() -> None:
    machine = read_machine()
    assert machine.architecture == platform.machine()
    assert machine.cpus == len(os.sched_getaffinity(0))
    told = {
        line.split(":")[0].strip(): line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    }
    if "vendor_id" in told:
        vendor, family, model, _ = machine.cpu_id.split("-")
        assert (vendor, family, int(model, 16)) == (told["vendor_id"], told["cpu family"], int(told["model"]))
    else:
        assert machine.cpu_id == "unknown"
