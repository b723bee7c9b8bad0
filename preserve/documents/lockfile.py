"""The lock: preserve.lock, which pins every image and input by digest and names the commit of the code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from preserve.digest import Digest
from preserve.documents import jsonform
from preserve.documents.typed import typed
from preserve.errors import PreserveError, UserError

SCHEMA = "preserve/lock/1"
_REMEDY = "restore it: git checkout -- preserve.lock; or make it anew: rm preserve.lock, then preserve lock"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PackagePin:
    """One package that went into a built image: ``kind`` (debian, python), name, version and the archive's digest."""

    kind: str
    name: str
    version: str
    sha256: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePin:
    """An image of one platform: what a registry serves it by and what a loaded image is known by.

    ``reference`` is as written in preserve.yaml. ``packages`` is filled for images built from a recipe.
    """

    reference: str
    platform: str  # "linux/amd64"
    manifest_digest: Digest
    config_digest: Digest
    diff_ids: tuple[Digest, ...]
    packages: tuple[PackagePin, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPin:
    """Input data: sha256, size in bytes, and where they can be fetched again."""

    sha256: Digest
    size: int
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePin:
    """The code's version: git commit and tree id, and whether the work tree had no other changes."""

    commit: str
    tree: str
    clean: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """preserve.lock. ``epoch`` (seconds since 1970, UTC) is the SOURCE_DATE_EPOCH that steps see.

    ``recipes`` gives, by the image's name, the digest of the recipe of which the image was built, ``suites`` the Debian
    suite that its packages are of.
    """

    images: Mapping[str, ImagePin]
    inputs: Mapping[str, InputPin]
    source: SourcePin | None
    epoch: int
    recipes: Mapping[str, Digest] = field(default_factory=dict)
    suites: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Give the file's bytes: the same lock gives the same bytes."""
        return jsonform.dump({"schema": SCHEMA, **_plain(asdict(self))})


def read_lock(data: bytes, file: str) -> Lock:
    """Read preserve.lock.

    Raises:
        UserError: it is damaged or of another version.
    """
    value = jsonform.load(data, file, schema=SCHEMA, remedy=_REMEDY)
    try:
        lock = Lock(
            images={name: image_pin(pin) for name, pin in value["images"].items()},
            inputs={path: _input_pin(pin) for path, pin in value["inputs"].items()},
            source=None if value["source"] is None else SourcePin(**value["source"]),
            epoch=value["epoch"],
            recipes={name: Digest(digest) for name, digest in value.get("recipes", {}).items()},
            suites=value.get("suites", {}),
        )
        return typed(lock)
    except (KeyError, TypeError, ValueError, AttributeError, PreserveError) as error:
        raise UserError(f"{file}: damaged: {error}", hint=_REMEDY) from error


def image_pin(value: Mapping[str, Any]) -> ImagePin:
    """Read one image's pin from its JSON form."""
    return ImagePin(
        reference=value["reference"],
        platform=value["platform"],
        manifest_digest=Digest(value["manifest_digest"]),
        config_digest=Digest(value["config_digest"]),
        diff_ids=tuple(Digest(diff_id) for diff_id in value["diff_ids"]),
        packages=tuple(PackagePin(**{**p, "sha256": Digest(p["sha256"])}) for p in value.get("packages", ())),
    )


def _input_pin(value: Mapping[str, Any]) -> InputPin:
    return InputPin(sha256=Digest(value["sha256"]), size=value["size"], url=value.get("url"))


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    for name in ("recipes", "suites"):
        if not value[name]:
            del value[name]
    for pin in value["images"].values():
        if not pin["packages"]:
            del pin["packages"]
    for pin in value["inputs"].values():
        if pin["url"] is None:
            del pin["url"]
    return value
