"""Logins in Docker's config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from preserve.errors import MachineError, UserError
from preserve.transports.credentials import Credentials, Login
from preserve.transports.names import HUB

AUTH = {"auth": "dTpwOnc="}  # u:p:w
LOGIN = Login(user="u", password="p:w")  # noqa: S106 - nobody's


def _credentials(tmp_path: Path, config: dict[str, Any]) -> Credentials:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return Credentials(tmp_path / "config.json", environment={"PATH": f"{tmp_path}:/usr/bin:/bin", "MARK": "seen"})


def _helper(tmp_path: Path, script: str) -> None:
    program = tmp_path / "docker-credential-test"
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("key", "host", "found"),
    [
        ("h.org", "h.org", True),
        ("https://h.org", "h.org", True),
        ("https://h.org/v2/", "h.org", True),
        ("h.org:5000", "h.org:5000", True),
        ("h.org", "h.org:5000", False),
        ("xh.org", "h.org", False),
        ("https://index.docker.io/v1/", HUB, True),
        ("docker.io", HUB, True),
    ],
)
def test_hosts(key: str, host: str, found: bool, tmp_path: Path) -> None:
    assert _credentials(tmp_path, {"auths": {key: AUTH}}).find(host) == (LOGIN if found else None)


def test_no_file_is_anonymous(tmp_path: Path) -> None:
    assert Credentials(None).find("h.org") is None
    assert Credentials(tmp_path / "none").find("h.org") is None


def test_forms(tmp_path: Path) -> None:
    auths = {"a": {"username": "u", "password": "p:w"}, "b": {"identitytoken": "t", "auth": AUTH["auth"]}, "c": {}}
    credentials = _credentials(tmp_path, {"auths": auths})
    assert [credentials.find(host) for host in "abc"] == [LOGIN, Login(identity_token="t"), None]  # noqa: S106


@pytest.mark.parametrize("auth", ["***", "bm9jb2xvbg==", "/w=="])
def test_damaged_logins_are_the_users(auth: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        _credentials(tmp_path, {"auths": {"h": {"auth": auth}}}).find("h")


def test_passwords_are_not_shown() -> None:
    assert "p:w" not in repr(LOGIN)
    assert "secret" not in repr(Login(identity_token="secret"))  # noqa: S106


@pytest.mark.parametrize("config", [{"credHelpers": {"h.org": "test"}}, {"credsStore": "test", "auths": {"h.org": {}}}])
def test_a_helper_is_asked(config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "leaked")
    script = """read -r host || :
    [ "$1 $host $MARK" = "get h.org seen" ] && [ -z "${CANARY-}" ] || exit 3
    echo '{"Username": "u", "Secret": "p:w"}'"""
    _helper(tmp_path, script)
    assert _credentials(tmp_path, config).find("h.org") == LOGIN


def test_a_helper_that_knows_nobody(tmp_path: Path) -> None:
    _helper(tmp_path, "echo 'credentials not found in native keychain'; exit 1")
    assert _credentials(tmp_path, {"credsStore": "test"}).find("h.org") is None


@pytest.mark.parametrize("script", ["exit 1", "echo p:w", "echo '{}'", "echo '[]'"])
def test_a_helper_that_fails_is_named_and_not_quoted(script: str, tmp_path: Path) -> None:
    _helper(tmp_path, script)
    with pytest.raises(MachineError, match="docker-credential-test") as caught:
        _credentials(tmp_path, {"credsStore": "test"}).find("h.org")
    assert "p:w" not in str(caught.value)


def test_a_helper_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="docker-credential-absent"):
        _credentials(tmp_path, {"credHelpers": {"h.org": "absent"}}).find("h.org")


def test_a_helper_is_a_name_not_a_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="helper"):
        _credentials(tmp_path, {"credsStore": "x/../../evil"}).find("h.org")
