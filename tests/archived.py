"""A small analysis whose image lies beside it, archived; and archives as a stranger would make them.

Nothing is built and, but for one run on each engine, nothing is run: commands that start no container are called in
this process.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import docker
import pytest
from conftest import PATH, TinyImage
from sessions import commit, finished

from preserve.cli import main
from preserve.digest import Digest, FilePin
from preserve.documents import bag
from preserve.documents.archive import DATA, MANIFEST, SIGNATURES, TAG_MANIFEST
from preserve.documents.lockfile import ImagePin
from preserve.documents.plan import Plan, read_plan
from preserve.oci import Layout
from preserve.operations.derived import payload_files, tag_files, tag_manifest
from preserve.operations.opened import read_contents
from preserve.stores.crate_writer import Item, write_crate
from preserve.stores.crate_zip import CrateZip
from preserve.stores.image_graph import archived_images
from preserve.stores.zip_form import order

NOTE = "a word that an author would write\n"
STEPS = """\
format: 1
title: Sum of scaled numbers
authors: [{name: A. Physicist}]
license: CC0-1.0
images:
  tiny: oci:image
parameters: {scale: 2, note: none}
inputs:
  data/numbers.txt: {}
steps:
  - name: tools
    stage: environment
    image: tiny
    outputs: [build/tools.txt]
    run: |
      echo noted >&2
      busybox | head -n 1 > ${{ outputs[0] }}
  - name: sorted
    stage: preparation
    image: tiny
    inputs: [data/numbers.txt]
    outputs: [sorted/numbers.txt]
    run: sort -n ${{ inputs[0] }} > ${{ outputs[0] }}
  - name: scaled
    stage: processing
    image: tiny
    inputs: [sorted/numbers.txt, code/scale.awk]
    outputs: [scaled/]
    run: awk -v by=${{ parameters.scale }} -f code/scale.awk ${{ inputs[0] }} > scaled/numbers.txt
  - name: sum
    stage: assembly
    image: tiny
    inputs: [scaled/]
    outputs: [results/sum.txt, results/note.txt]
    run: |
      awk '{s += $1} END {print s}' scaled/numbers.txt > ${{ outputs[0] }}
      echo ${{ parameters.note }} > ${{ outputs[1] }}
results:
  results/sum.txt: {require: identical}
  results/note.txt: {require: identical}
"""


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """What it printed, as JSON."""
        found: dict[str, Any] = json.loads(self.out)
        return found


def here(*argv: str) -> Done:
    """Run a command of preserve in this process: for those that start no container."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(argv)
    return Done(code=code, out=out.getvalue(), err=err.getvalue())


def verified(archive: Path, *options: str) -> Done:
    """Verify; the document says what the exit code says."""
    done = here("verify", "--json", *options, str(archive))
    assert done.code == (0 if done.document["intact"] else 1), done.err
    return done


def problems(archive: Path, *options: str) -> dict[str, str]:
    """What ``verify`` finds wrong, by file."""
    return {finding["path"]: finding["problem"] for finding in verified(archive, *options).document["findings"]}


@dataclass(frozen=True, kw_only=True)
class Session:
    """An analysis folder and a user's session there; ``prefix`` goes before each command (``unshare -n``)."""

    root: Path
    engine: str
    environment: Mapping[str, str]
    prefix: tuple[str, ...] = ()

    def __call__(self, command: str, *arguments: str, expect: int | None = 0) -> Done:
        """Run a command to its end; whatever comes of it, the user sees no traceback."""
        engine = ("--engine", self.engine) if command in ("run", "replay") else ()
        argv = (*self.prefix, sys.executable, "-m", "preserve", command, *engine, *arguments)
        done = finished(argv, self.root, self.environment)
        assert expect in (None, done.returncode), done.stderr
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    def with_environment(self, **more: str) -> Session:
        """The same with other or more variables."""
        return replace(self, environment={**self.environment, **more})


def session(root: Path, engine: str, docker_host: str = "") -> Session:
    """A session with a clean environment."""
    environment = {"PATH": PATH, "HOME": f"{root}.home", "DOCKER_HOST": docker_host or f"unix://{root}/no.sock"}
    return Session(root=root, engine=engine, environment=environment)


def write_analysis(root: Path, layout: Path, *, steps: str = STEPS) -> None:
    """Write the analysis, its image beside it and outside git."""
    for name, text in {
        "preserve.yaml": steps,
        "code/scale.awk": "{print $1 * by}\n",
        "code/unread.txt": "nothing reads this\n",
        "data/numbers.txt": "3\n1\n2\n",
        ".gitignore": "/image/\n*.crate.zip\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    shutil.copytree(layout, root / "image")


@dataclass(frozen=True, kw_only=True)
class Files:
    """An archive as a stranger takes it apart: content by name, and which of it may be executed."""

    data: dict[str, bytes]
    executable: frozenset[str] = frozenset()

    @classmethod
    def of(cls, archive: Path) -> Files:
        with CrateZip(archive) as store:
            names = tuple(store.files())
            data = {name: b"".join(store.chunks(name)) for name in names}
            return cls(data=data, executable=frozenset(name for name in names if store.executable(name)))

    def changed(self, changes: Mapping[str, bytes | None]) -> Files:
        """Give the same with other content; ``None`` takes a file away."""
        merged = {**self.data, **changes}
        return replace(self, data={name: data for name, data in merged.items() if data is not None})

    def with_manifests(self) -> Files:
        """Give the same with both manifests made anew: nothing is wrong with the bag."""
        payload = {name: Digest.of(data) for name, data in self.data.items() if name.startswith(DATA)}
        files = {**self.data, MANIFEST: bag.manifest(payload)}
        tags = {
            name: data
            for name, data in files.items()
            if not name.startswith((DATA, SIGNATURES)) and name != TAG_MANIFEST
        }
        return replace(self, data={**files, TAG_MANIFEST: tag_manifest(tags)})

    def with_all_derived(self) -> Files:
        """Give the same with everything for readers made anew as well: a forger who has preserve at hand."""
        store = InMemory(self)
        payload = {name: store.pin(name) for name in self.data if name.startswith(DATA)}
        contents = read_contents(store, payload)
        used = [contents.plan.images[step.image] for step in contents.plan.steps]
        images = [] if "images" in contents.without else archived_images(store, used, payload)[0]
        derived = self.changed(payload_files(contents, images))
        store = InMemory(derived)
        payload = {name: store.pin(name) for name in derived.data if name.startswith(DATA)}
        return derived.changed(tag_files(replace(contents, payload=payload))).with_manifests()

    def write(self, path: Path) -> Path:
        """Write it as an archive in canonical form, CRCs and all."""
        names = sorted(self.data, key=order)
        pins = {name: InMemory(self).pin(name) for name in names}
        write_crate(path, [Item(name=name, pin=pins[name], source=self.data[name]) for name in names])
        return path


@dataclass(frozen=True)
class InMemory:
    """``Files`` as what reads archives sees them."""

    of: Files

    def files(self) -> Mapping[str, int]:
        return {name: len(data) for name, data in self.of.data.items()}

    def executable(self, name: str) -> bool:
        return name in self.of.executable

    def open(self, name: str) -> io.BytesIO:
        return io.BytesIO(self.of.data[name])

    def chunks(self, name: str) -> Any:
        return iter((self.of.data[name],))

    def pin(self, name: str) -> FilePin:
        data = self.of.data[name]
        return FilePin(sha256=Digest.of(data), size=len(data), executable=self.executable(name))


def edited(files: Files, name: str, edit: Callable[[Any], None]) -> bytes:
    """A JSON document of an archive after ``edit`` changed it in place, in the form that such documents have."""
    value = json.loads(files.data[name])
    edit(value)
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


def plan_of(files: Files) -> Plan:
    """The plan inside."""
    return read_plan(files.data["data/workflow/plan.json"], "plan.json")


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The analysis, committed and locked once, run once on each engine; copied for each test."""

    place: Path
    layout: Path
    docker_host: str = ""
    made: dict[str, Path] = field(default_factory=dict)

    def locked(self) -> Path:
        """The analysis, committed and locked; not to be changed."""
        if "locked" not in self.made:
            root = self.place / "locked" / "sums"
            root.mkdir(parents=True)
            write_analysis(root, self.layout)
            commit(root)
            session(root, "none")("lock")
            self.made["locked"] = root
        return self.made["locked"]

    def done(self, engine: str, docker_host: str = "") -> Path:
        """The analysis after a run; not to be changed."""
        if engine not in self.made:
            root = self.place / engine / "sums"
            shutil.copytree(self.locked(), root, symlinks=True)
            session(root, engine, docker_host)("run")
            self.made[engine] = root
        return self.made[engine]

    def archive(self, engine: str, docker_host: str = "") -> Path:
        """Its archive; not to be changed."""
        path = self.place / f"{engine}.crate.zip"
        if not path.exists():
            done = here("archive", "-C", str(self.done(engine, docker_host)), "-o", str(path))
            assert done.code == 0, done.err
        return path

    def copy(self, target: Path, engine: str, docker_host: str = "", *, run: bool = True) -> Session:
        """An analysis of one's own."""
        shutil.copytree(self.done(engine, docker_host) if run else self.locked(), target, symlinks=True)
        return session(target, engine, docker_host)


@contextlib.contextmanager
def umask(mask: int) -> Any:
    """Another umask for the moment."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[tuple[dict[str, str], list[bytes]]]:
    """An environment whose engines notice whoever asks them anything: what they were asked stands in the list."""
    asked: list[bytes] = []
    programs = folder / "bin"
    programs.mkdir()
    for name in ("apptainer", "singularity", "docker"):
        (programs / name).write_text(f'#!/bin/sh\necho "$0" "$@" >> {folder}/started\nexit 1\n')
        (programs / name).chmod(0o755)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "docker.sock"))
        server.listen()
        thread = threading.Thread(target=_listen, args=(server, asked))
        thread.start()
        try:
            yield {"DOCKER_HOST": f"unix://{folder}/docker.sock", "PATH": f"{programs}:{PATH}"}, asked
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
    if (folder / "started").exists():
        asked.append((folder / "started").read_bytes())


def _listen(server: socket.socket, asked: list[bytes]) -> None:
    with contextlib.suppress(OSError):  # it was shut down
        while True:
            connection, _ = server.accept()
            with connection:
                asked.append(connection.recv(64))


def assert_refused(archive: Path, said: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    """``replay`` says what is wrong before it asks an engine for anything, and before it writes anything."""
    with tempfile.TemporaryDirectory(prefix="preserve-watch-") as name:
        folder = Path(name)  # a socket's name is short
        with watched(folder) as (environment, asked):
            for variable, value in environment.items():
                monkeypatch.setenv(variable, value)
            for engine in ("docker", "apptainer"):
                done = here("replay", "--engine", engine, "--keep", str(folder / "kept"), *options, str(archive))
                assert done.code == 5, done.err
                assert "nothing was run" in done.err
                assert said in done.err
                assert not (folder / "kept").exists()
        assert asked == []


def unseen_image(tiny: TinyImage, target: Path) -> ImagePin:
    """The tiny image with a variable of its own, in a layout of its own at ``target``: no engine knows it."""
    layout = Layout(target).create()
    image = Layout(tiny.layout).image(tiny.pin.manifest_digest)
    for blob in image.layers:
        shutil.copyfile(Layout(tiny.layout).blob(blob.digest), layout.blob(blob.digest))
    config = json.loads(Layout(tiny.layout).read(image.config.digest))
    config["config"]["Env"].append(f"UNSEEN={secrets.token_hex(8)}")
    added = layout.add_bytes(json.dumps(config).encode())
    manifest = json.loads(Layout(tiny.layout).read(image.manifest.digest))
    manifest["config"].update(digest=added.digest, size=added.size)
    digest = layout.add_bytes(json.dumps(manifest).encode()).digest
    layout.list_image(layout.image(digest))
    return ImagePin(
        reference="oci:image",
        platform=image.platform,
        manifest_digest=digest,
        config_digest=added.digest,
        diff_ids=image.diff_ids,
    )


def remove_image(host: str, pin: ImagePin) -> None:
    """Take an image away from a Docker engine, if it is there."""
    with contextlib.closing(docker.DockerClient(host)) as client, contextlib.suppress(docker.errors.ImageNotFound):
        client.images.remove(f"preserve.local/image:{pin.manifest_digest.hex}", force=True)
