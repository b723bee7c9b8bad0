"""Real engines, a real registry, a small image and an ordinary user, each made once per session.

What is missing fails the tests that need it, with the reason: a test of an engine that was skipped proves nothing.
"""

from __future__ import annotations

import io
import json
import os
import platform
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from preserve.digest import Digest
from preserve.documents.lockfile import ImagePin
from preserve.oci import CONFIG, LAYER, MANIFEST, Layout

# started in the background or by nohup: what is started here would ignore these too, and a shell could not trap them
for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, default)

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / ".ci"
OPENING = ROOT / "tests" / "fixtures" / "open-for-others"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ORDINARY = "games"  # every distribution knows this user, nothing runs as it; Apptainer refuses a uid without a name
ENGINES = [
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("apptainer", marks=pytest.mark.apptainer),
]


def _succeed(*command: str) -> str:
    """Standard output of a set-up command; a failing one fails the test with what it said."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)} failed ({done.returncode}):\n{done.stderr}", pytrace=False)
    return done.stdout


def _program(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail(
            f"{' or '.join(names)} is missing: as root, make test installs it (docs/guide/engines.md)", pytrace=False
        )
    return found


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str]:
    """URL of a Docker engine: the environment's, or a private one that ends with the session."""
    given = os.environ.get("PRESERVE_TEST_DOCKER_HOST") or os.environ.get("DOCKER_HOST")
    if given is None and os.geteuid() != 0 and os.access("/run/docker.sock", os.W_OK):
        given = "unix:///run/docker.sock"  # an ordinary user cannot start one, but may use the machine's
    if given is not None:
        _succeed(_program("docker"), "--host", given, "version")
        yield given
        return
    folder = tempfile.mkdtemp(prefix="preserve-docker-")  # not under tmp_path: a socket's name is short
    try:
        yield _succeed(str(SCRIPTS / "docker-up"), folder).strip()
    finally:
        _succeed(str(SCRIPTS / "docker-down"), folder)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine, which must be there."""
    name: str = request.param
    request.getfixturevalue({"docker": "docker_host"}.get(name, name))
    return name


@pytest.fixture
def docker_address(request: pytest.FixtureRequest, engine: str) -> str:
    """Where a Docker engine answers, if ``engine`` is that one; else nobody does."""
    return str(request.getfixturevalue("docker_host")) if engine == "docker" else "unix:///nowhere"


@pytest.fixture(scope="session")
def apptainer() -> str:
    """Path of the Apptainer (or Singularity) program."""
    program = _program("apptainer", "singularity")
    _succeed(program, "--version")
    return program


@dataclass(frozen=True, kw_only=True)
class Registry:
    """A registry on loopback, plain HTTP; ``host`` is ``127.0.0.1:PORT``, ``data`` the folder of its blobs."""

    host: str
    data: Path

    def push(self, layout: Path, digest: str, name: str) -> str:
        """Push one manifest (or index) of an OCI layout as ``name`` (``hep/tiny:1``); gives ``HOST/hep/tiny:1``."""
        with tempfile.TemporaryDirectory(prefix="preserve-push-") as folder:
            _single_entry_layout(Path(folder), layout, digest)
            options = ("--insecure-policy", "copy", "--quiet", "--preserve-digests", "--all", "--dest-tls-verify=false")
            _succeed(_program("skopeo"), *options, f"oci:{folder}", f"docker://{self.host}/{name}")
        return f"{self.host}/{name}"


def _single_entry_layout(folder: Path, layout: Path, digest: str) -> None:
    """Skopeo picks an image by its place in the index: give it an index of one, over the same blobs."""
    document = (layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()
    media_type = json.loads(document).get("mediaType", MANIFEST)
    entry = {"mediaType": media_type, "digest": digest, "size": len(document)}
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "blobs").symlink_to((layout / "blobs").resolve())


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    """Debian's docker-registry on a free port, empty, ended with the session."""
    folder = tempfile.mkdtemp(prefix="preserve-registry-")
    try:
        host = _succeed(str(SCRIPTS / "registry-up"), folder).strip()
        yield Registry(host=host, data=Path(folder) / "data")
    finally:
        _succeed(str(SCRIPTS / "registry-down"), folder)


@dataclass(frozen=True, kw_only=True)
class TinyImage:
    """A BusyBox image: ``layout`` an OCI layout that holds it alone, ``pin`` its digests."""

    layout: Path
    pin: ImagePin


@pytest.fixture(scope="session")
def tiny_image() -> Iterator[TinyImage]:
    """An image of Debian's busybox-static with ``IMAGE_VARIABLE=kept``; the same binary gives the same digests."""
    with tempfile.TemporaryDirectory(prefix="preserve-tiny-") as folder:
        Path(folder).chmod(0o755)  # pytest's own folders are closed to the ordinary user
        yield _write_tiny_image(Layout(Path(folder) / "layout").create())


def _write_tiny_image(layout: Layout) -> TinyImage:
    layer = _busybox_layer(Path(_program("busybox")))
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": [f"PATH={PATH}", "IMAGE_VARIABLE=kept"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest.of(layer)]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _add(layout, CONFIG, _json(config)),
        "layers": [_add(layout, LAYER, layer)],
    }
    image = layout.image(Digest(_add(layout, MANIFEST, _json(manifest))["digest"]))
    layout.list_image(image)
    pin = ImagePin(
        reference="oci:tiny",
        platform=image.platform,
        manifest_digest=image.manifest.digest,
        config_digest=image.config.digest,
        diff_ids=image.diff_ids,
    )
    return TinyImage(layout=layout.path, pin=pin)


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _add(layout: Layout, media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(layout.add_bytes(data).digest), "size": len(data)}


def _busybox_layer(busybox: Path) -> bytes:
    """An uncompressed tar: a compressor's bytes depend on its version, these only on the binary."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder in ("bin", "dev", "etc", "home", "proc", "root", "sbin", "sys", "usr", "usr/bin", "var", "work"):
            _entry(tar, folder, tarfile.DIRTYPE, mode=0o755)
        _entry(tar, "tmp", tarfile.DIRTYPE, mode=0o1777)
        _entry(tar, "bin/busybox", tarfile.REGTYPE, mode=0o755, data=busybox.read_bytes())
        for applet in sorted(set(_succeed(str(busybox), "--list").split()) - {"busybox"}):
            _entry(tar, f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
        _entry(tar, "etc/passwd", tarfile.REGTYPE, data=b"root:x:0:0:root:/root:/bin/sh\n")
        _entry(tar, "etc/group", tarfile.REGTYPE, data=b"root:x:0:\n")
        for empty in ("etc/hostname", "etc/hosts", "etc/resolv.conf"):  # engines bind their own over these
            _entry(tar, empty, tarfile.REGTYPE)
    return buffer.getvalue()


def _entry(
    tar: tarfile.TarFile, name: str, kind: bytes, *, mode: int = 0o644, data: bytes = b"", link: str = ""
) -> None:
    header = tarfile.TarInfo(name)
    header.type, header.mode, header.size, header.linkname = kind, mode, len(data), link
    tar.addfile(header, io.BytesIO(data))


class Ids(NamedTuple):
    """A user's and a group's number."""

    uid: int
    gid: int


@pytest.fixture(scope="session")
def ordinary_user() -> Ids:
    """An id without any privilege: a system user's when the tests run as root, else the caller's own."""
    if os.geteuid() != 0:
        return Ids(os.getuid(), os.getgid())
    entry = pwd.getpwnam(ORDINARY)
    return Ids(entry.pw_uid, entry.pw_gid)


@dataclass(frozen=True, kw_only=True)
class AsUser:
    """Call it to run a command as an ordinary user: no capabilities, no groups, clean environment, cwd = ``home``.

    Keywords go to ``subprocess.run``; ``env`` is added to the clean environment. ``home`` belongs to the user.
    ``give`` hands a file or a folder over to the user.
    """

    ids: Ids
    home: Path
    prefix: tuple[str, ...]

    def __call__(
        self, argv: Sequence[str], *, check: bool = False, **keywords: Any
    ) -> subprocess.CompletedProcess[Any]:
        """Run and wait; standard input is empty unless given."""
        environment = {"PATH": PATH, "HOME": str(self.home), "LANG": "C.UTF-8", **keywords.pop("env", {})}
        if "input" not in keywords:
            keywords.setdefault("stdin", subprocess.DEVNULL)
        keywords.setdefault("cwd", self.home)
        return subprocess.run([*self.prefix, *argv], check=check, env=environment, **keywords)

    def give(self, path: Path) -> Path:
        """Make a path below ``home`` (with what it holds) the user's own."""
        for found in (path, *path.rglob("*")):
            os.chown(found, self.ids.uid, self.ids.gid, follow_symlinks=False)
        return path


@pytest.fixture(scope="session")
def as_user(ordinary_user: Ids) -> Iterator[AsUser]:
    """Run commands as ``ordinary_user``; its home is a folder of its own outside pytest's (which only root enters)."""
    uid, gid = ordinary_user
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        ids = (f"--reuid={uid}", f"--regid={gid}", "--clear-groups")
        drop = (_program("setpriv"), *ids, "--inh-caps=-all", "--bounding-set=-all", "--")
        prefix = (*_opening((ROOT, Path(sys.prefix), Path(sys.base_prefix))), *drop)
        _succeed(*prefix, sys.executable, "-c", f"import os; os.stat({str(ROOT / 'pyproject.toml')!r})")
    home = Path(tempfile.mkdtemp(prefix="preserve-home-"))
    os.chown(home, uid, gid)
    home.chmod(0o755)
    yield AsUser(ids=ordinary_user, home=home, prefix=prefix)
    _remove(home)


def _opening(paths: tuple[Path, ...]) -> tuple[str, ...]:
    """Commands to run before another so that an ordinary user reaches ``paths``: a checkout in /root, for one."""
    closed: dict[Path, list[str]] = {}
    for path in dict.fromkeys(paths):
        barred = [folder for folder in reversed(path.parents) if not folder.stat().st_mode & stat.S_IXOTH]
        if barred:
            closed.setdefault(barred[0], []).append(str(path))
    prefix: list[str] = []
    for folder, below in closed.items():
        outer = [path for path in below if not any(Path(other) in Path(path).parents for other in below)]
        prefix += ["unshare", "--mount", "--propagation=private", "sh", str(OPENING), str(folder), *outer, "--"]
    return tuple(prefix)


def _remove(folder: Path) -> None:
    """Remove a tree whose folders may be read-only (images are)."""
    for found in folder.rglob("*"):
        if found.is_dir() and not found.is_symlink():
            found.chmod(found.stat().st_mode | stat.S_IRWXU)
    shutil.rmtree(folder)


@dataclass(frozen=True, kw_only=True)
class Judges:
    """Call it to run one of the programs of others that judge archives, without any way to the network."""

    programs: Path
    context: Path  # the validator's cache of what it would fetch, without ".sqlite"
    home: Path

    def __call__(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the judges' environment to its end."""
        environment = {"PATH": f"{self.programs}:{PATH}", "HOME": str(self.home), "LANG": "C.UTF-8"}
        cut_off = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--net")
        return subprocess.run(
            [*cut_off, str(self.programs / program), *arguments],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=self.home,
            env=environment,
        )

    def validator(self, crate: Path, *options: str) -> subprocess.CompletedProcess[str]:
        """Validate a crate (file or folder) against the Provenance Run Crate."""
        fixed = ("--disable-color", "validate", "--offline", "--cache-path", str(self.context), "--no-paging")
        profile = ("--verbose", "--profile-identifier", "provenance-run-crate-0.5")
        return self("rocrate-validator", *fixed, *profile, *options, str(crate))


@pytest.fixture(scope="session")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Judges:
    """The judges' environment (.ci/make-judges), with a home of its own."""
    made = ROOT / ".judges"
    if not (made / "context.sqlite").is_file():
        pytest.fail("the archives' judges are missing: make test installs them into .judges", pytrace=False)
    home = tmp_path_factory.mktemp("judges-home")
    shutil.copyfile(made / "context.sqlite", home / "context.sqlite")  # reading it writes to it
    return Judges(programs=made / "bin", context=home / "context", home=home)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory, tiny_image: TinyImage) -> Any:
    """Make small analyses to archive: see tests/archived.py."""
    from archived import Recorded  # noqa: PLC0415  (it imports from here)

    return Recorded(place=tmp_path_factory.mktemp("recorded"), layout=tiny_image.layout)
