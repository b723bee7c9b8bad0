"""What ``docker save`` writes, as OCI blobs: read once from the stream, nothing unpacked.

Up to Docker 24 the archive holds ``<config>.json``, ``<id>/layer.tar`` (links where a layer comes twice) and
``manifest.json``; from 25 it is an OCI layout as well. A graph driver knows no manifest: one is made here from config
and uncompressed layers, with the same bytes each time. With the containerd store the image has its own, kept as it is.
"""

from __future__ import annotations

import json
import posixpath
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, BinaryIO, cast

from preserve.digest import CHUNK, Digest
from preserve.errors import DigestMismatch, MachineError
from preserve.oci import CONFIG, LAYER, MANIFEST, MAX_DOCUMENT, Descriptor, Layout, load_json

MAX_MEMBERS = 10_000
MAX_DOCUMENTS = 64 << 20  # bytes of all JSON members that are kept in memory
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_DOCUMENT = re.compile(r"(?:[0-9a-f]{64}|manifest|index)\.json")


@dataclass(slots=True, kw_only=True)
class _Members:
    """What was found: small documents, blobs written to the layout, and links, by name in the archive."""

    documents: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, Descriptor] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def blob(self, name: str) -> Descriptor:
        for _ in range(8):  # links to links; a circle ends here
            if name in self.blobs:
                return self.blobs[name]
            name = self.links.get(name, "")
        raise DigestMismatch("the Docker engine's export lacks a layer that its manifest names")


def read_saved(stream: BinaryIO, image_id: Digest, layout: Layout) -> bytes:
    """Write one saved image's layers and config to ``layout``; gives its manifest, or its index (containerd store).

    ``image_id`` is what the engine calls the image: its config's digest, or with containerd its manifest's.

    Raises:
        DigestMismatch: the archive is not of that image, or its layers are not those of its config.
        MachineError: the stream is no such archive.
    """
    members = _Members()
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for count, member in enumerate(archive):
                if count >= MAX_MEMBERS:
                    raise DigestMismatch(f"the Docker engine's export has more than {MAX_MEMBERS} members")
                _take(archive, member, members, layout)
    except tarfile.TarError as error:
        raise MachineError(f"the Docker engine's export broke off: {error}", hint="run the command again") from error
    own = members.blobs.get(f"blobs/sha256/{image_id.hex}")
    if own is not None and own.size <= MAX_DOCUMENT:
        data = layout.read(image_id)
        return made_manifest(data, layout) if "rootfs" in load_json(data, f"image {image_id}") else data
    config = _config(members, image_id)
    _match_layers(members, config)
    return made_manifest(config, layout)


def made_manifest(config: bytes, layout: Layout) -> bytes:
    """The manifest of an image known by its config, its layers uncompressed in ``layout``: the same bytes each time.

    Raises:
        DigestMismatch: a layer is not there, or the config is none.
    """
    config_digest = layout.add_bytes(config).digest
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config_digest, "size": len(config)},
        "layers": [
            {"mediaType": LAYER, "digest": diff_id, "size": _size(layout, diff_id)}
            for diff_id in _diff_ids(config, config_digest)
        ],
    }
    return json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()


def _diff_ids(config: bytes, digest: Digest) -> tuple[Digest, ...]:
    value = load_json(config, f"config {digest}")
    try:
        return tuple(Digest(diff_id) for diff_id in value["rootfs"]["diff_ids"])
    except (KeyError, TypeError) as error:
        raise DigestMismatch(f"config {digest} is not an image's config: {error}") from error


def _size(layout: Layout, diff_id: Digest) -> int:
    try:
        return layout.blob(diff_id).stat().st_size
    except FileNotFoundError as error:
        raise DigestMismatch(f"the Docker engine's export lacks the layer with diff_id {diff_id}") from error


def _take(archive: tarfile.TarFile, member: tarfile.TarInfo, members: _Members, layout: Layout) -> None:
    """Keep one member if it is of use; its name is only ever compared, never a path on this machine."""
    name = posixpath.normpath(member.name)
    if member.issym() or member.islnk():
        folder = posixpath.dirname(name) if member.issym() else ""
        members.links[name] = posixpath.normpath(posixpath.join(folder, member.linkname))
        return
    stream = archive.extractfile(member) if member.isreg() else None
    if stream is None:
        return
    if blob := _BLOB.fullmatch(name):
        members.blobs[name] = layout.add(_pieces(stream), expected=Digest("sha256:" + blob[1]), size=member.size)
    elif _DOCUMENT.fullmatch(name):
        if member.size > MAX_DOCUMENT or sum(map(len, members.documents.values())) + member.size > MAX_DOCUMENTS:
            raise DigestMismatch(f"the Docker engine's export has a document of {member.size} bytes: too large")
        members.documents[name] = stream.read()
    elif posixpath.basename(name) == "layer.tar":
        members.blobs[name] = layout.add(_pieces(stream), size=member.size)


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK):
        yield chunk


def _config(members: _Members, image_id: Digest) -> bytes:
    config = members.documents.get(f"{image_id.hex}.json")
    if config is None:
        raise DigestMismatch(f"the Docker engine's export does not hold the image {image_id}")
    if Digest.of(config) != image_id:
        raise DigestMismatch(f"the config of image {image_id} has other content: found {Digest.of(config)}")
    return config


def _match_layers(members: _Members, config: bytes) -> None:
    """The layers that manifest.json names must be those of the config, one by one."""
    listed = members.documents.get("manifest.json", b"[]")
    # A list, unlike every OCI document: wrapped, the same strict reader can read it.
    entries = load_json(b'{"images":' + listed + b"}", "manifest.json of the export")["images"]
    name = f"{Digest.of(config).hex}.json"
    entry = next((e for e in entries if isinstance(e, dict) and e.get("Config") == name), None)
    if entry is None:
        raise DigestMismatch(f"the Docker engine's export does not list the image sha256:{name.removesuffix('.json')}")
    layers = cast("list[str]", entry.get("Layers") or [])
    expected = _diff_ids(config, Digest.of(config))
    found = tuple(members.blob(posixpath.normpath(str(layer))).digest for layer in layers)
    if found != expected:
        different = next((e for e, f in zip(expected, found, strict=False) if e != f), "another number of layers")
        raise DigestMismatch(f"the Docker engine's export: layer {different} has other content")
