"""docker-py's client as one run uses it: from several threads, over connections that are kept."""

from __future__ import annotations

import socket
from typing import Any

from docker import APIClient
from docker.errors import DockerException
from docker.transport import UnixHTTPAdapter

CALL = 600  # seconds for one answer of the daemon; unpacking a large layer is one
POOL = 64  # connections kept; each running container uses one


def connect(host: str) -> APIClient:
    """Connect to the daemon at ``host`` (URL) in the newest version of its API that both sides know.

    Raises:
        DockerException, requests.exceptions.RequestException: nobody answers.
    """
    try:
        _knock(host)
        client = APIClient(base_url=host, version="auto", timeout=CALL, max_pool_size=POOL)
    except OSError as error:
        raise DockerException(str(error)) from error
    except ValueError as error:  # of a port, or of brackets
        raise DockerException(f"this is no address: {error}") from error
    client.trust_env = False  # no proxy and no .netrc of the caller; and a fifth less time per call
    adapter = client.get_adapter(client.base_url)
    if isinstance(adapter, UnixHTTPAdapter):
        client.mount(client.base_url, _OnePool(adapter.socket_path, timeout=CALL, max_pool_size=POOL))
        adapter.close()
    return client


class _OnePool(UnixHTTPAdapter):
    """One pool of connections for all addresses: docker-py's own makes one, of 64 places, for each address anew."""

    def get_connection(self, url: str | bytes, proxies: Any = None) -> Any:
        del url  # behind the socket there is one daemon
        return super().get_connection("http+docker://localhost", proxies)


def _knock(host: str) -> None:
    """Connect once before docker-py does: it leaves a socket open when nobody answers."""
    kind, _, address = host.partition("://")
    if kind == "unix":
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as attempt:
            attempt.connect(address)
