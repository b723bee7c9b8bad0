"""OCI image layouts on disk: blobs by digest, hashed when written and again when read.

Image-layout and image specification 1.1. Docker's schema 2 manifests are read as well, being the same graph.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from preserve.digest import CHUNK, Digest, hash_file
from preserve.errors import DigestMismatch, MachineError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
REPOSITORY = "preserve.local/image"  # a name of ours, so that "docker image prune" leaves the image alone
MAX_DOCUMENT = 8 << 20  # bytes; manifests and configs are small, and a larger one is refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A blob by media type, digest and size in bytes."""

    media_type: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One platform's image as its manifest and config describe it."""

    manifest: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[Digest, ...]
    platform: str
    settings: Mapping[str, Any]  # the config's "config": Env, Entrypoint, Cmd, WorkingDir …

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """All blobs, manifest first, each once."""
        return tuple({blob.digest: blob for blob in (self.manifest, self.config, *self.layers)}.values())


def load_json(data: bytes, what: str) -> dict[str, Any]:
    """Read an OCI document.

    Raises:
        DigestMismatch: not a JSON object, or a key stands twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key stands twice")
        return dict(pairs)

    try:
        value = json.loads(data, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise DigestMismatch(f"{what} is not a valid OCI document: {error}") from error
    if not isinstance(value, dict):
        raise DigestMismatch(f"{what} is not a valid OCI document: not an object")
    return value


def descriptor(value: Mapping[str, Any], what: str) -> Descriptor:
    """Read a descriptor.

    Raises:
        DigestMismatch: it lacks a digest or a size, or they have another form.
    """
    try:
        size = value["size"]
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ValueError(f"size {size!r}")
        return Descriptor(media_type=str(value.get("mediaType", "")), digest=Digest(value["digest"]), size=size)
    except (KeyError, TypeError, ValueError) as error:
        raise DigestMismatch(f"{what}: not a valid descriptor: {error}") from error


class Layout:
    """An OCI image layout folder; ``create`` makes an empty one where there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> Layout:
        """Make the folder, ``oci-layout`` and an empty index, keeping what is there."""
        blobs = self.path / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        if not (self.path / "oci-layout").exists():
            _replace(self.path / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        if not (self.path / "index.json").exists():
            _replace(self.path / "index.json", _index(()))
        return self

    def blob(self, digest: Digest) -> Path:
        """Path of a blob, there or not."""
        return self.path / "blobs" / "sha256" / digest.hex

    def has(self, blob: Descriptor) -> bool:
        """Whether a blob of this digest and size lies here (not hashed)."""
        with contextlib.suppress(OSError):
            return self.blob(blob.digest).stat().st_size == blob.size
        return False

    def add(self, chunks: Iterator[bytes], *, expected: Digest | None = None, size: int | None = None) -> Descriptor:
        """Write a blob, hashed while it is written; it gets its name only when digest and size are as expected.

        Raises:
            DigestMismatch: the bytes are others.
        """
        folder = self.path / "blobs" / "sha256"
        state, count = hashlib.sha256(), 0
        with _temporary(folder) as stream:
            for chunk in chunks:
                state.update(chunk)
                stream.write(chunk)
                count += len(chunk)
                if size is not None and count > size:
                    break
            found = Digest("sha256:" + state.hexdigest())
            if (expected is not None and found != expected) or (size is not None and count != size):
                raise DigestMismatch(
                    f"blob {expected or 'of an image'}: expected {size} bytes of that digest, found {count} of {found}"
                )
            stream.flush()
            os.fsync(stream.fileno())
            Path(stream.name).chmod(0o644)
            Path(stream.name).replace(self.blob(found))
        return Descriptor(media_type="", digest=found, size=count)

    def add_bytes(self, data: bytes, *, expected: Digest | None = None) -> Descriptor:
        """Write a small blob."""
        return self.add(iter((data,)), expected=expected)

    def read(self, digest: Digest, *, size: int | None = None) -> bytes:
        """Bytes of a small blob (manifest, config), checked.

        Raises:
            DigestMismatch: it is missing, too large, or has another digest or size.
        """
        data: bytes | None = self._stored(
            digest, lambda path: path.read_bytes() if path.stat().st_size <= MAX_DOCUMENT else None
        )
        if data is None:
            raise DigestMismatch(f"blob {digest} is larger than an OCI document may be ({MAX_DOCUMENT} bytes)")
        if Digest.of(data) != digest or (size is not None and len(data) != size):
            raise DigestMismatch(f"blob {digest} of the image layout has other content: found {Digest.of(data)}")
        return data

    def verify(self, blob: Descriptor) -> None:
        """Hash one blob of any size.

        Raises:
            DigestMismatch: it is missing or has another digest or size.
        """
        pin = self._stored(blob.digest, hash_file)
        if pin.sha256 != blob.digest or pin.size != blob.size:
            raise DigestMismatch(
                f"blob {blob.digest} of the image layout has other content: "
                f"expected {blob.size} bytes, found {pin.size} bytes of {pin.sha256}",
                hint="remove the layout and copy the image again",
            )

    def stream(self, blob: Descriptor) -> Iterator[bytes]:
        """Yield a blob's bytes, hashing them; the end is only reached if they are what the digest says.

        Raises:
            DigestMismatch: it is missing or has another digest or size.
        """
        state, count = hashlib.sha256(), 0
        with self._stored(blob.digest, lambda path: path.open("rb")) as stream:
            while chunk := stream.read(CHUNK):
                state.update(chunk)
                count += len(chunk)
                yield chunk
        if "sha256:" + state.hexdigest() != blob.digest or count != blob.size:
            raise DigestMismatch(f"blob {blob.digest} of the image layout has other content")

    def image(self, manifest_digest: Digest) -> Image:
        """Read an image's manifest and config, both checked; layers are not read.

        Raises:
            DigestMismatch: a document is missing, has another digest, or is no image manifest.
        """
        raw = self.read(manifest_digest)
        return read_image(raw, lambda config: self.read(config.digest, size=config.size))

    def verified_image(self, manifest_digest: Digest, config_digest: Digest, diff_ids: tuple[Digest, ...]) -> Image:
        """Check an image against its pin, every blob hashed.

        Raises:
            DigestMismatch: a blob is missing or has another digest; or config or layers are not the pinned ones.
        """
        image = self.image(manifest_digest)
        if image.config.digest != config_digest:
            raise DigestMismatch(
                f"image {manifest_digest}: config digest is {image.config.digest}, expected {config_digest}"
            )
        if image.diff_ids != diff_ids:
            raise DigestMismatch(f"image {manifest_digest}: its layers' diff_ids are not the pinned ones")
        for blob in image.layers:
            self.verify(blob)
        return image

    def list_image(self, image: Image) -> None:
        """Name an image in index.json (once); callers hold the analysis' lock."""
        index = load_json((self.path / "index.json").read_bytes(), "index.json")
        listed = {entry["digest"]: entry for entry in index.get("manifests", ())}
        listed[image.manifest.digest] = _entry(image)
        _replace(self.path / "index.json", _index(tuple(listed[digest] for digest in sorted(listed))))

    def _stored(self, digest: Digest, use: Any) -> Any:
        try:
            return use(self.blob(digest))
        except FileNotFoundError as error:
            raise DigestMismatch(f"blob {digest} is not in the image layout") from error


def read_image(manifest: bytes, config_of: Any) -> Image:
    """Read a manifest and its config; ``config_of`` gives the checked bytes for the config's descriptor.

    Raises:
        DigestMismatch: it is not the manifest of one image, or its layers and diff_ids differ in number.
    """
    digest = Digest.of(manifest)
    value = load_json(manifest, f"manifest {digest}")
    if "manifests" in value or not isinstance(value.get("layers"), list) or not isinstance(value.get("config"), dict):
        raise DigestMismatch(f"manifest {digest} is not the manifest of one image")
    config = descriptor(value["config"], f"config of {digest}")
    layers = tuple(descriptor(layer, f"layer of {digest}") for layer in value["layers"])
    settings = load_json(config_of(config), f"config {config.digest}")
    try:
        diff_ids = tuple(Digest(diff_id) for diff_id in settings["rootfs"]["diff_ids"])
        platform = f"{settings['os']}/{settings['architecture']}"
    except (KeyError, TypeError) as error:
        raise DigestMismatch(f"config {config.digest} is not an image's config: {error}") from error
    if len(diff_ids) != len(layers):
        raise DigestMismatch(
            f"image {digest} has another number of layers ({len(layers)}) than of diff_ids ({len(diff_ids)})"
        )
    return Image(
        manifest=Descriptor(media_type=str(value.get("mediaType", MANIFEST)), digest=digest, size=len(manifest)),
        config=config,
        layers=layers,
        diff_ids=diff_ids,
        platform=platform,
        settings=_settings(settings, config.digest),
    )


def _settings(document: Mapping[str, Any], digest: Digest) -> Mapping[str, Any]:
    """Give what a config says of running the image; its variables are such as a program can be given."""
    found = document.get("config") or {}
    variables = found.get("Env") or [] if isinstance(found, dict) else None
    if not isinstance(variables, list) or not all(isinstance(entry, str) and _fit(entry) for entry in variables):
        raise DigestMismatch(f"config {digest} is not an image's config: its settings have another form")
    return {**found, "Env": variables}


def _fit(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= sign <= "\udfff" for sign in text)


def tables(images: Sequence[Image]) -> dict[str, bytes]:
    """Give the files that make a folder of blobs an OCI layout and, at once, what ``docker load`` takes, by name.

    Each image is listed under the digits of its manifest's digest (image specification 1.1, annotation
    ``org.opencontainers.image.ref.name``; Docker's form of it in ``manifest.json``).
    """
    listed = sorted({image.manifest.digest: image for image in images}.items())
    entries = [_entry(image) for _, image in listed]
    saved = [
        {
            "Config": blob_name(image.config),
            "RepoTags": [f"{REPOSITORY}:{digest.hex}"],
            "Layers": [blob_name(layer) for layer in image.layers],
        }
        for digest, image in listed
    ]
    return {
        "index.json": _index(tuple(entries)),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "manifest.json": json.dumps(saved, sort_keys=True, separators=(",", ":")).encode(),
    }


def _entry(image: Image) -> dict[str, Any]:
    operating_system, _, architecture = image.platform.partition("/")
    digest = image.manifest.digest
    return {
        "mediaType": image.manifest.media_type or MANIFEST,
        "digest": digest,
        "size": image.manifest.size,
        "platform": {"os": operating_system, "architecture": architecture},
        "annotations": {
            "io.containerd.image.name": f"{REPOSITORY}:{digest.hex}",
            "org.opencontainers.image.ref.name": digest.hex,
        },
    }


def blob_name(blob: Descriptor) -> str:
    """Name of a blob within a layout."""
    return f"blobs/sha256/{blob.digest.hex}"


def _index(manifests: tuple[dict[str, Any], ...]) -> bytes:
    value = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _replace(path: Path, data: bytes) -> None:
    with _temporary(path.parent) as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
        Path(stream.name).chmod(0o644)
        Path(stream.name).replace(path)


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[BinaryIO]:
    """Yield a file to write beside; it is gone at the end unless it was renamed."""
    try:
        handle, name = tempfile.mkstemp(dir=folder, prefix=".writing-")
    except OSError as error:
        raise MachineError(f"cannot write in {folder}: {error.strerror}") from error
    with os.fdopen(handle, "wb") as raw:
        stream = _Named(raw, name)
        try:
            yield stream  # type: ignore[misc]
        finally:
            Path(name).unlink(missing_ok=True)


class _Named:
    """A binary file that knows its path."""

    def __init__(self, raw: BinaryIO, name: str) -> None:
        self.name, self._raw = name, raw
        self.write, self.flush, self.fileno = raw.write, raw.flush, raw.fileno
