"""Which image of an index is meant, and what is no image."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lying_registry import small_image

from preserve.digest import Digest
from preserve.errors import DigestMismatch, UserError
from preserve.oci import INDEX, MANIFEST, Descriptor
from preserve.transports.selection import Platform, make_pin, platform_manifest

Entries = list[tuple[str, bytes | None, str]]


class Shelf:
    """Documents by digest."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def put(self, data: bytes, kind: str = MANIFEST, **more: Any) -> dict[str, Any]:
        self.held[Digest.of(data)] = data
        return {"mediaType": kind, "digest": Digest.of(data), "size": len(data), **more}

    def index(self, *entries: dict[str, Any]) -> bytes:
        return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()

    def fetch(self, blob: Descriptor) -> bytes:
        return self.held[blob.digest]

    def choose(self, document: bytes, platform: str) -> bytes:
        return platform_manifest(document, platform=platform, what="it", fetch=self.fetch)


def _named(text: str) -> dict[str, str]:
    return dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))


@pytest.mark.parametrize(
    ("have", "asked", "found"),
    [
        (("linux/amd64", "linux/arm64"), "linux/arm64", "linux/arm64"),
        (("linux/arm64/v8",), "linux/arm64", "linux/arm64/v8"),
        (("linux/arm64",), "linux/arm64/v8", "linux/arm64"),
        (("linux/arm/v6", "linux/arm/v7"), "linux/arm", "linux/arm/v7"),
        (("linux/arm/v6", "linux/arm/v7"), "linux/arm/v6", "linux/arm/v6"),
        (("linux/arm/v6",), "linux/arm", "linux/arm/v6"),
        (("linux/amd64", "linux/amd64/v3"), "linux/amd64", "linux/amd64"),
        (("linux/amd64", "unknown/unknown"), "linux/x86_64", "linux/amd64"),
        (("linux/amd64", "windows/amd64"), "linux/amd64", "linux/amd64"),
        (("linux/arm/v7",), "linux/arm/v6", None),
        (("linux/arm/v5", "linux/arm/v6"), "linux/arm", None),
        (("windows/amd64",), "linux/amd64", None),
        ((), "linux/amd64", None),
    ],
)
def test_platforms(have: tuple[str, ...], asked: str, found: str | None) -> None:
    shelf = Shelf()
    index = shelf.index(*(shelf.put(name.encode(), platform=_named(name)) for name in have))
    if found is None:
        with pytest.raises(UserError):
            shelf.choose(index, asked)
    else:
        assert shelf.choose(index, asked) == found.encode()


@pytest.mark.parametrize("text", ["linux", "linux/", "/amd64", "a/b/c/d", ""])
def test_malformed_platforms(text: str) -> None:
    with pytest.raises(UserError, match="platform"):
        Platform.read(text)


def test_an_index_in_an_index_and_platforms_told_by_configs_only() -> None:
    shelf = Shelf()
    images = [small_image(b"1", architecture=architecture) for architecture in ("amd64", "arm64")]
    for image in images:
        shelf.put(image.config)
    inner = shelf.index(*(shelf.put(image.manifest) for image in images))
    assert shelf.choose(shelf.index(shelf.put(inner, INDEX)), "linux/arm64") == images[1].manifest


def test_two_images_of_one_platform_need_a_digest() -> None:
    shelf = Shelf()
    platform = _named("linux/amd64")
    index = shelf.index(shelf.put(b"1", platform=platform), shelf.put(b"2", platform=platform))
    with pytest.raises(UserError, match="2 images") as caught:
        shelf.choose(index, "linux/amd64")
    assert str(Digest.of(b"2")) in (caught.value.hint or "")


def test_indexes_too_deep() -> None:
    shelf = Shelf()
    document = shelf.index()
    for _ in range(5):
        document = shelf.index(shelf.put(document, INDEX))
    with pytest.raises(DigestMismatch, match="deep"):
        shelf.choose(document, "linux/amd64")


@pytest.mark.parametrize(
    "document",
    [
        b'{"manifests": [], "layers": []}',
        b'{"manifests": [], "config": {}}',
        b'{"manifests": {}}',
        b'{"manifests": [1]}',
        b'{"manifests": [{"digest": "../x", "size": 1}]}',
        b'{"manifests": [], "manifests": []}',
        b"[]",
        b"",
    ],
)
def test_malformed_indexes(document: bytes) -> None:
    with pytest.raises(DigestMismatch):
        Shelf().choose(document, "linux/amd64")


def test_too_many_entries() -> None:
    shelf = Shelf()
    with pytest.raises(DigestMismatch, match="1000"):
        shelf.choose(shelf.index(*[shelf.put(b"1")] * 1001), "linux/amd64")


def test_the_config_has_the_last_word_on_the_platform() -> None:
    shelf, image = Shelf(), small_image(b"1", architecture="arm64")
    shelf.put(image.config)
    with pytest.raises(UserError, match="linux/arm64, not for linux/amd64"):
        make_pin(image.manifest, reference="it", platform="linux/amd64", fetch=shelf.fetch)
