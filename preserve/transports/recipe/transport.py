"""Images that are built: ``build:FOLDER``, a folder with image.yaml (no engine needed) or with a Dockerfile."""

from __future__ import annotations

import fcntl
import os
import platform as machine
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from preserve.digest import Digest
from preserve.documents import jsonform
from preserve.documents.lockfile import ImagePin, PackagePin, image_pin
from preserve.documents.recipe import FILE, Recipe, read_recipe
from preserve.documents.requirements import read_requirements
from preserve.errors import DigestMismatch, MachineError, PreserveError, UserError
from preserve.interfaces import Progress, Silent
from preserve.oci import Layout
from preserve.transports.copying import copy_image
from preserve.transports.oci_layout import LayoutSource
from preserve.transports.recipe.apt import Apt
from preserve.transports.recipe.build import ARCHITECTURES, BUILDER, Builder, Ingredients, layer_names, write_whole
from preserve.transports.recipe.debian import DebianPackages
from preserve.transports.recipe.parcels import Parcels
from preserve.transports.recipe.wheels import choose_wheels, target_of

Files = Mapping[str, tuple[bytes, bool]]


class RecipeTransport:
    """Builds images of recipe folders below ``root``; what was fetched and built stays in ``cache``.

    ``pins`` are the packages of the lock by image reference (``build:image/``): they are taken again, to the byte,
    unless ``update`` asks for what the mirrors have now. ``environment`` is the caller's, of which apt and pip see
    only where to look (child.py).
    """

    scheme = "build"

    def __init__(
        self,
        *,
        root: Path,
        cache: Path,
        environment: Mapping[str, str],
        pins: Mapping[str, tuple[PackagePin, ...]] | None = None,
        progress: Progress | None = None,
        update: bool = False,
    ) -> None:
        self._root, self._cache, self._environment = root, cache.absolute(), environment
        self._pins, self._progress, self._update = pins or {}, progress or Silent(), update

    def resolve(self, reference: str, *, platform: str) -> ImagePin:
        """Build the image, or find it built, and pin it with its packages; see ``interfaces.Transport``."""
        name = reference.removeprefix("build:")
        pins = () if self._update else self._pins.get(f"build:{name}", self._pins.get(name, ()))
        with self._locked():
            return self._built(name, platform, pins, fresh=self._update)

    def copy_to_layout(self, image: ImagePin, layout: Path) -> None:
        """Copy the pinned image, built again from its packages if it is not here; see ``interfaces.Transport``."""
        with self._locked():
            try:
                copy_image(image, LayoutSource(self._layout()), layout, progress=self._progress)
            except DigestMismatch:  # not here, or damaged: both are mended by building it again
                self._rebuild(image)
                copy_image(image, LayoutSource(self._layout()), layout, progress=self._progress)

    def _rebuild(self, image: ImagePin) -> None:
        built = self._built(image.reference.removeprefix("build:"), image.platform, image.packages, fresh=True)
        if built.manifest_digest != image.manifest_digest:
            raise DigestMismatch(
                f"{image.reference}: built again it is {built.manifest_digest}, pinned is {image.manifest_digest}: "
                + self._difference(image, built),
                hint="restore the recipe as it was when it was locked, or lock the new image: preserve lock --update",
            )

    def _difference(self, pinned: ImagePin, built: ImagePin) -> str:
        old, new = set(pinned.packages), set(built.packages)
        if old != new:
            gone = ", ".join(f"{pin.name} {pin.version}" for pin in sorted(old - new)) or "nothing"
            come = ", ".join(f"{pin.name} {pin.version}" for pin in sorted(new - old)) or "nothing"
            return f"the recipe no longer has {gone}, and it has {come} in addition"
        if len(pinned.diff_ids) != len(built.diff_ids):
            return f"it has {len(built.diff_ids)} layers in place of {len(pinned.diff_ids)}"
        names = layer_names(self._layout(), built)
        both = zip(names, pinned.diff_ids, built.diff_ids, strict=True)
        other = [name for name, before, now in both if before != now]
        if other:
            return f"the packages are the same, other is the content of: {', '.join(other)}"
        return "all layers are the same, other are the environment or the version of preserve"

    def _built(self, name: str, platform: str, pins: tuple[PackagePin, ...], *, fresh: bool) -> ImagePin:
        folder = self._root / name
        if platform not in ARCHITECTURES:
            raise UserError(
                f"{name}: images for {platform} are not built", hint=f"possible: {', '.join(ARCHITECTURES)}"
            )
        recipe, files, requirements = read_folder(folder, name)
        key = _key(recipe, files, requirements, platform)
        if not fresh and (kept := self._kept(key, pins)):
            return replace(kept, reference=f"build:{name}")
        pin = self._build(recipe, files, requirements, platform, pins)
        for packages in {pins, pin.packages}:
            self._keep(key, packages, pin)
        return pin

    def _build(
        self, recipe: Recipe, files: Files, requirements: bytes | None, platform: str, pins: tuple[PackagePin, ...]
    ) -> ImagePin:
        architecture = ARCHITECTURES[platform]
        if machine.machine() != architecture.machine:
            raise MachineError(
                f"{recipe.file}: an image for {platform} is built on such a machine, this is {machine.machine()}"
            )
        debs, wheels = Parcels(self._cache / "debs"), Parcels(self._cache / "wheels")
        apt = Apt(
            self._cache / "apt",
            suite=recipe.debian.suite,
            architecture=architecture.debian,
            environment=self._environment,
        )
        packages = DebianPackages(apt, debs, image=recipe.file, progress=self._progress).choose(recipe, pins)
        target = target_of(packages, machine=architecture.machine)
        if recipe.python is not None and requirements is not None:
            if target is None:
                raise UserError(
                    f"{recipe.file}: Python packages are listed, but the image has no Python",
                    hint="add python3 (or python3-minimal) to the Debian packages",
                )
            locked = read_requirements(requirements, recipe.python)
            packages += choose_wheels(
                locked, pins, wheels, target=target, environment=self._environment, what=recipe.python
            )
        parts = Ingredients(recipe=recipe, platform=platform, packages=packages, target=target, files=files)
        layers = self._cache / "layers"
        image = Builder(layout=self._layout(), layers=layers, debs=debs, wheels=wheels).build(parts)
        return ImagePin(
            reference=f"build:{recipe.file.removesuffix(FILE)}",
            platform=platform,
            manifest_digest=image.manifest.digest,
            config_digest=image.config.digest,
            diff_ids=image.diff_ids,
            packages=packages,
        )

    def _layout(self) -> Layout:
        return Layout(self._cache / "layout").create()

    def _kept(self, key: Digest, pins: tuple[PackagePin, ...]) -> ImagePin | None:
        """The image that this recipe gave with these pins, if all of it is still here."""
        note = self._note(key, pins)
        if not note.is_file():
            return None
        try:
            pin = image_pin(jsonform.load(note.read_bytes(), note.name))
            image = self._layout().image(pin.manifest_digest)
        except (PreserveError, KeyError, TypeError):
            return None  # a damaged note of ours: the image is made again
        return pin if all(self._layout().has(blob) for blob in image.blobs) else None

    def _keep(self, key: Digest, pins: tuple[PackagePin, ...], pin: ImagePin) -> None:
        note = self._note(key, pins)
        note.parent.mkdir(parents=True, exist_ok=True)
        write_whole(note, jsonform.dump(asdict(pin)))

    def _note(self, key: Digest, pins: tuple[PackagePin, ...]) -> Path:
        wanted = jsonform.canonical([key, *(asdict(pin) for pin in sorted(pins))])
        return self._cache / "built" / Digest.of(wanted).hex

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One build at a time in one cache; the lock goes with the process."""
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._cache / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise MachineError(f"cannot write in {self._cache}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise MachineError(f"an image cannot be built in {self._cache}: {error}") from error
        finally:
            os.close(handle)


def read_folder(folder: Path, name: str) -> tuple[Recipe, Files, bytes | None]:
    """Read a recipe folder: image.yaml, the files it names (contents and executable bits), and its requirements.

    Raises:
        UserError: something that it names is missing or is no file.
    """
    shown = f"{name.rstrip('/')}/{FILE}"
    if not (folder / FILE).is_file():
        raise UserError(f"{name}: no image recipe: {shown} is missing", hint="docs/reference/image-recipe.md shows one")
    recipe = read_recipe((folder / FILE).read_bytes(), shown)
    files: dict[str, tuple[bytes, bool]] = {}
    for target, source in sorted(recipe.files.items()):
        for path, found in _found(folder, source, shown):
            files[target + path] = (found.read_bytes(), bool(found.stat().st_mode & 0o100))
    requirements = next((found.read_bytes() for _, found in _found(folder, recipe.python, shown)), None)
    return recipe, files, requirements


def _found(folder: Path, source: str | None, shown: str) -> Iterator[tuple[str, Path]]:
    """Yield the file, or a folder's files with their paths below it; bytecode is not taken along."""
    if source is None:
        return
    start = folder / source
    if not source.endswith("/"):
        if not start.is_file():
            raise UserError(f"{shown}: {source} is not a file of the recipe folder")
        yield "", start
        return
    if not start.is_dir():
        raise UserError(f"{shown}: {source} is not a folder of the recipe folder")
    for path in sorted(start.rglob("*")):
        if path.is_symlink():
            raise UserError(f"{shown}: {path.relative_to(folder)} is a link", hint="put the file itself there")
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(start).as_posix(), path


def _key(recipe: Recipe, files: Files, requirements: bytes | None, platform: str) -> Digest:
    value = {
        "builder": BUILDER,
        "platform": platform,
        "debian": [recipe.debian.suite, *recipe.debian.packages],
        "environment": dict(recipe.environment),
        "files": {path: [Digest.of(data), executable] for path, (data, executable) in files.items()},
        "python": None if requirements is None else Digest.of(requirements),
    }
    return Digest.of(jsonform.canonical(value))
