"""From a recipe and its packages to an OCI image: one layer per part, all of it a function of bytes alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preserve.digest import Digest
from preserve.documents import jsonform
from preserve.documents.lockfile import ImagePin, PackagePin
from preserve.documents.recipe import Recipe
from preserve.errors import PreserveError
from preserve.oci import CONFIG, LAYER, MANIFEST, Descriptor, Image, Layout, load_json
from preserve.transports.recipe.bytecode import Interpreter, compile_tree
from preserve.transports.recipe.debian import KIND as DEBIAN
from preserve.transports.recipe.debian import assemble
from preserve.transports.recipe.parcels import Parcels
from preserve.transports.recipe.tree import FILE, PROGRAM, Spool, Tree
from preserve.transports.recipe.wheels import KIND as PYTHON
from preserve.transports.recipe.wheels import Target, unpack_wheel

BUILDER = "preserve/image/1"  # changes whenever the same packages would give other bytes
EPOCH = "1970-01-01T00:00:00Z"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A machine in the words of Debian (``amd64``), of wheels (``x86_64``) and of the C library."""

    debian: str
    machine: str
    triplet: str
    loader: str


ARCHITECTURES: Mapping[str, Architecture] = {
    "linux/amd64": Architecture(
        debian="amd64", machine="x86_64", triplet="x86_64-linux-gnu", loader="lib64/ld-linux-x86-64.so.2"
    ),
    "linux/arm64": Architecture(
        debian="arm64", machine="aarch64", triplet="aarch64-linux-gnu", loader="lib/ld-linux-aarch64.so.1"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """All that decides an image's bytes: ``files`` are contents and executable bits by path in the image."""

    recipe: Recipe
    platform: str
    packages: tuple[PackagePin, ...]
    target: Target | None
    files: Mapping[str, tuple[bytes, bool]]


class Builder:
    """Builds into one OCI layout, whose layers are kept by what they are made of (``layers`` next to it)."""

    def __init__(self, *, layout: Layout, layers: Path, debs: Parcels, wheels: Parcels) -> None:
        self._layout, self._layers, self._debs, self._wheels = layout, layers, debs, wheels

    def build(self, parts: Ingredients) -> Image:
        """Write what is missing of the image and give it.

        Raises:
            UserError: the parts do not fit together.
            MachineError: the image's programs do not run on this machine.
            DigestMismatch: a package's file is not here or was changed.
        """
        with (
            tempfile.TemporaryDirectory(dir=self._layout.path.parent, prefix=".building-") as scratch,
            Spool(Path(scratch)) as spool,
        ):
            work = _Work(parts, spool, Path(scratch), debs=self._debs, wheels=self._wheels)
            layers = [("Debian packages", self._layer(_key("debian", _lines(parts, DEBIAN)), work.debian))]
            if any(pin.kind == PYTHON for pin in parts.packages):
                key = _key("python", _lines(parts, PYTHON), repr(parts.target))
                layers.append(("Python packages", self._layer(key, work.python)))
            if parts.target is not None:
                key = _key("bytecode", *(layer.digest for _, layer in layers))
                layers.append(("bytecode", self._layer(key, work.bytecode)))
            if parts.files:
                layers.append(("files", self._layer(_key("files", *_file_lines(parts)), work.files)))
            return self._image(parts, layers)

    def _layer(self, key: Digest, tree: Callable[[], Tree]) -> Descriptor:
        """The layer of this key from an earlier build if it is whole, else a new one."""
        note = self._layers / key.hex
        if note.is_file() and (kept := self._kept(note)):
            return kept
        layer = self._layout.add(tree().tar())
        self._layers.mkdir(parents=True, exist_ok=True)
        write_whole(note, jsonform.dump({"digest": layer.digest, "size": layer.size}))
        return layer

    def _kept(self, note: Path) -> Descriptor | None:
        try:
            value = jsonform.load(note.read_bytes(), note.name)
            layer = Descriptor(media_type="", digest=Digest(value["digest"]), size=value["size"])
            self._layout.verify(layer)
        except (PreserveError, KeyError):
            return None  # removed or damaged: it is made again
        return layer

    def _image(self, parts: Ingredients, layers: list[tuple[str, Descriptor]]) -> Image:
        system, _, architecture = parts.platform.partition("/")
        variables = {"PATH": PATH, **parts.recipe.environment}
        config = {
            "architecture": architecture,
            "os": system,
            "created": EPOCH,
            "config": {
                "Env": [f"{name}={variables[name]}" for name in sorted(variables)],
                "Cmd": ["/bin/sh"],
                "WorkingDir": "/work",
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for _, layer in layers]},
            "history": [{"created": EPOCH, "created_by": BUILDER, "comment": what} for what, _ in layers],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._document(CONFIG, config),
            "layers": [{"mediaType": LAYER, "digest": layer.digest, "size": layer.size} for _, layer in layers],
        }
        image = self._layout.image(Digest(self._document(MANIFEST, manifest)["digest"]))
        self._layout.list_image(image)
        return image

    def _document(self, media_type: str, value: Any) -> dict[str, Any]:
        blob = self._layout.add_bytes(jsonform.canonical(value))
        return {"mediaType": media_type, "digest": str(blob.digest), "size": blob.size}


class _Work:
    """The trees of one build, each made when a layer of it is missing, and once."""

    def __init__(self, parts: Ingredients, spool: Spool, scratch: Path, *, debs: Parcels, wheels: Parcels) -> None:
        self._parts, self._spool, self._scratch = parts, spool, scratch
        self._debs, self._wheels = debs, wheels
        self._made: dict[str, Tree] = {}

    def debian(self) -> Tree:
        if "debian" not in self._made:
            tree = self._made["debian"] = Tree(self._spool)
            pins = tuple(pin for pin in self._parts.packages if pin.kind == DEBIAN)
            assemble(pins, self._debs, tree, scratch=self._scratch)
        return self._made["debian"]

    def python(self) -> Tree:
        if "python" not in self._made:
            tree = self._made["python"] = Tree(self._spool)
            for pin in self._parts.packages:
                if pin.kind == PYTHON and self._parts.target is not None:
                    wheel = self._wheels.path(pin.sha256, pin.name)
                    unpack_wheel(wheel, tree, target=self._parts.target, origin=f"{pin.name} {pin.version}")
        return self._made["python"]

    def bytecode(self) -> Tree:
        image, bytecode = Tree(self._spool), Tree(self._spool)
        for tree in (self.debian(), self.python()):
            image.entries.update(tree.entries)
        if self._parts.target is not None:
            architecture = ARCHITECTURES[self._parts.platform]
            interpreter = Interpreter(
                python=self._parts.target.python, triplet=architecture.triplet, loader=architecture.loader
            )
            compile_tree(image, bytecode, interpreter=interpreter, scratch=self._scratch)
        return bytecode

    def files(self) -> Tree:
        tree = Tree(self._spool)
        for path, (data, executable) in sorted(self._parts.files.items()):
            tree.file(path, data, mode=PROGRAM if executable else FILE)
        return tree


def layer_names(layout: Layout, pin: ImagePin) -> tuple[str, ...]:
    """What each layer of a built image holds, as its config's history says."""
    config = load_json(layout.read(pin.config_digest), f"config {pin.config_digest}")
    return tuple(str(entry.get("comment")) for entry in config.get("history", ()))


def _lines(parts: Ingredients, kind: str) -> str:
    pins = (f"{pin.name} {pin.version} {pin.sha256}" for pin in parts.packages if pin.kind == kind)
    return parts.platform + "\n" + "\n".join(pins)


def _file_lines(parts: Ingredients) -> Iterator[str]:
    for path, (data, executable) in sorted(parts.files.items()):
        yield f"{executable} {Digest.of(data)} {path}"


def _key(*parts: str) -> Digest:
    return Digest.of("\0".join((BUILDER, *parts)).encode())


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file beside and rename it, so that nobody reads half of one."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as stream:
        stream.write(data)
    Path(stream.name).replace(path)
