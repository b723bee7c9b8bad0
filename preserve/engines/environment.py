"""What a container's command sees in its environment and, without network, in /etc: the same on every engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from preserve.interfaces import RunRequest

OFFLINE_FILES = {  # of /etc, for a container without network
    "hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    # a name server that no route leads to (RFC 5737: for documentation), so that a look-up is an attempt, and counted
    "resolv.conf": "nameserver 192.0.2.1\n",
}
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # Docker's, for an image without one


def image_environment(entries: Iterable[str]) -> dict[str, str]:
    """Read ``NAME=value`` entries of an image's config (OCI image specification 1.1, "config.Env")."""
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def complete(image: Mapping[str, str], request: RunRequest) -> dict[str, str]:
    """Give the whole environment: the request's over the image's over the three names every container has."""
    given = {"PATH": DEFAULT_PATH, "HOME": "/tmp", "HOSTNAME": request.host_name}  # noqa: S108 - a container's path
    return {**given, **({"TERM": "xterm"} if request.interactive else {}), **image, **request.environment}
