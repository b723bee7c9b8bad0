"""A registry that lies, breaks, asks for logins and redirects."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from lying_registry import Lies, Small, answer, serve, small_image

from preserve.digest import CHUNK, Digest
from preserve.documents.lockfile import ImagePin
from preserve.errors import DigestMismatch, MachineError, UserError
from preserve.oci import CONFIG, MANIFEST, Layout
from preserve.transports.distribution import LONGEST_PAUSE, TRIES
from preserve.transports.registry import RegistryTransport

PLATFORM = "linux/amd64"
LAYER_A, LAYER_B = b"first layer " * 50, os.urandom(3 * CHUNK + 17)


class Heard:
    """A progress that keeps the bytes it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int | None]] = []

    def step_started(self, step: str) -> None:
        raise AssertionError(step)

    def step_finished(self, step: str, *, outcome: str, seconds: float) -> None:
        raise AssertionError(step)

    def bytes_done(self, what: str, done: int, total: int | None) -> None:
        assert what.startswith("copying")
        self.told.append((done, total))


def _transport(pauses: list[float] | None = None, **options: Any) -> RegistryTransport:
    transport = RegistryTransport(**options)
    heard = pauses if pauses is not None else []
    transport.access = dataclasses.replace(transport.access, pause=heard.append)
    return transport


@pytest.fixture
def lies() -> Iterator[Lies]:
    yield from serve(Lies())


@pytest.fixture
def elsewhere() -> Iterator[Lies]:
    """A second host: blob storage, or a token service."""
    yield from serve(Lies())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where images are copied to."""
    return tmp_path / "copy"


@pytest.fixture
def image() -> Small:
    return small_image(LAYER_A, LAYER_B)


@pytest.fixture
def held(lies: Lies, image: Small) -> ImagePin:
    """The image in the registry, pinned."""
    lies.hold(image)
    return dataclasses.replace(image.pin, reference=f"docker://{lies.host}/hep/one:1")


def _copy_whole(transport: RegistryTransport, pin: ImagePin, target: Path) -> None:
    transport.copy_to_layout(pin, target)
    Layout(target).verified_image(pin.manifest_digest, pin.config_digest, pin.diff_ids)


def _nothing_listed(target: Path) -> bool:
    return not json.loads((target / "index.json").read_bytes())["manifests"]


def test_resolve_and_copy(lies: Lies, held: ImagePin, target: Path) -> None:
    heard = Heard()
    transport = _transport(progress=heard)
    assert transport.resolve(held.reference, platform=PLATFORM) == held
    _copy_whole(transport, held, target)
    total = sum(map(len, (LAYER_A, LAYER_B))) + Layout(target).blob(held.config_digest).stat().st_size
    assert heard.told[-1] == (total, total)
    assert [done for done, _ in heard.told] == sorted(done for done, _ in heard.told)


def test_present_blobs_are_not_asked_for_again(lies: Lies, held: ImagePin, target: Path) -> None:
    _copy_whole(_transport(), held, target)
    lies.asked.clear()
    _copy_whole(_transport(), held, target)
    assert not any(str(diff_id) in path for diff_id in held.diff_ids for path, _ in lies.asked)


@pytest.mark.parametrize("change", [lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b + b"x", lambda b: b[:-1]])
def test_wrong_bytes_are_never_accepted(change: Any, lies: Lies, held: ImagePin, target: Path) -> None:
    digest = str(held.diff_ids[0])
    lies.blobs[digest] = change(LAYER_A)
    with pytest.raises(DigestMismatch, match=digest):
        _transport().copy_to_layout(held, target)
    assert _nothing_listed(target)
    assert not Layout(target).blob(held.diff_ids[0]).exists()
    assert 2 <= len(lies.paths(digest)) <= TRIES


def test_wrong_bytes_once_are_asked_for_again(lies: Lies, held: ImagePin, target: Path) -> None:
    def before(handler: BaseHTTPRequestHandler) -> bool:
        first = str(held.diff_ids[0]) in handler.path and len(lies.paths(str(held.diff_ids[0]))) == 1
        return answer(handler, 200, bytes(len(LAYER_A))) if first else False

    lies.before = before
    heard = Heard()
    _copy_whole(_transport(progress=heard), held, target)
    assert heard.told[-1][0] == heard.told[-1][1]


def test_a_manifest_asked_for_by_digest_is_hashed(lies: Lies, held: ImagePin, target: Path) -> None:
    lies.manifests[str(held.manifest_digest)] = small_image(b"another").manifest
    by_digest = f"{held.reference}@{held.manifest_digest}"
    with pytest.raises(DigestMismatch, match=str(held.manifest_digest)):
        _transport().resolve(by_digest, platform=PLATFORM)
    with pytest.raises(DigestMismatch, match=str(held.manifest_digest)):
        _transport().copy_to_layout(held, target)
    assert _nothing_listed(target)


def test_a_config_is_hashed(lies: Lies, held: ImagePin) -> None:
    lies.blobs[str(held.config_digest)] = small_image(LAYER_A, LAYER_B, architecture="arm64").config
    with pytest.raises(DigestMismatch, match=str(held.config_digest)):
        _transport().resolve(held.reference, platform=PLATFORM)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_registry_is_asked_again(status: int, lies: Lies, held: ImagePin, target: Path) -> None:
    counts: dict[str, int] = {}

    def before(handler: BaseHTTPRequestHandler) -> bool:
        counts[handler.path] = counts.get(handler.path, 0) + 1
        busy = handler.path != "/v2/" and counts[handler.path] <= 2
        return answer(handler, status, b"", Retry_After="7") if busy else False

    lies.before = before
    pauses: list[float] = []
    _copy_whole(_transport(pauses), held, target)
    assert set(pauses) == {7.0}


def test_an_unreasonable_retry_after_is_shortened(lies: Lies, held: ImagePin) -> None:
    lies.before = lambda handler: handler.path != "/v2/" and answer(handler, 429, Retry_After="86400")
    pauses: list[float] = []
    with pytest.raises(MachineError, match="429"):
        _transport(pauses).resolve(held.reference, platform=PLATFORM)
    assert set(pauses) == {LONGEST_PAUSE}


def test_500_for_ever_is_given_up(lies: Lies, held: ImagePin, target: Path) -> None:
    lies.before = lambda handler: "/blobs/" in handler.path and answer(handler, 500)
    pauses: list[float] = []
    with pytest.raises(MachineError, match=f"given up after {TRIES} tries.*500"):
        _transport(pauses).copy_to_layout(held, target)
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert _nothing_listed(target)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_gone_on_with(ranges: bool, lies: Lies, held: ImagePin, target: Path) -> None:
    digest = str(held.diff_ids[1])

    def before(handler: BaseHTTPRequestHandler) -> bool:
        if digest not in handler.path:
            return False
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1]) if ranges else 0
        cut = len(lies.paths(digest)) < 3
        end = start + CHUNK + 100 if cut else len(LAYER_B)
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(LAYER_B) - start))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(LAYER_B) - 1}/{len(LAYER_B)}")
        handler.end_headers()
        handler.wfile.write(LAYER_B[start:end])
        return True

    lies.before = before
    _copy_whole(_transport(), held, target)
    asked = [headers.get("Range") for path, headers in lies.asked if digest in path]
    assert asked[0] is None
    assert all(value is not None for value in asked[1:])


def test_a_connection_cut_for_ever_is_given_up(lies: Lies, held: ImagePin, target: Path) -> None:
    def before(handler: BaseHTTPRequestHandler) -> bool:
        if "/blobs/" not in handler.path or str(held.config_digest) in handler.path:
            return False
        linger = struct.pack("ii", 1, 0)  # close with a reset
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.close_connection = True
        handler.connection.close()
        return True

    lies.before = before
    with pytest.raises(MachineError, match="given up"):
        _transport().copy_to_layout(held, target)
    assert _nothing_listed(target)


def test_an_endless_blob_is_cut_off(lies: Lies, held: ImagePin, target: Path) -> None:
    def before(handler: BaseHTTPRequestHandler) -> bool:
        if str(held.diff_ids[0]) not in handler.path:
            return False
        handler.send_response(200)
        handler.end_headers()
        for _ in range(200):  # no length: only the reader can end it
            handler.wfile.write(bytes(CHUNK))
        return True

    lies.before = before
    with pytest.raises(DigestMismatch, match=str(held.diff_ids[0])):
        _transport().copy_to_layout(held, target)
    leftovers = [path for path in (target / "blobs/sha256").iterdir() if path.name.startswith(".")]
    assert leftovers == []


def test_an_endless_manifest_is_cut_off(lies: Lies, held: ImagePin) -> None:
    lies.manifests["1"] = b" " * (9 << 20)
    with pytest.raises(MachineError, match="larger"):
        _transport().resolve(held.reference, platform=PLATFORM)


def _docker_config(tmp_path: Path, host: str, entry: dict[str, str]) -> Path:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {host: entry}}))
    return file


AUTH = {"auth": base64.b64encode(b"user:se:cret").decode()}
BASIC = "Basic " + AUTH["auth"]


def test_basic_login(lies: Lies, held: ImagePin, target: Path, tmp_path: Path) -> None:
    lies.before = lambda handler: (
        handler.headers.get("Authorization") != BASIC
        and handler.path != "/v2/"
        and answer(handler, 401, WWW_Authenticate='Basic realm="here"')
    )
    _copy_whole(_transport(auth_file=_docker_config(tmp_path, lies.host, AUTH)), held, target)
    with pytest.raises(MachineError, match="not to be read") as caught:
        _transport().resolve(held.reference, platform=PLATFORM)
    assert "docker login" in (caught.value.hint or "")


def test_a_refused_login_is_tried_once(lies: Lies, held: ImagePin, tmp_path: Path) -> None:
    lies.before = lambda handler: handler.path != "/v2/" and answer(handler, 401, WWW_Authenticate='Basic realm="here"')
    with pytest.raises(MachineError) as caught:
        _transport(auth_file=_docker_config(tmp_path, lies.host, AUTH)).resolve(held.reference, platform=PLATFORM)
    assert "se:cret" not in str(caught.value)
    assert len(lies.paths("manifests")) == 2


@pytest.mark.parametrize("entry", [None, AUTH, {"identitytoken": "refresh-me"}])
def test_bearer_login(
    entry: dict[str, str] | None, lies: Lies, elsewhere: Lies, held: ImagePin, target: Path, tmp_path: Path
) -> None:
    challenge = f'Bearer realm="http://{elsewhere.host}/token",service="here",scope="repository:hep/one:pull"'
    uses = {"n": 0}

    def before(handler: BaseHTTPRequestHandler) -> bool:
        if handler.path == "/v2/":
            return False
        uses["n"] += 1
        good = handler.headers.get("Authorization") == "Bearer abc" and uses["n"] % 4  # a token soon runs out
        return False if good else answer(handler, 401, WWW_Authenticate=challenge)

    bodies: list[bytes] = []

    def token(handler: BaseHTTPRequestHandler) -> bool:
        bodies.append(handler.rfile.read(int(handler.headers.get("Content-Length", 0))))
        return answer(handler, 200, b'{"access_token": "abc"}')

    lies.before, elsewhere.before = before, token
    auth_file = _docker_config(tmp_path, lies.host, entry) if entry else None
    _copy_whole(_transport(auth_file=auth_file), held, target)
    path, headers = elsewhere.asked[0]
    assert headers.get("Authorization") == (BASIC if entry is AUTH else None)
    asked = path if entry in (None, AUTH) else bodies[0].decode()
    assert "scope=repository%3Ahep%2Fone%3Apull" in asked
    assert "service=here" in asked
    assert ("refresh_token=refresh-me" in asked) == (entry not in (None, AUTH))


@pytest.mark.parametrize("answered", [b"{}", b"nonsense", b'{"token": "a\\nb"}', b'{"token": 1}', b"[]"])
def test_a_login_without_a_token_is_refused(answered: bytes, lies: Lies, held: ImagePin) -> None:
    def before(handler: BaseHTTPRequestHandler) -> bool:
        if handler.path.startswith("/token"):
            return answer(handler, 200, answered)
        challenge = f'Bearer realm="http://{lies.host}/token"'
        return handler.path != "/v2/" and answer(handler, 401, WWW_Authenticate=challenge)

    lies.before = before
    with pytest.raises(MachineError, match="gave no token"):
        _transport().resolve(held.reference, platform=PLATFORM)


@pytest.mark.parametrize("realm", ["http://example.org/token", "file:///etc/passwd", "https://a@b/", ""])
def test_logins_are_sent_to_safe_places_only(realm: str, lies: Lies, held: ImagePin) -> None:
    challenge = f'Bearer realm="{realm}"'
    lies.before = lambda handler: handler.path != "/v2/" and answer(handler, 401, WWW_Authenticate=challenge)
    with pytest.raises(MachineError, match="not safe"):
        _transport().resolve(held.reference, platform=PLATFORM)


def test_a_redirection_does_not_carry_the_login(
    lies: Lies, elsewhere: Lies, held: ImagePin, image: Small, target: Path, tmp_path: Path
) -> None:
    def before(handler: BaseHTTPRequestHandler) -> bool:
        if handler.headers.get("Authorization") != BASIC:
            return handler.path != "/v2/" and answer(handler, 401, WWW_Authenticate="Basic")
        where = f"http://{elsewhere.host}{handler.path}"
        return "/blobs/" in handler.path and answer(handler, 307, Location=where)

    lies.before = before
    elsewhere.blobs = image.blobs
    _copy_whole(_transport(auth_file=_docker_config(tmp_path, lies.host, AUTH)), held, target)
    assert len(elsewhere.asked) >= 3
    assert all("Authorization" not in headers for _, headers in elsewhere.asked)


@pytest.mark.parametrize(
    "location", ["http://example.org/x", "file:///etc/passwd", "ftp://127.0.0.1/x", "https://u:p@h/"]
)
def test_unsafe_redirections_are_not_followed(location: str, lies: Lies, held: ImagePin) -> None:
    lies.before = lambda handler: handler.path != "/v2/" and answer(handler, 302, Location=location)
    with pytest.raises(MachineError, match="not safe"):
        _transport().resolve(held.reference, platform=PLATFORM)


def test_redirections_in_a_circle_end(lies: Lies, held: ImagePin) -> None:
    lies.before = lambda handler: handler.path != "/v2/" and answer(handler, 302, Location=handler.path)
    with pytest.raises(MachineError, match="redirections"):
        _transport().resolve(held.reference, platform=PLATFORM)


def test_the_registrys_words_are_fit_for_a_terminal(lies: Lies, held: ImagePin) -> None:
    said = json.dumps({"errors": [{"code": "DENIED", "message": "no\x1b[31m"}]}).encode()
    lies.before = lambda handler: handler.path != "/v2/" and answer(handler, 403, said)
    with pytest.raises(MachineError, match="DENIED: no") as caught:
        _transport().resolve(held.reference, platform=PLATFORM)
    assert "\x1b" not in str(caught.value)


def test_an_unknown_image_is_the_users(lies: Lies) -> None:
    with pytest.raises(UserError, match="hep/none"):
        _transport().resolve(f"{lies.host}/hep/none:1", platform=PLATFORM)


def test_a_pinned_image_that_is_gone(lies: Lies, held: ImagePin, target: Path) -> None:
    lies.manifests.clear()
    with pytest.raises(MachineError, match=str(held.manifest_digest)):
        _transport().copy_to_layout(held, target)


def test_schema_1_is_explained(lies: Lies, held: ImagePin) -> None:
    lies.manifests["1"] = b'{"schemaVersion": 1, "fsLayers": []}'
    with pytest.raises(UserError, match="schema 1"):
        _transport().resolve(held.reference, platform=PLATFORM)


def test_layers_from_elsewhere_are_refused(lies: Lies, held: ImagePin) -> None:
    lies.hold(small_image(LAYER_A, layer={"urls": ["https://example.org/layer"]}), "foreign")
    with pytest.raises(UserError, match="passed on"):
        _transport().resolve(held.reference.replace(":1", ":foreign"), platform=PLATFORM)


def test_an_artifact_is_no_image(lies: Lies, held: ImagePin, image: Small) -> None:
    lies.manifests["1"] = image.manifest.replace(CONFIG.encode(), b"application/vnd.cncf.helm.config.v1+json")
    with pytest.raises(UserError, match="helm"):
        _transport().resolve(held.reference, platform=PLATFORM)


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        with pytest.raises(MachineError, match="cannot be reached"):
            _transport().resolve(f"127.0.0.1:{free.getsockname()[1]}/a:1", platform=PLATFORM)


@pytest.fixture
def secure(tmp_path: Path, image: Small) -> Iterator[tuple[Lies, Path]]:
    """A TLS registry on loopback with the image, and its certificate."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        (
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "1",
            ),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate),
        ),
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    lies = Lies()
    lies.hold(image)
    for served in serve(lies, context):
        yield served, certificate


def test_tls_with_our_authority(secure: tuple[Lies, Path], image: Small, target: Path) -> None:
    lies, certificate = secure
    transport = _transport(ca_file=certificate)
    pin = transport.resolve(f"{lies.host}/hep/one:1", platform=PLATFORM)
    assert pin.manifest_digest == image.pin.manifest_digest
    _copy_whole(transport, pin, target)


def test_tls_is_verified_on_loopback_too(secure: tuple[Lies, Path]) -> None:
    lies, _ = secure
    with pytest.raises(MachineError, match="not trusted"):
        _transport().resolve(f"{lies.host}/hep/one:1", platform=PLATFORM)
    assert lies.paths("manifests") == []


def test_a_registry_on_this_machine_is_asked_without_a_proxy(lies: Lies, held: ImagePin) -> None:
    transport = _transport(proxies=dict.fromkeys(("http", "https"), "http://127.0.0.1:9"))
    assert transport.resolve(held.reference, platform=PLATFORM).manifest_digest == held.manifest_digest


def test_a_ca_file_that_is_none(tmp_path: Path, lies: Lies) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(UserError, match=r"ca\.pem"):
        _transport(ca_file=tmp_path / "ca.pem").resolve(f"{lies.host}/a:1", platform=PLATFORM)


def test_a_full_disk_is_said(lies: Lies, held: ImagePin, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 1000})())
    with pytest.raises(MachineError, match="1000 bytes free"):
        _transport().copy_to_layout(held, target)


def test_an_index_is_descended(lies: Lies, held: ImagePin) -> None:
    arm = small_image(b"arm", architecture="arm64")
    lies.hold(arm, "arm")
    entries = [
        {"mediaType": MANIFEST, "digest": one.pin.manifest_digest, "size": len(one.manifest), "platform": platform}
        for one, platform in (
            (arm, {"os": "linux", "architecture": "arm64", "variant": "v8"}),
            (small_image(LAYER_A, LAYER_B), {"os": "linux", "architecture": "amd64"}),
        )
    ]
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    lies.manifests |= {"many": index, str(Digest.of(index)): index}
    for reference in (held.reference.replace(":1", ":many"), f"{lies.host}/hep/one@{Digest.of(index)}"):
        assert _transport().resolve(reference, platform="linux/arm64").manifest_digest == arm.pin.manifest_digest
        assert _transport().resolve(reference, platform=PLATFORM).manifest_digest == held.manifest_digest
