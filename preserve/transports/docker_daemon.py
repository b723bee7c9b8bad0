"""Images that a Docker engine has: ``docker-daemon:name:tag`` or ``docker-daemon:sha256:<image id>``."""

from __future__ import annotations

import contextlib
import io
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import docker.constants
from docker.errors import APIError, BuildError, DockerException, ImageNotFound

from preserve.digest import Digest
from preserve.documents.lockfile import ImagePin
from preserve.errors import DigestMismatch, MachineError, UserError
from preserve.interfaces import Progress, Silent
from preserve.oci import Layout, load_json
from preserve.transports import split_reference
from preserve.transports.copying import copy_image
from preserve.transports.oci_layout import LayoutSource
from preserve.transports.saved import made_manifest, read_saved
from preserve.transports.selection import make_pin, platform_manifest

TIMEOUT = 600  # seconds; an engine may write the whole export to its own disk before the first byte


class DockerDaemonTransport:
    """Images in the Docker engine at ``host`` (``None``: the usual socket).

    An engine gives layers and config but, with a graph driver, no manifest; finding the manifest's digest takes an
    export. It is kept in the OCI layout at ``scratch``, so that resolving and copying cost one export together; with
    ``scratch`` the layout that images are copied to, copying costs nothing but hashing.
    """

    scheme = "docker-daemon"

    def __init__(self, *, host: str | None = None, scratch: Path, progress: Progress | None = None) -> None:
        self._host = host
        self._scratch = Layout(scratch)
        self._progress = progress or Silent()

    def resolve(self, reference: str, *, platform: str) -> ImagePin:
        """Pin the image of ``platform``; see ``interfaces.Transport``."""
        name = read_daemon_name(reference)
        with _connected(self._host) as client:
            image_id = _image_id(client, name)
            if image_id is None:
                raise UserError(
                    f"{reference}: the Docker engine has no image {name!r}",
                    hint="docker images shows what it has; docker pull or docker build makes one",
                )
            root = self._held(image_id, platform) or self._export(client, image_id, reference)
        source = LayoutSource(self._scratch)
        manifest = platform_manifest(root, platform=platform, what=reference, fetch=source.document)
        pin = make_pin(manifest, reference=reference, platform=platform, fetch=source.document)
        self._scratch.add_bytes(manifest, expected=pin.manifest_digest)
        return pin

    def copy_to_layout(self, image: ImagePin, layout: Path) -> None:
        """Copy the pinned image, exported anew if ``scratch`` lacks it; see ``interfaces.Transport``."""
        if not self._complete(image):
            self._export_pinned(image)
        copy_image(image, LayoutSource(self._scratch), layout, progress=self._progress)

    def _export_pinned(self, image: ImagePin) -> None:
        # By its ids first: the name may mean another image by now.
        names = (image.config_digest, image.manifest_digest, read_daemon_name(image.reference))
        with _connected(self._host) as client:
            found = next((found for name in names if (found := _image_id(client, name))), None)
            if found is None:
                raise MachineError(
                    f"{image.reference}: the Docker engine no longer has image {image.config_digest}",
                    hint="pull, load or build it again, or use an archive that holds it",
                )
            root = self._export(client, found, image.reference)
        source = LayoutSource(self._scratch)
        manifest = platform_manifest(root, platform=image.platform, what=image.reference, fetch=source.document)
        if Digest.of(manifest) != image.manifest_digest:
            raise DigestMismatch(
                f"{image.reference}: manifest not as pinned: expected {image.manifest_digest}, "
                f"found {Digest.of(manifest)}",
                hint="the name means another image now: lock again with: preserve lock --update",
            )
        self._scratch.add_bytes(manifest, expected=image.manifest_digest)

    def _export(self, client: docker.DockerClient, image_id: Digest, reference: str) -> bytes:
        try:
            self._scratch.create()
            with io.BufferedReader(_Export(self._chunks(client, image_id, reference)), 1 << 20) as stream:
                return read_saved(stream, image_id, self._scratch)
        except OSError as error:
            raise MachineError(
                f"{reference}: cannot keep it in {self._scratch.path}: {error.strerror or error}",
                hint="see that the folder is writable and has room",
            ) from error

    def _chunks(self, client: docker.DockerClient, image_id: Digest, reference: str) -> Iterator[bytes]:
        done = 0
        try:
            for chunk in client.api.get_image(image_id, chunk_size=1 << 20):
                yield chunk
                done += len(chunk)
                self._progress.bytes_done(f"exporting {reference}", done, None)
        except (DockerException, OSError) as error:  # requests' errors are OSErrors
            raise MachineError(f"{reference}: the Docker engine's export failed: {error}") from error

    def _held(self, image_id: Digest, platform: str) -> bytes | None:
        """The manifest or index, if an earlier export of this image is still whole in ``scratch``."""
        try:
            document = self._scratch.read(image_id)
            value = load_json(document, f"image {image_id}")
            root = made_manifest(document, self._scratch) if "rootfs" in value else document
            source = LayoutSource(self._scratch)
            manifest = platform_manifest(root, platform=platform, what=f"image {image_id}", fetch=source.document)
            self._scratch.add_bytes(manifest)
            for layer in self._scratch.image(Digest.of(manifest)).layers:
                self._scratch.verify(layer)
        except (DigestMismatch, UserError):
            return None  # missing or damaged: it is exported (again)
        return root

    def _complete(self, image: ImagePin) -> bool:
        try:
            self._scratch.verified_image(image.manifest_digest, image.config_digest, image.diff_ids)
        except DigestMismatch:
            return False
        return True


def build_image(folder: Path, *, name: str, host: str | None) -> Digest:
    """Build the Dockerfile in ``folder`` with the engine at ``host`` and give the image's id; ``name`` is for messages.

    Raises:
        UserError: the Dockerfile is wrong, or one of its commands failed.
        MachineError: no engine answers.
    """
    with _connected(host) as client:
        try:
            image, _ = client.images.build(path=str(folder), rm=True, forcerm=True)
        except BuildError as error:
            log = "".join(str(line.get("stream") or line.get("error") or "") for line in error.build_log)
            last = "\n".join(log.strip().splitlines()[-12:])
            raise UserError(f"{name}Dockerfile: the build failed: {error.msg}\n{last}") from error
        except APIError as error:
            kind = UserError if error.is_client_error() else MachineError
            raise kind(f"{name}Dockerfile: the Docker engine cannot build it: {error.explanation}") from error
        except (DockerException, OSError, TypeError) as error:  # TypeError: docker-py's for a folder it dislikes
            raise MachineError(f"{name}Dockerfile: the Docker engine cannot build it: {error}") from error
        return Digest(str(image.id))


def read_daemon_name(reference: str) -> str:
    """The name or image id in ``docker-daemon:…``; without a tag, ``latest``.

    Raises:
        UserError: it is another kind of reference.
    """
    scheme, name = split_reference(reference)
    if scheme != "docker-daemon" or name.startswith(("-", "/")):
        raise UserError(
            f"{reference}: not an image of a Docker engine",
            hint="write docker-daemon:name:tag or docker-daemon:sha256:<image id>",
        )
    if name.startswith("sha256:"):
        try:
            return Digest(name)
        except DigestMismatch as error:
            raise UserError(f"{reference}: {error.message}", hint=error.hint) from error
    return name if "@" in name or ":" in name.rpartition("/")[2] else f"{name}:latest"


class _Export(io.RawIOBase):
    """A stream over an iterator of bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._left = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = chunk
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


@contextlib.contextmanager
def _connected(host: str | None) -> Iterator[docker.DockerClient]:
    try:
        _knock(host or docker.constants.DEFAULT_UNIX_SOCKET)
        client = docker.DockerClient(base_url=host, version="auto", timeout=TIMEOUT)
    except (DockerException, OSError) as error:
        raise MachineError(
            f"no Docker engine answers at {host or 'the usual socket'}: {error}",
            hint="start it, or see: preserve doctor",
        ) from error
    try:
        client.api.trust_env = False
        yield client
    finally:
        client.close()


def _knock(host: str) -> None:
    """Connect once before docker-py does: where nobody answers it leaves its socket open."""
    kind, _, address = host.partition("://")
    if kind.endswith("unix"):  # docker-py's own default is http+unix://
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as attempt:
            attempt.connect(address)


def _image_id(client: docker.DockerClient, name: str) -> Digest | None:
    try:
        return Digest(str(client.images.get(name).id))
    except ImageNotFound:
        return None
    except (DockerException, OSError) as error:
        raise MachineError(f"the Docker engine refuses to show image {name!r}: {error}") from error
