"""An image recipe: image.yaml, which says what an image is made of (docs/reference/image-recipe.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from preserve.documents import fields, paths
from preserve.documents.faults import Faults
from preserve.documents.yaml12 import Node, ScalarNode, decode, read_tree

FILE = "image.yaml"
KEYS = ("debian", "python", "files", "environment")
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
    the recipe folder (folders end in ``/``); ``file`` names the recipe in messages.
    """

    file: str
    debian: DebianPart
    python: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def read_recipe(data: bytes, file: str) -> Recipe:
    """Read image.yaml; ``file`` is its name in messages.

    Raises:
        DocumentError: it has faults, all of which are listed.
    """
    faults = Faults(file)
    tree = read_tree(decode(data, faults), faults)
    found = fields.record(tree, file, faults, known=KEYS, required=("debian",))
    recipe = Recipe(
        file=file,
        debian=_debian(found.get("debian"), faults),
        python=_path(found.get("python"), "python", faults),
        files=_files(found.get("files"), faults),
        environment=_environment(found.get("environment"), faults),
    )
    faults.raise_any()
    return recipe


def _debian(node: Node | None, faults: Faults) -> DebianPart:
    if node is None:
        return DebianPart(suite="", packages=())
    keys = ("suite", "packages")
    found = fields.record(node, "debian", faults, known=keys, required=keys)
    suite = fields.line(found.get("suite"), "suite", faults) or ""
    if suite and not _SUITE.fullmatch(suite):
        place = found["suite"]
        faults.add(place, f'suite: "{suite}" is not a release\'s code name', "write it as Debian does: bookworm")
    packages = fields.items(found.get("packages"), "packages", faults)
    if "packages" in found and not packages:
        faults.add(found["packages"], "packages names no package", "a shell is needed at least: [busybox-static]")
    names = [_package(item, faults) for item in packages]
    return DebianPart(suite=suite, packages=tuple(sorted({name for name in names if name})))


def _package(node: Node, faults: Faults) -> str | None:
    name = fields.line(node, "a package", faults)
    if name and not _PACKAGE.fullmatch(name):
        hint = "write the name alone: versions are pinned by preserve.lock"
        faults.add(node, f'"{name}" is not the name of a Debian package', hint)
        return None
    return name


def _path(node: Node | None, what: str, faults: Faults) -> str | None:
    """A path below the recipe folder, or below the image's root."""
    path = fields.line(node, what, faults)
    if path is None or node is None:
        return None
    problem = paths.problem(path) or (("wildcards", "name one file") if paths.is_pattern(path) else None)
    if problem:
        faults.add(node, f"{what}: {problem[0]}", problem[1])
        return None
    return path


def _files(node: Node | None, faults: Faults) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in fields.keyed(node, "files", faults, hint="write path/in/the/image: path/in/the/recipe"):
        target, source = _path(key, "files", faults), _path(value, f"files: {key.text}", faults)
        if target and source and target.endswith("/") != source.endswith("/"):
            faults.add(key, f'files: "{target}" and "{source}"', "a folder ends in / on both sides, a file on none")
        elif target and source:
            found[target] = source
    return found


def _environment(node: Node | None, faults: Faults) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in fields.keyed(node, "environment", faults):
        if not _VARIABLE.fullmatch(key.text):
            faults.add(key, f'environment: "{key.text}" is not the name of a variable', "letters, digits and _")
        elif isinstance(value, ScalarNode) and value.style and not value.text:
            found[key.text] = ""
        elif (text := fields.line(value, f"environment: {key.text}", faults)) is not None:
            found[key.text] = text
    return found
