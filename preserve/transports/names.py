"""Names of images in registries, as Docker reads them: ``[host/]repository[:tag][@sha256:…]``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from preserve.digest import Digest
from preserve.errors import DigestMismatch, UserError
from preserve.transports import split_reference

HUB = "registry-1.docker.io"  # where names without a host live; Docker's rule, the one host this tool knows of
HUB_NAMES = frozenset({"docker.io", "index.docker.io", HUB})

_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_HOST = re.compile(r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?")
_HINT = "a name is host/repository:tag in lower case, with @sha256: and 64 digits for a fixed version"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryName:
    """An image in a registry: ``host`` with its port, ``repository``, and a tag, a digest or both (the digest wins)."""

    host: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def selector(self) -> str:
        """What a manifest is asked for by: the digest, else the tag, else ``latest``."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        """Give the full name, host included."""
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.host}/{self.repository}{tag}{'@' + self.digest if self.digest else ''}"


def read_name(reference: str) -> RegistryName:
    """Read a reference of the scheme ``docker``; short names mean Docker Hub (``python:3.12``).

    Raises:
        UserError: it is malformed, or of another scheme.
    """
    scheme, text = split_reference(reference)
    if scheme != "docker":
        raise UserError(f"{reference}: not an image of a registry", hint=_HINT)
    rest, at, digest = text.partition("@")
    host, repository = _split_host(rest)
    repository, colon, tag = repository.partition(":")
    if not _HOST.fullmatch(host) or not _REPOSITORY.fullmatch(repository) or len(repository) > 255:
        raise UserError(f"{reference}: {rest!r} is not a name of an image", hint=_HINT)
    if colon and not _TAG.fullmatch(tag):
        raise UserError(f"{reference}: {tag!r} is not a tag", hint=_HINT)
    return RegistryName(
        host=host, repository=repository, tag=tag or None, digest=_digest(digest, reference) if at else None
    )


def is_loopback(host: str) -> bool:
    """Whether ``host`` (a port may follow) is this machine itself: localhost, 127.0.0.0/8 or ::1."""
    bare = host[1 : host.index("]")] if host.startswith("[") else host.rpartition(":")[0] or host
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:  # a name, not an address
        return bare.lower() == "localhost"


def _split_host(text: str) -> tuple[str, str]:
    """Docker's rule: the first part is a host if it has a dot or a port, or is localhost."""
    first, slash, rest = text.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        return HUB, text if slash else f"library/{text}"
    if first in HUB_NAMES:
        return HUB, rest if "/" in rest else f"library/{rest}"
    return first, rest


def _digest(text: str, reference: str) -> Digest:
    try:
        return Digest(text)
    except DigestMismatch as error:
        raise UserError(f"{reference}: {error.message}", hint=error.hint) from error
