"""An image recipe: image.yaml, which says what an image is made of (docs/reference/image-recipe.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from preserve.errors import DocumentError, Fault

FILE = "image.yaml"
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")  # Debian policy 5.6.7
_SUITE = re.compile(r"[a-z][a-z0-9]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianPart:
    """Debian packages by name, without versions (the lock pins those), and the suite they come from (``bookworm``)."""

    suite: str
    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What an image is made of.

    ``python`` is the recipe folder's file of hash-locked requirements; ``files`` maps paths in the image to paths in
    the recipe folder (folders end in ``/``); ``data`` is the file as read.
    """

    file: str
    data: bytes
    debian: DebianPart
    python: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def read_recipe(data: bytes, file: str) -> Recipe:
    """Read image.yaml; ``file`` names it in messages.

    Raises:
        DocumentError: it has faults, all of which are listed.
    """
    return _Reading(file).recipe(data)


class _Reading:
    """Collects the faults of one file, so that all are told at once."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []
        self.places: dict[str, tuple[int, int]] = {}

    def recipe(self, data: bytes) -> Recipe:
        value = self.mapping(self.load(data), "")
        self.known(value, "", ("debian", "python", "files", "environment"))
        debian = self.debian(self.mapping(value.get("debian", {}), "debian"))
        python = self.python(value.get("python"))
        files = self.files(self.mapping(value.get("files") or {}, "files"))
        environment = self.environment(self.mapping(value.get("environment") or {}, "environment"))
        if self.faults:
            raise DocumentError(tuple(self.faults))
        return Recipe(file=self.file, data=data, debian=debian, python=python, files=files, environment=environment)

    def load(self, data: bytes) -> Any:
        try:
            return yaml.safe_load(data)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            fault = Fault(file=self.file, line=line, column=column, message=f"not YAML: {error}")
            raise DocumentError((fault,)) from error

    def fault(self, place: str, message: str, hint: str | None = None) -> None:
        line, column = self.places.get(place, (1, 1))
        self.faults.append(Fault(file=self.file, line=line, column=column, message=message, hint=hint))

    def mapping(self, value: Any, place: str) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        self.fault(place, f"{place or self.file}: expected a mapping, found {type(value).__name__}")
        return {}

    def known(self, value: dict[str, Any], place: str, keys: tuple[str, ...]) -> None:
        for key in value:
            if key not in keys:
                self.fault(f"{place}.{key}".lstrip("."), f"unknown key {key!r}", "known are: " + ", ".join(keys))

    def debian(self, value: dict[str, Any]) -> DebianPart:
        self.known(value, "debian", ("suite", "packages"))
        suite, packages = value.get("suite"), value.get("packages")
        if not isinstance(suite, str) or not _SUITE.fullmatch(suite):
            self.fault("debian", f"debian: suite {suite!r} is not a Debian release's code name", "write suite: bookworm")
        if not isinstance(packages, list) or not packages:
            self.fault("debian", "debian: packages must be a list of names", "packages: [busybox-static, python3]")
            packages = []
        for number, name in enumerate(packages):
            if not isinstance(name, str) or not _PACKAGE.fullmatch(name):
                hint = "versions are pinned by preserve.lock, not written here"
                self.fault(f"debian.packages[{number}]", f"{name!r} is not the name of a Debian package", hint)
        return DebianPart(suite=str(suite), packages=tuple(sorted({str(name) for name in packages})))

    def python(self, value: Any) -> str | None:
        if value is not None and (not isinstance(value, str) or not _inside(value) or value.endswith("/")):
            self.fault("python", f"python: {value!r} is not a file of the recipe folder", "write python: requirements.lock")
            return None
        return value

    def files(self, value: dict[str, Any]) -> dict[str, str]:
        for target, source in value.items():
            place = f"files.{target}"
            if not isinstance(target, str) or not _inside(target):
                self.fault(place, f"files: {target!r} is not a path in the image", "write it without the leading /")
            elif not isinstance(source, str) or not _inside(source):
                self.fault(place, f"files: {source!r} is not a path in the recipe folder")
            elif target.endswith("/") != source.endswith("/"):
                self.fault(place, f"files: {target!r} and {source!r}: a folder ends in / on both sides")
        return dict(value)

    def environment(self, value: dict[str, Any]) -> dict[str, str]:
        for name, text in value.items():
            if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
                self.fault(f"environment.{name}", f"environment: {name!r} is not the name of a variable")
            elif not isinstance(text, str) or "\0" in text:
                self.fault(f"environment.{name}", f"environment: {name} is not text", "put the value in quotes")
        return dict(value)


def _inside(path: str) -> bool:
    """Whether a path stays in its folder and has one spelling only."""
    parts = path.removesuffix("/").split("/")
    return path.isprintable() and all(part not in ("", ".", "..") for part in parts)
