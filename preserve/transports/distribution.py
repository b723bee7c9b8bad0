"""A client of container registries: the distribution specification 1.1 (HTTP API v2), reading only.

Nothing a registry says is believed: documents are hashed here, blobs where they are written (``oci.Layout.add``).
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from preserve.digest import CHUNK, Digest
from preserve.errors import DigestMismatch, MachineError, UserError
from preserve.oci import DOCKER_INDEX, DOCKER_MANIFEST, INDEX, MANIFEST, MAX_DOCUMENT, Descriptor
from preserve.transports.credentials import Credentials, Login
from preserve.transports.names import RegistryName, is_loopback

TRIES = 5  # of one request, and of one blob without progress
TIMEOUT = 60.0  # seconds without a byte
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between tries; each pause is twice the last one
MAX_REDIRECTS = 5
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ACCEPT = ", ".join((MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX))


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How registries are reached: logins, an extra CA file (PEM), proxies by scheme, and how a pause is made."""

    credentials: Credentials
    ca_file: Path | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)
    pause: Callable[[float], None] = time.sleep


class _Broken(Exception):
    """A try that failed and may succeed later; ``wait`` are the seconds that the registry asked for."""

    def __init__(self, text: str, *, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


class _TooLarge(MachineError):
    """What should be a manifest or a config is larger than those may be."""


class Repository:
    """One repository of one registry; may be used from several threads at once."""

    def __init__(self, name: RegistryName, access: Access) -> None:
        self._name, self._access = name, access
        # a registry on this machine is no business of a proxy's
        self._opener = _opener(replace(access, proxies={}) if is_loopback(name.host) else access)
        self._lock = threading.Lock()
        self._origin: str | None = None
        self._authorization: str | None = None

    def manifest(self, selector: str) -> bytes | None:
        """A manifest or index by tag or by digest (then hashed); ``None`` when there is none.

        Raises:
            DigestMismatch: it came with other bytes than the digest says, every time.
            MachineError: the registry cannot be reached or refuses.
        """
        return self._document(f"manifests/{selector}", Digest(selector) if selector.startswith("sha256:") else None)

    def small_blob(self, digest: Digest) -> bytes | None:
        """A config's bytes, hashed; ``None`` when there is no such blob or it is too large. Raises as ``manifest``."""
        try:
            return self._document(f"blobs/{digest}", digest)
        except _TooLarge:
            return None

    def chunks(self, blob: Descriptor) -> Iterator[bytes]:
        """Yield a blob's bytes, going on where a connection was cut. Whoever writes them hashes them.

        Raises:
            DigestMismatch: the registry announces another size.
            MachineError: the registry cannot be reached, refuses, or breaks off again and again.
        """
        done, failures = 0, 0
        while done < blob.size:
            before = done
            try:
                for chunk in self._rest(blob, done):
                    yield chunk
                    done += len(chunk)
                if done < blob.size:
                    raise _Broken(f"blob {blob.digest} ended after {done} of {blob.size} bytes")
            except _Broken as error:
                failures = 1 if done - before >= CHUNK else failures + 1
                self._pause_or_fail(error, failures)

    def _rest(self, blob: Descriptor, start: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._get(f"blobs/{blob.digest}", headers) as response:
            skip = self._check_start(response, blob, start)
            for chunk in _pieces(response):
                if skip < len(chunk):
                    yield chunk[skip:]
                skip = max(0, skip - len(chunk))

    def _check_start(self, response: HTTPResponse, blob: Descriptor, start: int) -> int:
        """How many bytes to skip: none where the registry goes on at ``start``, all when it begins again."""
        if response.status == 206 and start:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise _Broken(f"blob {blob.digest} was continued at another place")
            return 0
        if response.status != 200:
            raise self._refused(response, f"blob {blob.digest}")
        announced = response.headers.get("Content-Length")
        if announced is not None and announced != str(blob.size):
            raise DigestMismatch(
                f"{self._name}: blob {blob.digest}: expected {blob.size} bytes, the registry announces {announced}"
            )
        return start

    def _document(self, path: str, expected: Digest | None) -> bytes | None:
        data = self._try_document(path)
        for _ in range(TRIES - 1):
            if data is None or expected in (None, Digest.of(data)):
                return data
            data = self._try_document(path)
        if data is None or expected in (None, Digest.of(data)):
            return data
        raise DigestMismatch(f"{self._name}: expected {expected}, the registry gave {Digest.of(data)}")

    def _try_document(self, path: str) -> bytes | None:
        for failures in range(1, TRIES + 1):
            try:
                with self._get(path, {"Accept": _ACCEPT} if path.startswith("manifests/") else {}) as response:
                    if response.status == 404:
                        return None
                    if response.status != 200:
                        raise self._refused(response, path)
                    return self._whole(response, path)
            except _Broken as error:
                self._pause_or_fail(error, failures)
        raise AssertionError("the last failure raises")

    def _whole(self, response: HTTPResponse, path: str) -> bytes:
        data = b""
        for piece in _pieces(response):
            data += piece
            if len(data) > MAX_DOCUMENT:
                raise _TooLarge(f"{self._name}: {path} is larger than an OCI document may be ({MAX_DOCUMENT} bytes)")
        if response.length:
            raise _Broken(f"{path} ended {response.length} bytes early")
        return data

    def _get(self, path: str, headers: Mapping[str, str]) -> HTTPResponse:
        """One GET, with a login when it is asked for, tried again while the registry is busy or broken."""
        failures = 0
        while True:
            try:
                return self._get_once(path, headers)
            except _Broken as error:
                failures += 1
                self._pause_or_fail(error, failures)

    def _get_once(self, path: str, headers: Mapping[str, str]) -> HTTPResponse:
        address = f"{self._find_origin()}/v2/{self._name.repository}/{path}"
        used = self._authorization
        response = self._send(address, headers, used)
        if response.status == 401:
            with response:
                self._log_in(response, used)
            response = self._send(address, headers, self._authorization)
        if response.status in _TRANSIENT:
            with response:
                raise _Broken(f"it answered {response.status} {response.reason}", wait=_retry_after(response))
        return response

    def _send(self, address: str, headers: Mapping[str, str], authorization: str | None) -> HTTPResponse:
        origin = _origin(address)
        for _ in range(MAX_REDIRECTS + 1):
            # The login is for the registry alone; storage that it points to must not see it.
            own = {"Authorization": authorization} if authorization and _origin(address) == origin else {}
            response = self._open(address, {**headers, **own})
            if response.status not in _REDIRECTS:
                return response
            with response:
                address = self._redirected(address, response.headers.get("Location", ""))
        raise MachineError(f"{self._name.host}: more than {MAX_REDIRECTS} redirections")

    def _redirected(self, address: str, location: str) -> str:
        target = urllib.parse.urljoin(address, location)
        if not location or not _may_visit(target, plain_before=address.startswith("http:")):
            raise MachineError(f"{self._name.host}: it redirects to {target!r}, which is not safe to follow")
        return target

    def _open(self, address: str, headers: Mapping[str, str], data: bytes | None = None) -> HTTPResponse:
        request = urllib.request.Request(address, headers=dict(headers), data=data)  # noqa: S310 - http(s) only: the opener has no other
        try:
            response: HTTPResponse = self._opener.open(request, timeout=TIMEOUT)
        except (OSError, HTTPException, ValueError) as error:
            raise self._unreachable(error, address) from error
        return response

    def _unreachable(self, error: Exception, address: str) -> Exception:
        reason = getattr(error, "reason", error)
        host = urllib.parse.urlsplit(address).netloc
        if isinstance(reason, ssl.SSLCertVerificationError):
            text = f"{host}: its TLS certificate is not trusted: {reason.verify_message}"
            return MachineError(
                text, hint="name the file (PEM) of the authority that signed it: SSL_CERT_FILE=FILE preserve …"
            )
        if isinstance(reason, ssl.SSLError) and not isinstance(reason, ssl.SSLEOFError):
            return MachineError(
                f"{host}: it speaks no TLS that this machine can use: {reason}",
                hint="plain HTTP is used only for registries on this machine (localhost)",
            )
        if isinstance(reason, ConnectionRefusedError | ValueError) or type(reason).__name__ == "gaierror":
            return MachineError(
                f"{host}: the registry cannot be reached: {reason}", hint="check the name and the network"
            )
        return _Broken(f"{type(reason).__name__}: {reason}")

    def _find_origin(self) -> str:
        """``https://HOST``; on loopback ``http://HOST`` if it does not speak TLS."""
        with self._lock:
            if self._origin is None:
                plain = is_loopback(self._name.host) and self._speaks_plain()
                self._origin = f"{'http' if plain else 'https'}://{self._name.host}"
            return self._origin

    def _speaks_plain(self) -> bool:
        """Ask without any login: a TLS server calls that a bad request or hangs up, while a TLS greeting may leave a
        plain server waiting for the end of a line."""
        try:
            with self._open(f"http://{self._name.host}/v2/", {}) as response:
                return response.status != 400 and response.status not in _REDIRECTS
        except _Broken:
            return False

    def _log_in(self, response: HTTPResponse, used: str | None) -> None:
        """Answer a challenge (RFC 9110 section 11): a token, or name and password."""
        with self._lock:
            if self._authorization != used:
                return  # another thread was faster
            login = self._access.credentials.find(self._name.host)
            challenges = _challenges(response.headers.get_all("WWW-Authenticate") or [])
            if "bearer" in challenges:
                self._authorization = "Bearer " + self._token(challenges["bearer"], login)
            elif "basic" in challenges and login and not login.identity_token and used is None:
                self._authorization = login.basic
            else:
                raise self._refused(response, self._name.repository)

    def _token(self, challenge: Mapping[str, str], login: Login | None) -> str:
        realm = challenge.get("realm", "")
        if not _may_visit(realm, plain_before=is_loopback(self._name.host)):
            raise MachineError(f"{self._name.host}: it sends logins to {realm!r}, which is not safe")
        query = {"scope": f"repository:{self._name.repository}:pull"}
        query |= {key: challenge[key] for key in ("service", "scope") if key in challenge}
        if login and login.identity_token:
            form = {**query, "grant_type": "refresh_token", "client_id": "preserve"}
            form["refresh_token"] = login.identity_token
            response = self._open(realm, {}, urllib.parse.urlencode(form).encode())
        else:
            headers = {"Authorization": login.basic} if login else {}
            response = self._open(f"{realm}{'&' if '?' in realm else '?'}{urllib.parse.urlencode(query)}", headers)
        with response:
            if response.status in _TRANSIENT:
                raise _Broken(f"its login answered {response.status}", wait=_retry_after(response))
            if response.status != 200:
                raise self._refused(response, self._name.repository)
            return self._read_token(self._whole(response, "its login"))

    def _read_token(self, data: bytes) -> str:
        try:
            answer = json.loads(data)
            token = answer.get("token") or answer["access_token"]
        except (ValueError, KeyError, AttributeError, RecursionError) as error:
            raise MachineError(f"{self._name.host}: its login gave no token") from error
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise MachineError(f"{self._name.host}: its login gave no token")
        return token

    def _refused(self, response: HTTPResponse, what: str) -> MachineError:
        said = _said(response)
        text = f"{self._name}: {what}: the registry answered {response.status} {response.reason}{said}"
        if response.status in (401, 403):
            text = f"{self._name}: not there, or not to be read with this login ({response.status}{said})"
            return MachineError(text, hint=f"check the name, or log in: docker login {self._name.host}")
        return MachineError(text)

    def _pause_or_fail(self, error: _Broken, failures: int) -> None:
        if failures >= TRIES:
            raise MachineError(
                f"{self._name}: given up after {failures} tries: {error}",
                hint="the registry is busy or broken; whole layers are kept: run the command again later",
            ) from error
        pause = error.wait if error.wait is not None else FIRST_PAUSE * 2.0 ** (failures - 1)
        self._access.pause(min(pause, LONGEST_PAUSE))


def _opener(access: Access) -> urllib.request.OpenerDirector:
    """An opener that only opens: no redirections, no cookies, no proxies of the environment, no files."""
    context = ssl.create_default_context()
    if access.ca_file is not None:
        try:
            context.load_verify_locations(cafile=access.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise UserError(f"{access.ca_file}: no file of certificates in PEM form: {error}") from error
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.HTTPHandler())
    opener.add_handler(urllib.request.HTTPSHandler(context=context))
    if access.proxies:
        opener.add_handler(urllib.request.ProxyHandler(dict(access.proxies)))
    return opener


def _pieces(response: HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        raise _Broken(f"the connection broke: {type(error).__name__}") from error


def _origin(address: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(address)
    return parts.scheme, parts.netloc


def _may_visit(address: str, *, plain_before: bool) -> bool:
    """HTTPS anywhere; plain HTTP only on loopback, coming from plain HTTP on loopback; no user name in it."""
    try:
        parts = urllib.parse.urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return False
    if not host or "@" in parts.netloc:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and plain_before and is_loopback(parts.netloc))


def _challenges(values: list[str]) -> dict[str, dict[str, str]]:
    """``WWW-Authenticate`` headers as scheme → parameters."""
    found: dict[str, dict[str, str]] = {}
    for value in values:
        scheme, _, rest = value.strip().partition(" ")
        found[scheme.lower()] = {
            key.lower(): quoted or plain for key, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,"]+))', rest)
        }
    return found


def _retry_after(response: HTTPResponse) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if re.fullmatch(r"[0-9]{1,6}", text) else None


def _said(response: HTTPResponse) -> str:
    """The registry's own words (specification, "Error Codes"), fit for a terminal."""
    try:
        value: Any = json.loads(response.read(1 << 16))
        text = "; ".join(f"{error.get('code')}: {error.get('message')}" for error in value["errors"][:3])
    except (OSError, HTTPException, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""  # it explains nothing; the status is told anyway
    return ": " + "".join(character if character.isprintable() else "?" for character in text)[:300]
