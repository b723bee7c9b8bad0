"""From what a place serves to the image of one platform: indexes, platforms, and what cannot be preserved.

Image specification 1.1 (image-index.md, manifest.md); Docker's manifest lists and schema 2 are the same graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from preserve.digest import Digest
from preserve.documents.counted import counted
from preserve.documents.lockfile import ImagePin
from preserve.errors import DigestMismatch, UserError
from preserve.oci import CONFIG, DOCKER_INDEX, INDEX, Descriptor, Image, descriptor, load_json, read_image

DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
MAX_DEPTH = 3  # indexes in indexes; buildx makes two at most
MAX_ENTRIES = 1000  # of one index

Fetch = Callable[[Descriptor], bytes]  # the checked bytes of a manifest, index or config

_ALIASES = {"x86_64": "amd64", "aarch64": "arm64"}
_USUAL_VARIANT = {"arm64": "v8", "arm": "v7", "amd64": "v1"}  # what a missing variant means (containerd's rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What an image runs on; a variant that is the usual one of its architecture is left out."""

    os: str
    architecture: str
    variant: str | None = None

    @classmethod
    def of(cls, os: str, architecture: str, variant: str | None = None) -> Platform:
        """Make one, other spellings (x86_64, aarch64) put right."""
        architecture = _ALIASES.get(architecture, architecture)
        usual = _USUAL_VARIANT.get(architecture)
        return cls(os=os, architecture=architecture, variant=None if variant == usual else variant or None)

    @classmethod
    def read(cls, text: str) -> Platform:
        """Read ``os/architecture[/variant]``.

        Raises:
            UserError: it has another form.
        """
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise UserError(
                f"{text!r} is not a platform", hint="write os/architecture, as linux/amd64 or linux/arm64/v8"
            )
        return cls.of(*parts)

    def __str__(self) -> str:
        """Give ``os/architecture[/variant]``."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def platform_manifest(document: bytes, *, platform: str, what: str, fetch: Fetch) -> bytes:
    """The manifest of one platform's image: ``document`` itself, or the one its index (or an inner one) names.

    ``what`` names the image in messages.

    Raises:
        UserError: no or several images for that platform, or a manifest of schema 1.
        DigestMismatch: a document is malformed.
    """
    wanted = Platform.read(platform)
    value = read_document(document, what)
    if "manifests" not in value:
        return document
    return fetch(_choose(tuple(_entries(value, what, fetch, MAX_DEPTH)), wanted, what, fetch))


def read_document(document: bytes, what: str) -> dict[str, Any]:
    """Read a manifest or an index, refusing what could be taken for both.

    Raises:
        UserError: it is of the abandoned schema 1.
        DigestMismatch: it is no JSON object, or both an index and a manifest.
    """
    value = load_json(document, what)
    if value.get("schemaVersion") == 1:
        raise UserError(
            f"{what}: its manifest is of schema 1, which names no config and fixes no image",
            hint="push the image again with a current docker or skopeo: that makes a schema 2 or OCI manifest",
        )
    if "manifests" in value and ("layers" in value or "config" in value):
        raise DigestMismatch(f"{what}: its manifest is both an index and an image")
    return value


def read_checked(manifest: bytes, *, what: str, fetch: Fetch) -> Image:
    """Read an image's manifest and config, refusing what cannot be preserved.

    Raises:
        UserError: it is another artifact, or has layers that registries may not pass on.
        DigestMismatch: a document is malformed.
    """
    value = read_document(manifest, what)
    config = value.get("config")
    kind = config.get("mediaType", "") if isinstance(config, dict) else ""
    if kind not in ("", CONFIG, DOCKER_CONFIG):
        raise UserError(f"{what}: not a container image but an artifact of type {kind!r}")
    layers = value.get("layers")
    for layer in layers if isinstance(layers, list) else ():
        _refuse_foreign(layer, what)
    return read_image(manifest, fetch)


def make_pin(manifest: bytes, *, reference: str, platform: str, fetch: Fetch) -> ImagePin:
    """Pin the image of ``manifest``, which must be for ``platform``.

    Raises:
        UserError: it is for another platform, or cannot be preserved.
        DigestMismatch: a document is malformed.
    """
    image = read_checked(manifest, what=reference, fetch=fetch)
    found, wanted = _platform_of(load_json(fetch(image.config), reference)), Platform.read(platform)
    if (found.os, found.architecture) != (wanted.os, wanted.architecture) or (
        wanted.variant and found.variant and wanted.variant != found.variant
    ):
        raise UserError(
            f"{reference}: the image is for {found}, not for {wanted}",
            hint="name an image that exists for this platform",
        )
    return ImagePin(
        reference=reference,
        platform=platform,
        manifest_digest=image.manifest.digest,
        config_digest=image.config.digest,
        diff_ids=image.diff_ids,
    )


def is_image_config(data: bytes) -> bool:
    """Whether a blob is an image's config, whose digest Docker shows as the image id."""
    try:
        value = load_json(data, "blob")
    except DigestMismatch:
        return False
    return isinstance(value.get("rootfs"), dict) and "diff_ids" in value["rootfs"]


def image_id_mistaken(reference: str, digest: Digest, *, manifest: Digest | None = None) -> UserError:
    """The error for a reference with an image id where a manifest digest belongs; ``manifest`` is the right one."""
    right = f"write @{manifest}" if manifest else "docker images --digests shows the digest it is served by"
    return UserError(
        f"{reference}: {digest} is an image id (the digest of the image's config), not the digest of a manifest",
        hint=f"{right}; an image that only a Docker engine has is docker-daemon:{digest}",
    )


def _entries(
    index: Mapping[str, Any], what: str, fetch: Fetch, depth: int
) -> Iterator[tuple[Platform | None, Descriptor]]:
    """Yield the manifests of an index and of indexes inside, each with its platform (``None``: not said)."""
    entries = index["manifests"]
    if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
        raise DigestMismatch(f"{what}: its index is no list of at most {MAX_ENTRIES} manifests")
    for entry in entries:
        if not isinstance(entry, dict):
            raise DigestMismatch(f"{what}: an entry of its index is no descriptor")
        blob = descriptor(entry, what)
        if blob.media_type not in (INDEX, DOCKER_INDEX):
            yield _platform_of(entry["platform"]) if isinstance(entry.get("platform"), dict) else None, blob
        elif depth == 0:
            raise DigestMismatch(f"{what}: indexes inside indexes, more than {MAX_DEPTH} deep")
        else:
            inner = read_document(fetch(blob), what)
            yield from _entries({"manifests": inner.get("manifests")}, what, fetch, depth - 1)


def _choose(
    entries: tuple[tuple[Platform | None, Descriptor], ...], wanted: Platform, what: str, fetch: Fetch
) -> Descriptor:
    known = [(platform or _look(blob, what, fetch), blob) for platform, blob in entries]
    close = [(p, blob) for p, blob in known if (p.os, p.architecture) == (wanted.os, wanted.architecture)]
    # Without a variant asked for, the usual one is meant; where only one variant exists, that one.
    exact = [blob for p, blob in close if p.variant == wanted.variant]
    found = {blob.digest: blob for blob in exact or ([blob for _, blob in close] if not wanted.variant else [])}
    if len(found) == 1:
        return next(iter(found.values()))
    have = ", ".join(sorted({str(platform) for platform, _ in known if platform.os != "unknown"})) or "none"
    if not found:
        raise UserError(f"{what}: no image for {wanted}; there are {have}")
    raise UserError(
        f"{what}: {counted(len(found), 'image')} for {wanted}",
        hint="name one by its digest: " + ", ".join(sorted(found)),
    )


def _look(blob: Descriptor, what: str, fetch: Fetch) -> Platform:
    """The platform of an image whose index does not say it."""
    value = read_document(fetch(blob), what)
    if not isinstance(value.get("config"), dict) or "layers" not in value:
        return Platform(os="unknown", architecture="unknown")
    config = descriptor(value["config"], what)
    if config.media_type not in ("", CONFIG, DOCKER_CONFIG):
        return Platform(os="unknown", architecture="unknown")
    return _platform_of(load_json(fetch(config), what))


def _platform_of(value: Mapping[str, Any]) -> Platform:
    return Platform.of(
        str(value.get("os", "unknown")), str(value.get("architecture", "unknown")), value.get("variant") or None
    )


def _refuse_foreign(layer: Any, what: str) -> None:
    kind = str(layer.get("mediaType", "")) if isinstance(layer, dict) else ""
    if "nondistributable" in kind or ".foreign." in kind or (isinstance(layer, dict) and layer.get("urls")):
        raise UserError(
            f"{what}: layer {layer.get('digest')} ({kind}) may not be passed on and lies outside the registry",
            hint="an archive with it could not be replayed; use an image whose layers are all in the registry",
        )
