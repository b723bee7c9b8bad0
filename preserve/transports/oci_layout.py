"""Images in OCI image layouts on disk: ``oci:folder[:tag]`` or ``oci:folder@sha256:…`` (image-layout.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preserve.digest import CHUNK, Digest
from preserve.documents.counted import counted
from preserve.documents.lockfile import ImagePin
from preserve.errors import DigestMismatch, MachineError, UserError
from preserve.interfaces import Progress, Silent
from preserve.oci import MAX_DOCUMENT, Descriptor, Layout, descriptor, load_json
from preserve.transports import split_reference
from preserve.transports.copying import copy_image
from preserve.transports.selection import image_id_mistaken, is_image_config, make_pin, platform_manifest

TAG = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutName:
    """A layout's folder as written, and which of its images: by tag, by digest, or (neither) the only one."""

    folder: str
    tag: str | None = None
    digest: Digest | None = None


class OciLayoutTransport:
    """Images in layouts; relative folders start at ``root``, the analysis' folder.

    Blobs are copied, never linked: a later change of the author's layout must not reach what was preserved.
    """

    scheme = "oci"

    def __init__(self, *, root: Path, progress: Progress | None = None) -> None:
        self._root = root
        self._progress = progress or Silent()

    def resolve(self, reference: str, *, platform: str) -> ImagePin:
        """Pin the image of ``platform``; see ``interfaces.Transport``."""
        name = read_layout_name(reference)
        source = LayoutSource(self._open(name, reference))
        root = self._root_document(name, source, reference)
        manifest = platform_manifest(root, platform=platform, what=reference, fetch=source.document)
        return make_pin(manifest, reference=reference, platform=platform, fetch=source.document)

    def copy_to_layout(self, image: ImagePin, layout: Path) -> None:
        """Copy the pinned image; see ``interfaces.Transport``."""
        try:
            source = LayoutSource(self._open(read_layout_name(image.reference), image.reference))
        except UserError as error:  # it was there when the image was pinned
            raise MachineError(error.message, hint=error.hint) from error
        copy_image(image, source, layout, progress=self._progress)

    def _open(self, name: LayoutName, reference: str) -> Layout:
        layout = Layout(self._root / name.folder)
        marker = layout.path / "oci-layout"
        if not marker.is_file() or not (layout.path / "index.json").is_file():
            raise UserError(f"{reference}: {name.folder} is not an OCI image layout", hint=f"{marker} is missing")
        version = _small(marker, reference).get("imageLayoutVersion")
        if version != "1.0.0":
            raise UserError(f"{reference}: its layout has version {version!r}; only 1.0.0 is defined")
        return layout

    def _root_document(self, name: LayoutName, source: LayoutSource, reference: str) -> bytes:
        if name.digest:
            return self._by_digest(name.digest, source, reference)
        entries = _small(source.layout.path / "index.json", reference).get("manifests")
        listed = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        found = [entry for entry in listed if name.tag in (None, _tag(entry))]
        if len({entry.get("digest") for entry in found}) == 1:
            return source.document(descriptor(found[0], reference))
        have = ", ".join(sorted(f":{_tag(entry)}" if _tag(entry) else f"@{entry.get('digest')}" for entry in listed))
        if not found:
            raise UserError(f"{reference}: the layout lists no such image", hint=f"it has {have or 'none'}")
        raise UserError(
            f"{reference}: the layout has {counted(len(found), 'image')}", hint=f"name one: {name.folder} and {have}"
        )

    def _by_digest(self, digest: Digest, source: LayoutSource, reference: str) -> bytes:
        if not source.layout.blob(digest).is_file():
            raise UserError(f"{reference}: the layout has no {digest}")
        document = source.manifest(digest)
        if is_image_config(document):
            raise image_id_mistaken(reference, digest)
        return document


class LayoutSource:
    """A layout as a source of blobs to copy."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def manifest(self, digest: Digest) -> bytes:
        """A manifest's bytes, checked."""
        return self.layout.read(digest)

    def document(self, blob: Descriptor) -> bytes:
        """A small blob's bytes, checked."""
        return self.layout.read(blob.digest, size=blob.size)

    def chunks(self, blob: Descriptor) -> Iterator[bytes]:
        """A blob's bytes in pieces."""
        try:
            stream = self.layout.blob(blob.digest).open("rb")
        except FileNotFoundError as error:
            raise DigestMismatch(f"blob {blob.digest} is not in the image layout {self.layout.path}") from error
        with stream:
            while chunk := stream.read(CHUNK):
                yield chunk


def read_layout_name(reference: str) -> LayoutName:
    """Read ``oci:folder``, ``oci:folder:tag`` or ``oci:folder@sha256:…``.

    Raises:
        UserError: it has another form.
    """
    scheme, text = split_reference(reference)
    folder, at, digest = text.partition("@sha256:")
    if scheme != "oci" or not folder:
        raise UserError(
            f"{reference}: not an OCI layout", hint="write oci:folder, oci:folder:tag or oci:folder@sha256:…"
        )
    if at:
        try:
            return LayoutName(folder=folder, digest=Digest("sha256:" + digest))
        except DigestMismatch as error:
            raise UserError(f"{reference}: {error.message}", hint=error.hint) from error
    head, colon, tag = folder.rpartition(":")
    if colon and head and tag and "/" not in tag:
        return LayoutName(folder=head, tag=tag)
    return LayoutName(folder=folder)


def _tag(entry: Mapping[str, Any]) -> str | None:
    annotations = entry.get("annotations")
    return annotations.get(TAG) if isinstance(annotations, dict) else None


def _small(path: Path, reference: str) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise MachineError(f"{reference}: cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_DOCUMENT:
        raise UserError(f"{reference}: {path.name} is larger than {MAX_DOCUMENT} bytes")
    return load_json(data, str(path))
