"""What of the user's session reaches a registry."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preserve.errors import MachineError
from preserve.operations.folder import Folder
from preserve.operations.places import Settings, transport_for
from preserve.transports.distribution import TRIES

NAME = "docker://registry.example.org/a:1"


def registry(tmp_path: Path, **environment: str) -> Any:
    return transport_for(NAME, Folder(root=tmp_path), Settings(environment=environment))


def test_nothing_is_made_up(tmp_path: Path) -> None:
    access = registry(tmp_path).access
    assert (access.ca_file, dict(access.proxies)) == (None, {})


@pytest.mark.parametrize(
    ("environment", "proxies"),
    [
        ({"https_proxy": "http://p:1"}, {"https": "http://p:1"}),
        ({"HTTPS_PROXY": "http://p:1", "HTTP_PROXY": "http://p:2"}, {"https": "http://p:1"}),
        ({"http_proxy": "http://p:2", "https_proxy": ""}, {"http": "http://p:2"}),
    ],
)
def test_proxies(tmp_path: Path, environment: dict[str, str], proxies: dict[str, str]) -> None:
    assert registry(tmp_path, **environment).access.proxies == proxies


def test_a_registry_is_asked_through_the_proxy(tmp_path: Path) -> None:
    asked = []

    def refuse(proxy: socket.socket) -> None:
        for _ in range(TRIES):
            connection, _ = proxy.accept()
            with connection:
                asked.append(connection.recv(4096).partition(b" HTTP/1.")[0])
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as proxy:
        thread = threading.Thread(target=refuse, args=(proxy,), daemon=True)
        thread.start()
        transport = registry(tmp_path, https_proxy=f"http://127.0.0.1:{proxy.getsockname()[1]}")
        transport.access = replace(transport.access, pause=lambda _: None)
        with pytest.raises(MachineError, match="403 Forbidden"):
            transport.resolve(NAME, platform="linux/amd64")
        thread.join(10)
    assert asked == [b"CONNECT registry.example.org:443"] * TRIES


def test_an_authority_of_ones_own(tmp_path: Path) -> None:
    assert registry(tmp_path, SSL_CERT_FILE="/etc/own.pem").access.ca_file == Path("/etc/own.pem")
