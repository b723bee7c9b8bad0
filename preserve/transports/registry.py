"""Images in container registries: ``docker://host/name:tag`` or ``host/name@sha256:…``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from preserve.digest import Digest
from preserve.documents.lockfile import ImagePin
from preserve.errors import DigestMismatch, MachineError, UserError
from preserve.interfaces import Progress, Silent
from preserve.oci import DOCKER_INDEX, DOCKER_MANIFEST, INDEX, MANIFEST, MAX_DOCUMENT, Descriptor
from preserve.transports.copying import Effort, copy_image
from preserve.transports.credentials import Credentials
from preserve.transports.distribution import Access, Repository
from preserve.transports.names import RegistryName, read_name
from preserve.transports.selection import image_id_mistaken, is_image_config, make_pin, platform_manifest

THREADS = 3  # layers under way at once: enough to fill a line, few enough not to be throttled
TRIES = 3  # of a blob that came with other bytes


class RegistryTransport:
    """Images in registries, by plain HTTP only on this machine.

    ``auth_file`` is Docker's config.json; ``ca_file`` (PEM) adds authorities to the system's; ``proxies`` maps
    ``http`` and ``https`` to addresses; ``environment`` is what Docker's credential helpers may see.
    """

    scheme = "docker"

    def __init__(
        self,
        *,
        auth_file: Path | None = None,
        ca_file: Path | None = None,
        progress: Progress | None = None,
        proxies: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        credentials = Credentials(auth_file, environment=environment)
        self.access = Access(credentials=credentials, ca_file=ca_file, proxies=proxies or {})
        self._progress = progress or Silent()

    def resolve(self, reference: str, *, platform: str) -> ImagePin:
        """Pin the image of ``platform``; see ``interfaces.Transport``."""
        name = read_name(reference)
        source = RegistrySource(name, self.access)
        # First, since some registries answer 500 when an image id is asked for as a manifest.
        if name.digest and is_image_config(source.repository.small_blob(name.digest) or b""):
            raise image_id_mistaken(reference, name.digest, manifest=_tagged(source.repository, name))
        root = source.repository.manifest(name.selector)
        if root is None:
            raise UserError(
                f"{reference}: the registry {name.host} has no image {name.repository} {name.selector!r}",
                hint="check the name, the tag or the digest",
            )
        manifest = platform_manifest(root, platform=platform, what=reference, fetch=source.document)
        return make_pin(manifest, reference=reference, platform=platform, fetch=source.document)

    def copy_to_layout(self, image: ImagePin, layout: Path) -> None:
        """Copy the pinned image; see ``interfaces.Transport``."""
        source = RegistrySource(read_name(image.reference), self.access)
        copy_image(image, source, layout, progress=self._progress, effort=Effort(threads=THREADS, tries=TRIES))


class RegistrySource:
    """A repository as a source of blobs to copy."""

    def __init__(self, name: RegistryName, access: Access) -> None:
        self.repository = Repository(name, access)
        self._name = name

    def manifest(self, digest: Digest) -> bytes:
        """A manifest's bytes, checked."""
        return self._there(self.repository.manifest(digest), digest)

    def document(self, blob: Descriptor) -> bytes:
        """The bytes of a manifest, index or config, checked."""
        if blob.media_type in (MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX):
            data = self.manifest(blob.digest)
        elif blob.size > MAX_DOCUMENT:
            raise DigestMismatch(f"{self._name}: config {blob.digest} is larger than {MAX_DOCUMENT} bytes")
        else:
            data = self._there(self.repository.small_blob(blob.digest), blob.digest)
        if len(data) != blob.size:
            raise DigestMismatch(f"{self._name}: {blob.digest}: expected {blob.size} bytes, found {len(data)}")
        return data

    def chunks(self, blob: Descriptor) -> Iterator[bytes]:
        """A blob's bytes in pieces."""
        return self.repository.chunks(blob)

    def _there(self, data: bytes | None, digest: Digest) -> bytes:
        if data is None:
            raise MachineError(
                f"{self._name}: the registry does not have {digest}",
                hint="it was removed, or never copied there whole; use an archive that holds the image",
            )
        return data


def _tagged(repository: Repository, name: RegistryName) -> Digest | None:
    """The digest that the reference's tag has, if it is of the very image whose id was given."""
    root = repository.manifest(name.tag) if name.tag else None
    return Digest.of(root) if root is not None and name.digest is not None and name.digest.encode() in root else None
