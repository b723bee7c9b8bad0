"""Exports of Docker engines of several generations, as crafted archives."""

from __future__ import annotations

import io
import json
import os
import tarfile

import pytest
from lying_registry import Small, small_image

from preserve.digest import Digest
from preserve.errors import DigestMismatch, MachineError, PreserveError
from preserve.oci import INDEX, MANIFEST, Layout
from preserve.transports.saved import read_saved

IMAGE = small_image(b"layer one", b"layer two", b"layer one")
CONFIG_ID, MANIFEST_ID = IMAGE.pin.config_digest, IMAGE.pin.manifest_digest


@pytest.fixture
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return Layout(tmp_path_factory.mktemp("scratch")).create()


def _tar(files: dict[str, bytes], links: dict[str, str] | None = None, kind: bytes = tarfile.SYMTYPE) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
        for name, to in (links or {}).items():
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, to
            tar.addfile(header)
    buffer.seek(0)
    return buffer


def _old(image: Small, **changed: bytes) -> dict[str, bytes]:
    """Up to Docker 24; layers as ``a/layer.tar``, ``b/layer.tar``, the third one a link."""
    name = f"{image.pin.config_digest.hex}.json"
    listed = [{"Config": name, "RepoTags": None, "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"]}]
    return {
        "a/VERSION": b"1.0",
        "a/json": b"{}",
        "a/layer.tar": changed.get("a", image.layers[0]),
        "b/layer.tar": image.layers[1],
        name: changed.get("config", image.config),
        "manifest.json": changed.get("listed", json.dumps(listed).encode()),
    }


LINK = {"c/layer.tar": "../a/layer.tar"}


def _blobs(*blobs: bytes) -> dict[str, bytes]:
    return {f"blobs/sha256/{Digest.of(blob).hex}": blob for blob in blobs}


def test_an_old_export(layout: Layout) -> None:
    manifest = read_saved(_tar(_old(IMAGE), LINK), CONFIG_ID, layout)
    layout.add_bytes(manifest)
    image = layout.verified_image(Digest.of(manifest), CONFIG_ID, IMAGE.pin.diff_ids)
    assert layout.read(image.config.digest) == IMAGE.config
    assert tuple(layer.digest for layer in image.layers) == IMAGE.pin.diff_ids


def test_every_generation_with_a_graph_driver_gives_one_manifest(layout: Layout) -> None:
    """An image that was pinned with Docker 20.10 is the same one with 25 or 28."""
    of_engine = json.dumps({"schemaVersion": 2, "of": "the engine"}).encode()
    newer = {**_blobs(*IMAGE.layers, IMAGE.config, of_engine), "index.json": b"{}", "oci-layout": b"{}"}
    assert read_saved(_tar(_old(IMAGE), LINK), CONFIG_ID, layout) == read_saved(_tar(newer), CONFIG_ID, layout)


def test_a_containerd_export_keeps_its_manifest(layout: Layout) -> None:
    index = json.dumps({"schemaVersion": 2, "manifests": [{"mediaType": MANIFEST, "digest": MANIFEST_ID}]}).encode()
    export = {**_blobs(*IMAGE.layers, IMAGE.config, IMAGE.manifest), "index.json": index, "oci-layout": b"{}"}
    assert read_saved(_tar(export), MANIFEST_ID, layout) == IMAGE.manifest
    layout.verified_image(MANIFEST_ID, CONFIG_ID, IMAGE.pin.diff_ids)


def test_a_containerd_index_is_kept(layout: Layout) -> None:
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
    assert read_saved(_tar(_blobs(index, IMAGE.manifest)), Digest.of(index), layout) == index


@pytest.mark.parametrize(
    "export",
    [
        _old(IMAGE, a=b"layer 0ne"),
        _old(IMAGE, config=IMAGE.config.replace(b"amd64", b"arm64")),
        _old(IMAGE, listed=b"[]"),
        _old(IMAGE, listed=b"{}"),
        _old(IMAGE, listed=b"nonsense"),
        _old(small_image(b"another", b"two")),
        {f"blobs/sha256/{CONFIG_ID.hex}": b"something else"},
        _blobs(IMAGE.config, IMAGE.layers[0]),
        {},
    ],
)
def test_what_is_not_that_image_is_refused(export: dict[str, bytes], layout: Layout) -> None:
    with pytest.raises(DigestMismatch):
        read_saved(_tar(export, LINK), CONFIG_ID, layout)


@pytest.mark.parametrize("to", ["c/layer.tar", "../c/layer.tar", "../../../../etc/passwd", "/etc/passwd"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_lead_nowhere_but_into_the_export(to: str, kind: bytes, layout: Layout) -> None:
    with pytest.raises(DigestMismatch, match="lacks a layer"):
        read_saved(_tar(_old(IMAGE), {"c/layer.tar": to}, kind), CONFIG_ID, layout)


def test_names_of_an_export_are_never_paths(layout: Layout) -> None:
    export = {"../../escaped/layer.tar": b"evil", "/tmp/escaped.json": b"{}", "../x/blobs/sha256/" + "0" * 64: b"evil"}
    read_saved(_tar({**_old(IMAGE), **export}, LINK), CONFIG_ID, layout)
    written = {path.relative_to(layout.path).as_posix() for path in layout.path.rglob("*") if path.is_file()}
    assert all(path.startswith("blobs/sha256/") or path in ("oci-layout", "index.json") for path in written)
    assert not (layout.path.parent.parent / "escaped").exists()


@pytest.mark.parametrize("cut", [0, 100, 512, 700, 2000, 3000])
def test_an_export_that_breaks_off(cut: int, layout: Layout) -> None:
    with pytest.raises(PreserveError) as caught:
        read_saved(io.BytesIO(_tar(_old(IMAGE), LINK).getvalue()[:cut]), CONFIG_ID, layout)
    assert isinstance(caught.value, DigestMismatch | MachineError)


def test_noise_is_no_export(layout: Layout) -> None:
    with pytest.raises(MachineError, match="broke off"):
        read_saved(io.BytesIO(os.urandom(5000)), CONFIG_ID, layout)


def test_endless_documents_are_refused(layout: Layout) -> None:
    export = {f"{number:064x}.json": bytes(7 << 20) for number in range(10)}
    with pytest.raises(DigestMismatch, match="too large"):
        read_saved(_tar(export), CONFIG_ID, layout)
