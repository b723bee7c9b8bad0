"""Who we are to a registry: Docker's ``config.json`` (``auths``, ``credHelpers``, ``credsStore``)."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preserve.documents import jsonform
from preserve.errors import MachineError, UserError
from preserve.transports.names import HUB, HUB_NAMES

HELPER_SECONDS = 60  # a helper may ask a person to unlock a key ring
_HUB_KEY = "https://index.docker.io/v1/"  # how docker login files Docker Hub
_HELPER = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user's name and password; or ``identity_token``, which only buys tokens (OAuth 2 refresh token)."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity_token: str | None = field(default=None, repr=False)

    @property
    def basic(self) -> str:
        """The value of an HTTP ``Authorization`` header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


class Credentials:
    """Logins from the file at ``path`` (``None`` or missing: anonymous), read when first needed.

    ``environment`` is all that a credential helper (``docker-credential-X get``) gets to see.
    """

    def __init__(self, path: Path | None, *, environment: Mapping[str, str] | None = None) -> None:
        self._path = path
        self._environment = dict(environment or {"PATH": "/usr/local/bin:/usr/bin:/bin"})

    def find(self, host: str) -> Login | None:
        """The login for a registry, by its host and port.

        Raises:
            UserError: the file is damaged.
            MachineError: the file cannot be read, or its helper for this host failed.
        """
        if self._path is None or not self._path.exists():
            return None
        try:
            config = jsonform.load(self._path.read_bytes(), str(self._path))
        except OSError as error:
            raise MachineError(f"{self._path}: cannot be read: {error.strerror}") from error
        for key, helper in _mapping(config, "credHelpers").items():
            if _same(key, host):
                return self._ask(str(helper), host)
        for key, entry in _mapping(config, "auths").items():
            if _same(key, host) and isinstance(entry, dict) and (login := self._read(entry, key)):
                return login
        return self._ask(str(config["credsStore"]), host) if config.get("credsStore") else None

    def _read(self, entry: Mapping[str, Any], key: str) -> Login | None:
        if token := entry.get("identitytoken"):
            return Login(identity_token=str(token))
        if entry.get("username"):
            return Login(user=str(entry["username"]), password=str(entry.get("password", "")))
        if not entry.get("auth"):
            return None  # an empty entry: the login itself is in the credsStore
        try:
            user, colon, password = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
        except ValueError as error:
            raise UserError(f"{self._path}: auth of {key!r} is not base64 of user:password") from error
        if not colon:
            raise UserError(f"{self._path}: auth of {key!r} is not base64 of user:password")
        return Login(user=user, password=password.rstrip("\0"))

    def _ask(self, helper: str, host: str) -> Login | None:
        if not _HELPER.fullmatch(helper):
            raise UserError(f"{self._path}: {helper!r} is not a credential helper's name")
        command = (f"docker-credential-{helper}", "get")
        server = _HUB_KEY if host == HUB else host
        try:
            ended = subprocess.run(
                command,
                input=server.encode(),
                capture_output=True,
                env=self._environment,
                timeout=HELPER_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MachineError(
                f"{host}: credential helper {command[0]} failed: {error}", hint=f"it is named in {self._path}"
            ) from error
        if ended.returncode != 0 and b"credentials not found" in ended.stdout + ended.stderr:
            return None
        return self._answer(ended.stdout if ended.returncode == 0 else b"", command[0], host)

    def _answer(self, data: bytes, helper: str, host: str) -> Login:
        try:
            answer = json.loads(data)
            user, secret = str(answer["Username"]), str(answer["Secret"])
        except (ValueError, KeyError, TypeError) as error:  # what it printed may hold a secret: it is not repeated
            raise MachineError(f"{host}: credential helper {helper} gave no login", hint=f"see {self._path}") from error
        return Login(identity_token=secret) if user == "<token>" else Login(user=user, password=secret)


def _mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _same(key: str, host: str) -> bool:
    """Whether a key of the file (a host, or an address with scheme and path) means this registry."""
    bare = re.sub(r"^https?://", "", key).partition("/")[0]
    return bare == host or (host == HUB and bare in HUB_NAMES)
