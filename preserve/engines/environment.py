"""What a container's command sees in its environment: the same names and values on every engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from preserve.interfaces import RunRequest

NO_NAME_SERVER = "192.0.2.1"  # reserved for documentation (RFC 5737): nobody answers there
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # Docker's, for an image without one


def image_environment(entries: Iterable[str]) -> dict[str, str]:
    """Read ``NAME=value`` entries of an image's config (OCI image specification 1.1, "config.Env")."""
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def complete(image: Mapping[str, str], request: RunRequest) -> dict[str, str]:
    """Give the whole environment: the request's over the image's over the three names every container has."""
    given = {"PATH": DEFAULT_PATH, "HOME": "/tmp", "HOSTNAME": request.host_name}  # noqa: S108 - a container's path
    return {**given, **({"TERM": "xterm"} if request.interactive else {}), **image, **request.environment}
