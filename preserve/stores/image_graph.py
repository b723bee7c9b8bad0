"""The images inside an archive: manifest to config to layers, and layers to what they unpack to."""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping

from preserve.digest import Digest, FilePin
from preserve.documents.archive import BLOBS
from preserve.documents.lockfile import ImagePin
from preserve.documents.verification import Finding
from preserve.errors import DigestMismatch
from preserve.interfaces import Archive
from preserve.oci import MAX_DOCUMENT, Descriptor, Image, read_image
from preserve.stores.damage import Damaged, damaged

MAX_RATIO = 100  # programs shrink to a half or a tenth; only a bomb has more than this of nothing
HARMLESS = 1 << 28  # bytes that a layer may unpack to whatever its ratio: a second's work
MAX_LAYER = 1 << 40  # bytes of one unpacked layer
PIECE = 1 << 20


def archived_images(
    store: Archive, pins: Iterable[ImagePin], payload: Mapping[str, FilePin]
) -> tuple[list[Image], list[Finding]]:
    """Follow each pinned image through its blobs; ``payload`` are the files below data/ as they were hashed."""
    images: dict[Digest, Image] = {}
    faults: list[Finding] = []
    for pin in pins:
        try:
            images[pin.manifest_digest] = _image(store, pin, payload)
        except Damaged as error:
            faults.append(error.finding)
        except DigestMismatch as error:
            faults.append(Finding(path=_name(pin.manifest_digest), problem=error.message))
    wanted = {_name(blob.digest) for image in images.values() for blob in image.blobs}
    strange = [] if faults else sorted(n for n in payload if n.startswith(BLOBS) and n not in wanted)
    faults += [Finding(path=name, problem="is a blob of no image of the plan") for name in strange]
    return list(images.values()), faults


def layer_faults(store: Archive, images: Iterable[Image]) -> Iterator[Finding]:
    """Unpack each layer, in memory and no further than its digest, and compare it with the config's diff_id."""
    layers: dict[Digest, Descriptor] = {}
    declared: dict[Digest, dict[Digest, None]] = {}  # one layer may be named by several images, each with its diff_id
    for image in images:
        for layer, diff_id in zip(image.layers, image.diff_ids, strict=True):
            layers[layer.digest] = layer
            declared.setdefault(layer.digest, {})[diff_id] = None
    for digest, diff_ids in declared.items():
        yield from _layer_faults(store, layers[digest], tuple(diff_ids))


def _image(store: Archive, pin: ImagePin, payload: Mapping[str, FilePin]) -> Image:
    manifest = _document(store, pin.manifest_digest, payload, None)
    image = read_image(manifest, lambda config: _document(store, config.digest, payload, config.size))
    for what, expected, found in (
        ("config", pin.config_digest, image.config.digest),
        ("list of layers (diff_ids)", list(pin.diff_ids), list(image.diff_ids)),
        ("platform", pin.platform, image.platform),
    ):
        if expected != found:
            raise damaged(_name(pin.manifest_digest), f"its {what} is not the pinned one", expected, found)
    for layer in image.layers:
        _require(payload, layer.digest, layer.size)
    return image


def _document(store: Archive, digest: Digest, payload: Mapping[str, FilePin], size: int | None) -> bytes:
    _require(payload, digest, size)
    if payload[_name(digest)].size > MAX_DOCUMENT:
        raise damaged(_name(digest), "is larger than an OCI document may be", f"at most {MAX_DOCUMENT} bytes")
    return b"".join(store.chunks(_name(digest)))


def _require(payload: Mapping[str, FilePin], digest: Digest, size: int | None) -> None:
    found = payload.get(_name(digest))
    if found is None:
        raise damaged(_name(digest), "this blob of an image is not in the archive", digest)
    if found.sha256 != digest or size not in (None, found.size):
        raise damaged(
            _name(digest), "is not the blob it is named after", digest, f"{found.sha256} of {found.size} bytes"
        )


def _name(digest: Digest) -> str:
    return BLOBS + digest.hex


def _layer_faults(store: Archive, layer: Descriptor, diff_ids: Iterable[Digest]) -> Iterator[Finding]:
    state, size = hashlib.sha256(), 0
    try:
        for piece in unpacked_layer(store.chunks(_name(layer.digest))):
            state.update(piece)
            size += len(piece)
            if size > min(MAX_LAYER, max(HARMLESS, MAX_RATIO * layer.size)):
                yield Finding(path=_name(layer.digest), problem="unpacks to more than can be: not unpacked further")
                return
    except zlib.error as error:
        yield Finding(path=_name(layer.digest), problem=f"cannot be unpacked: {error}")
        return
    found = "sha256:" + state.hexdigest()
    for diff_id in diff_ids:
        if found != diff_id:
            yield Finding(path=_name(layer.digest), problem="unpacks to another layer", expected=diff_id, found=found)


def unpacked_layer(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a layer's tar stream in bounded pieces: as it is, or out of (concatenated) gzip.

    Raises:
        zlib.error: it is compressed otherwise (zstd), damaged or cut short.
    """
    first = next(chunks, b"")
    if first.startswith(b"\x28\xb5\x2f\xfd"):
        raise zlib.error("it is compressed with zstd, which this version does not unpack; its own digest holds")
    if not first.startswith(b"\x1f\x8b"):
        yield first
        yield from chunks
        return
    gunzip = zlib.decompressobj(wbits=31)
    for chunk in itertools.chain((first,), chunks):
        rest = chunk
        while rest:
            if gunzip.eof:
                gunzip = zlib.decompressobj(wbits=31)
            yield gunzip.decompress(rest, PIECE)
            rest = gunzip.unconsumed_tail or gunzip.unused_data
    yield gunzip.flush()
    if not gunzip.eof:
        raise zlib.error("it is cut short")
