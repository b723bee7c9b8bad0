"""Small images and a registry that can be told to lie or to break."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from preserve.digest import Digest
from preserve.documents.lockfile import ImagePin
from preserve.oci import CONFIG, LAYER, MANIFEST, Layout


@dataclass(frozen=True, kw_only=True)
class Small:
    """An image's documents and layers; ``blobs`` by digest, config and layers only."""

    manifest: bytes
    config: bytes
    layers: tuple[bytes, ...]
    pin: ImagePin

    @property
    def blobs(self) -> dict[str, bytes]:
        return {str(Digest.of(blob)): blob for blob in (self.config, *self.layers)}


def small_image(*layers: bytes, architecture: str = "amd64", layer: dict[str, Any] | None = None) -> Small:
    """An image of arbitrary bytes as layers; ``layer`` is added to each layer's descriptor."""

    def described(kind: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": kind, "digest": Digest.of(data), "size": len(data)}

    rootfs = {"type": "layers", "diff_ids": [Digest.of(one) for one in layers]}
    config = json.dumps({"architecture": architecture, "os": "linux", "rootfs": rootfs}).encode()
    described_layers = [{**described(LAYER, one), **(layer or {})} for one in layers]
    value = {"schemaVersion": 2, "config": described(CONFIG, config), "layers": described_layers, "mediaType": MANIFEST}
    manifest = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    pin = ImagePin(
        reference="",
        platform=f"linux/{architecture}",
        manifest_digest=Digest.of(manifest),
        config_digest=Digest.of(config),
        diff_ids=tuple(rootfs["diff_ids"]),
    )
    return Small(manifest=manifest, config=config, layers=layers, pin=pin)


def stored(image: Small, layout: Layout) -> None:
    """Write and list an image."""
    for blob in (image.manifest, image.config, *image.layers):
        layout.add_bytes(blob)
    layout.list_image(layout.image(image.pin.manifest_digest))


@dataclass(kw_only=True)
class Lies:
    """A registry on loopback: what it holds, what it was asked, and a function that may answer before it does.

    ``before`` gives ``True`` when it has answered. ``asked`` holds path and headers of each request.
    """

    host: str = ""
    manifests: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    before: Callable[[BaseHTTPRequestHandler], bool] = lambda _handler: False
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def hold(self, image: Small, tag: str = "1") -> None:
        """Serve an image by tag and by digest."""
        self.manifests |= {tag: image.manifest, str(image.pin.manifest_digest): image.manifest}
        self.blobs |= image.blobs

    def paths(self, word: str) -> list[str]:
        """The paths asked for that hold ``word``."""
        return [path for path, _ in self.asked if word in path]


def answer(handler: BaseHTTPRequestHandler, status: int, data: bytes = b"", **headers: str) -> bool:
    """Answer with headers whose names have ``_`` for ``-``."""
    handler.send_response(status)
    for name, value in {"Content_Length": str(len(data)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)
    return True


def _handler(lies: Lies) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lies.asked.append((self.path, dict(self.headers.items())))
            if not lies.before(self):
                self.honest()

        do_POST = do_GET  # noqa: N815 - http.server's name

        def honest(self) -> None:
            found = re.fullmatch(r"/v2/[a-z/]+/(manifests|blobs)/([^/]+)", self.path)
            shelf = {"manifests": lies.manifests, "blobs": lies.blobs}[found[1]] if found else {"": b"{}"}
            data = shelf.get(found[2] if found else "")
            answer(self, 404 if data is None else 200, data or b"", Docker_Content_Digest="sha256:a-lie")

        def log_message(self, *_: Any) -> None:
            return

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Clients that hang up in the middle are part of these tests."""


def serve(lies: Lies, context: ssl.SSLContext | None = None) -> Iterator[Lies]:
    """Serve until the generator is closed."""
    server = _Server(("127.0.0.1", 0), _handler(lies))
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    lies.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield lies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
