"""References as people write them."""

from __future__ import annotations

import importlib

import pytest

from preserve.digest import Digest
from preserve.errors import UserError
from preserve.transports import BUILT_INS, split_reference
from preserve.transports.docker_daemon import read_daemon_name
from preserve.transports.names import HUB, is_loopback, read_name
from preserve.transports.oci_layout import read_layout_name

D = "sha256:" + "a1" * 32


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("docker://h.org/a:1", ("docker", "h.org/a:1")),
        ("h.org/a/b@" + D, ("docker", "h.org/a/b@" + D)),
        ("python:3.12", ("docker", "python:3.12")),
        ("docker:dind", ("docker", "docker:dind")),
        ("docker-daemon:a:1", ("docker-daemon", "a:1")),
        ("docker-daemon:" + D, ("docker-daemon", D)),
        ("oci:images/a:1", ("oci", "images/a:1")),
    ],
)
def test_schemes(reference: str, expected: tuple[str, str]) -> None:
    assert split_reference(reference) == expected


@pytest.mark.parametrize(
    "reference",
    [
        "",
        " ",
        "a b",
        "docker://",
        "oci:",
        "docker-daemon:",
        "oci-archive:a.tar",
        "https://h/a",
        "x://y",
        "a\0",
    ],
)
def test_other_schemes_are_the_users(reference: str) -> None:
    with pytest.raises(UserError) as caught:
        split_reference(reference)
    assert caught.value.hint


@pytest.mark.parametrize("scheme", sorted(BUILT_INS))
def test_built_ins_exist(scheme: str) -> None:
    module, _, name = BUILT_INS[scheme].partition(":")
    assert getattr(importlib.import_module(module), name).scheme == scheme


@pytest.mark.parametrize(
    ("reference", "host", "repository", "selector"),
    [
        ("python:3.12", HUB, "library/python", "3.12"),
        ("python", HUB, "library/python", "latest"),
        ("rootproject/root:6", HUB, "rootproject/root", "6"),
        ("docker.io/python", HUB, "library/python", "latest"),
        ("docker://docker.io/a/b:x", HUB, "a/b", "x"),
        ("localhost/a", "localhost", "a", "latest"),
        ("127.0.0.1:5000/a/b__c:1", "127.0.0.1:5000", "a/b__c", "1"),
        ("[::1]:5000/a:1", "[::1]:5000", "a", "1"),
        (f"h.org/a:1@{D}", "h.org", "a", D),
    ],
)
def test_names(reference: str, host: str, repository: str, selector: str) -> None:
    name = read_name(reference)
    assert (name.host, name.repository, name.selector) == (host, repository, selector)


@pytest.mark.parametrize(
    "reference",
    [
        "h.org/A",
        "h.org/a:",
        "h.org/a:-x",
        "h.org/",
        "h.org//a",
        "h.org/a@sha256:12",
        "h.org/a@sha512:" + "0" * 128,
        "h.org/../a",
        "h.org/a?b",
        "h.org/a#b",
        "u@h.org/a",
        "h.org/a:1:2",
        "oci:a",
        "-h.org/a",
        "h.org/a/" + "b" * 255,
    ],
)
def test_malformed_names_are_the_users(reference: str) -> None:
    with pytest.raises(UserError):
        read_name(reference)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("127.3.2.1:80", True),
        ("[::1]:5000", True),
        ("h.org", False),
        ("10.0.0.1:5000", False),
        ("localhost.org:5000", False),
        ("127.0.0.1.org", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("reference", "folder", "tag", "digest"),
    [
        ("oci:a", "a", None, None),
        ("oci:a/b:1", "a/b", "1", None),
        ("oci:/x:y/b", "/x:y/b", None, None),
        ("oci:a@" + D, "a", None, Digest(D)),
    ],
)
def test_layouts(reference: str, folder: str, tag: str | None, digest: Digest | None) -> None:
    name = read_layout_name(reference)
    assert (name.folder, name.tag, name.digest) == (folder, tag, digest)


@pytest.mark.parametrize("reference", ["docker://a", "oci:a@sha256:12", "oci:@" + D])
def test_malformed_layouts_are_the_users(reference: str) -> None:
    with pytest.raises(UserError):
        read_layout_name(reference)


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("docker-daemon:a", "a:latest"),
        ("docker-daemon:h:1/a", "h:1/a:latest"),
        ("docker-daemon:a:1", "a:1"),
        ("docker-daemon:" + D, D),
        (f"docker-daemon:a@{D}", f"a@{D}"),
    ],
)
def test_daemon_names(reference: str, name: str) -> None:
    assert read_daemon_name(reference) == name


@pytest.mark.parametrize("reference", ["docker-daemon:sha256:12", "docker-daemon:-a", "docker-daemon:/etc", "oci:a"])
def test_malformed_daemon_names_are_the_users(reference: str) -> None:
    with pytest.raises(UserError):
        read_daemon_name(reference)
