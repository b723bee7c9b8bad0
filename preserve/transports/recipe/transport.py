"""Images that are built: ``build:FOLDER``, a folder with image.yaml (no engine needed) or with a Dockerfile."""

from __future__ import annotations

import fcntl
import os
import platform as machine
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from preserve.digest import Digest
from preserve.documents import jsonform
from preserve.documents.counted import counted
from preserve.documents.lockfile import ImagePin, PackagePin, image_pin
from preserve.errors import DigestMismatch, MachineError, PreserveError, UserError
from preserve.interfaces import Progress, Silent
from preserve.oci import Layout
from preserve.transports.copying import copy_image
from preserve.transports.docker_daemon import DockerDaemonTransport, build_image
from preserve.transports.oci_layout import LayoutSource
from preserve.transports.recipe.apt import Apt
from preserve.transports.recipe.build import ARCHITECTURES, BUILDER, Builder, Ingredients, layer_names, write_whole
from preserve.transports.recipe.debian import DebianPackages
from preserve.transports.recipe.folder import RecipeFolder, context_digest, is_dockerfile, read_folder
from preserve.transports.recipe.parcels import Parcels
from preserve.transports.recipe.wheels import choose_wheels, target_of

Pins = tuple[PackagePin, ...]


class RecipeTransport:
    """Builds images of recipe folders below ``root``; what was fetched and built stays in ``cache``.

    ``pins`` are the packages of the lock by image reference (``build:image/``): they are taken again, to the byte,
    unless ``update`` asks for what the mirrors have now. ``environment`` is the caller's, of which apt and pip see
    only where to look (child.py). ``docker_host`` is the engine that builds Dockerfiles (``None``: the usual socket).
    """

    scheme = "build"

    def __init__(
        self,
        *,
        root: Path,
        cache: Path,
        environment: Mapping[str, str],
        pins: Mapping[str, Pins] | None = None,
        docker_host: str | None = None,
        progress: Progress | None = None,
        update: bool = False,
    ) -> None:
        self._root, self._cache, self._environment = root, cache.absolute(), environment
        self._pins, self._progress, self._update = pins or {}, progress or Silent(), update
        self._docker_host = docker_host

    def resolve(self, reference: str, *, platform: str) -> ImagePin:
        """Build the image, or find it built, and pin it with its packages; see ``interfaces.Transport``."""
        name = reference.removeprefix("build:")
        pins = () if self._update else self._pins.get(f"build:{name}", ())
        with self._locked():
            return self._built(name, platform, pins, fresh=self._update)

    def copy_to_layout(self, image: ImagePin, layout: Path) -> None:
        """Copy the pinned image, built again from its packages if it is not here; see ``interfaces.Transport``."""
        with self._locked():
            source = LayoutSource(self._layout())
            try:
                copy_image(image, source, layout, progress=self._progress)
            except DigestMismatch:  # not here, or damaged: both are mended by building it again
                self._rebuild(image)
                copy_image(image, source, layout, progress=self._progress)

    def _rebuild(self, image: ImagePin) -> None:
        built = self._built(image.reference.removeprefix("build:"), image.platform, image.packages, fresh=True)
        if built.manifest_digest != image.manifest_digest:
            raise DigestMismatch(
                f"{image.reference}: built again it is {built.manifest_digest}, pinned is {image.manifest_digest}: "
                + difference(image, built, self._layout()),
                hint="restore the recipe as it was when it was locked, or lock the new image: preserve lock --update",
            )

    def _built(self, name: str, platform: str, pins: Pins, *, fresh: bool) -> ImagePin:
        if is_dockerfile(self._root / name):
            key = context_digest(self._root / name, platform)
            return self._kept(key, (), fresh=fresh) or self._keep(key, {()}, self._from_dockerfile(name, platform))
        folder = read_folder(self._root / name, name)
        _require_machine(platform, name)
        key = folder.digest(platform, BUILDER)
        if kept := self._kept(key, pins, fresh=fresh):
            return replace(kept, reference=f"build:{name}")
        pin = replace(self._from_recipe(folder, platform, pins), reference=f"build:{name}")
        return self._keep(key, {pins, pin.packages}, pin)

    def _from_dockerfile(self, name: str, platform: str) -> ImagePin:
        image_id = build_image(self._root / name, name=name.rstrip("/") + "/", host=self._docker_host)
        daemon = DockerDaemonTransport(host=self._docker_host, scratch=self._layout().path, progress=self._progress)
        return replace(daemon.resolve(f"docker-daemon:{image_id}", platform=platform), reference=f"build:{name}")

    def _from_recipe(self, folder: RecipeFolder, platform: str, pins: Pins) -> ImagePin:
        recipe, architecture = folder.recipe, ARCHITECTURES[platform]
        debs, wheels = Parcels(self._cache / "debs"), Parcels(self._cache / "wheels")
        apt = Apt(
            self._cache / "apt",
            suite=recipe.debian.suite,
            architecture=architecture.debian,
            environment=self._environment,
        )
        packages = DebianPackages(apt, debs, image=recipe.file, progress=self._progress).choose(recipe, pins)
        target = target_of(packages, machine=architecture.machine)
        if folder.requirements:
            if target is None:
                raise UserError(
                    f"{recipe.file}: Python packages are listed, but the image has no Python",
                    hint="add python3 (or python3-minimal) to the Debian packages",
                )
            packages += choose_wheels(
                folder.requirements,
                pins,
                wheels,
                target=target,
                environment=self._environment,
                what=f"{recipe.python} of {recipe.file}",
            )
        builder = Builder(layout=self._layout(), layers=self._cache / "layers", debs=debs, wheels=wheels)
        image = builder.build(
            Ingredients(recipe=recipe, platform=platform, packages=packages, target=target, files=folder.files)
        )
        return ImagePin(
            reference=f"build:{recipe.file}",
            platform=platform,
            manifest_digest=image.manifest.digest,
            config_digest=image.config.digest,
            diff_ids=image.diff_ids,
            packages=packages,
        )

    def _layout(self) -> Layout:
        return Layout(self._cache / "layout").create()

    def _kept(self, key: Digest, pins: Pins, *, fresh: bool) -> ImagePin | None:
        """The image that this recipe gave with these pins, if all of it is still here."""
        note = self._note(key, pins)
        if fresh or not note.is_file():
            return None
        try:
            pin = image_pin(jsonform.load(note.read_bytes(), note.name))
            image = self._layout().image(pin.manifest_digest)
        except (PreserveError, KeyError, TypeError):
            return None  # a damaged note of ours: the image is made again
        return pin if all(self._layout().has(blob) for blob in image.blobs) else None

    def _keep(self, key: Digest, wanted: set[Pins], pin: ImagePin) -> ImagePin:
        for pins in wanted:
            note = self._note(key, pins)
            note.parent.mkdir(parents=True, exist_ok=True)
            write_whole(note, jsonform.dump(asdict(pin)))
        return pin

    def _note(self, key: Digest, pins: Pins) -> Path:
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
            self._sweep()
            yield
        except OSError as error:
            raise MachineError(
                f"an image cannot be built in {self._cache}: {error}", hint="see that there is room on the disk"
            ) from error
        finally:
            os.close(handle)

    def _sweep(self) -> None:
        """Remove what a killed build has left: with the lock held, nothing of it is in use."""
        for folder in (self._cache, self._cache / "debs", self._cache / "wheels"):
            for left in folder.glob(".[bdw]*-*"):  # .building-, .debs-, .wheels-, .writing-
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _require_machine(platform: str, name: str) -> None:
    if platform not in ARCHITECTURES:
        raise UserError(f"{name}: images for {platform} are not built", hint=f"possible: {', '.join(ARCHITECTURES)}")
    if machine.machine() != ARCHITECTURES[platform].machine:
        raise MachineError(
            f"{name}: an image for {platform} is built on such a machine, this is {machine.machine()}",
            hint="build it there and copy its .preserve/images, or use an image of a registry",
        )


def difference(pinned: ImagePin, built: ImagePin, layout: Layout) -> str:
    """In what an image that was built again differs from its pin; ``layout`` holds the new one."""
    if not pinned.packages and not built.packages:
        return "a Dockerfile does not fix what it builds"
    old, new = set(pinned.packages), set(built.packages)
    if old != new:
        gone = ", ".join(f"{pin.name} {pin.version}" for pin in sorted(old - new)) or "nothing"
        come = ", ".join(f"{pin.name} {pin.version}" for pin in sorted(new - old)) or "nothing"
        return f"the pinned {gone} is not in it, and {come} is in it that is not pinned"
    if len(pinned.diff_ids) != len(built.diff_ids):
        layers = counted(len(built.diff_ids), "layer")
        return f"it has {layers} in place of {len(pinned.diff_ids)} (files were added or removed)"
    both = zip(layer_names(layout, built), pinned.diff_ids, built.diff_ids, strict=True)
    if other := [name for name, before, now in both if before != now]:
        return f"the packages are the same, the content of this layer is not: {', '.join(other)}"
    return "all layers are the same, the environment (or the version of preserve) is not"
