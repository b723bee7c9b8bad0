"""Images from recipes, for real: built by two users under different conditions, run by two engines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import PATH, ROOT, AsUser

from preserve.digest import Digest
from preserve.documents.lockfile import ImagePin, PackagePin
from preserve.engines import apptainer_engine, docker_engine
from preserve.errors import DigestMismatch, MachineError, UserError
from preserve.interfaces import Engine, RunRequest
from preserve.oci import Layout
from preserve.transports.recipe.transport import RecipeTransport

SIX = "six==1.17.0 --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274\n"
IMAGE = "debian: {suite: bookworm, packages: [python3-minimal, busybox-static]}\npython: requirements.lock\n"
DECORATED = IMAGE + "files: {opt/tool.py: tool.py, opt/data/: data/}\nenvironment: {GREETING: hello world}\n"
PLATFORM = "linux/amd64"
# What the other user runs: the same build, in folders of other names, with everything set otherwise.
SCRIPT = """
import json, os, sys
from dataclasses import asdict
from pathlib import Path
from preserve.transports.recipe.transport import RecipeTransport
os.umask(0o077)
transport = RecipeTransport(root=Path(sys.argv[1]), cache=Path(sys.argv[2]), environment=os.environ)
print(json.dumps(asdict(transport.resolve("image/", platform="linux/amd64"))))
"""


def write_recipe(root: Path, image: str = DECORATED, requirements: str = SIX) -> Path:
    """A recipe folder ``image/`` below ``root``."""
    folder = root / "image"
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "image.yaml").write_text(image)
    (folder / "requirements.lock").write_text(requirements)
    (folder / "tool.py").write_text("import six\nprint(six.__version__)\n")
    (folder / "data" / "deep" / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (folder / "data" / "deep" / "run.sh").chmod(0o700)
    return root


@dataclass(frozen=True, kw_only=True)
class Built:
    """A recipe, where it was built, and what came of it."""

    root: Path
    cache: Path
    pin: ImagePin

    def transport(self, **options: object) -> RecipeTransport:
        return RecipeTransport(**{"root": self.root, "cache": self.cache, "environment": os.environ, **options})

    def offline(self, **options: object) -> RecipeTransport:
        """Without any way to a mirror or an index."""
        nowhere = {"PATH": PATH, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
        return self.transport(environment=nowhere, **options)

    @property
    def pins(self) -> dict[str, tuple[PackagePin, ...]]:
        return {self.pin.reference: self.pin.packages}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="preserve-recipe-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def built(place: Path) -> Built:
    root, cache = write_recipe(place / "analysis"), place / "cache"
    transport = RecipeTransport(root=root, cache=cache, environment=os.environ)
    return Built(root=root, cache=cache, pin=transport.resolve("image/", platform=PLATFORM))


def test_packages_are_pinned(built: Built) -> None:
    assert built.pin.reference == "build:image/"
    names = {(pin.kind, pin.name) for pin in built.pin.packages}
    assert {
        ("debian", "python3-minimal"),
        ("debian", "libc6"),
        ("debian", "busybox-static"),
        ("python", "six"),
    } <= names
    assert ("debian", "libpython3.11-stdlib") not in names, "recommended packages are not taken"
    assert len(built.pin.diff_ids) == 4


def test_another_user_elsewhere_gets_the_same_digest(built: Built, as_user: AsUser) -> None:
    root = as_user.give(write_recipe(as_user.home / "a folder with a longer name than the other"))
    sources = reversed_sources(as_user.home)
    environment = {
        **{name: text for name, text in os.environ.items() if name.startswith("PIP_")},
        **{"TZ": "Asia/Tokyo", "LANG": "", "PYTHONPATH": str(ROOT), "APT_CONFIG": str(sources), "PYTHONHASHSEED": "77"},
    }
    done = as_user(
        (sys.executable, "-W", "error", "-c", SCRIPT, str(root), str(as_user.home / "c")),
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    other = json.loads(done.stdout)
    assert other["diff_ids"] == list(built.pin.diff_ids)
    assert other["manifest_digest"] == built.pin.manifest_digest
    assert [pin["sha256"] for pin in other["packages"]] == [pin.sha256 for pin in built.pin.packages]


def reversed_sources(home: Path) -> Path:
    """An apt configuration with this machine's mirrors in the opposite order."""
    line = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(SITE) $(RELEASE) $(COMPONENT)"
    command = ("apt-get", "indextargets", "--format", line, "Created-By: Packages")
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(listed) > 1
    (home / "sources").mkdir()
    (home / "sources" / "reversed.list").write_text("\n".join(reversed(listed)) + "\n")
    settings = {"sourcelist": "/dev/null", "sourceparts": str(home / "sources")}
    configuration = home / "apt.conf"
    configuration.write_text("".join(f'Dir::Etc::{name} "{path}";\n' for name, path in settings.items()))
    return configuration


@pytest.mark.parametrize("kind", ["docker", "apptainer"])
def test_the_image_runs(built: Built, place: Path, kind: str, request: pytest.FixtureRequest) -> None:
    engine = real_engine(kind, place / kind, request)
    layout = place / f"layout-{kind}"
    built.transport().copy_to_layout(built.pin, layout)
    engine.load(built.pin, layout)
    code = "import six, os; print(six.__version__, os.environ['GREETING'], six.__cached__)"
    assert run(engine, built.pin, "python3", "-c", code) == (
        "1.17.0 hello world /usr/local/lib/python3.11/dist-packages/__pycache__/six.cpython-311.pyc\n"
    )
    assert run(engine, built.pin, "python3", "/opt/tool.py") == "1.17.0\n"
    assert run(engine, built.pin, "/opt/data/deep/run.sh") == "ran\n"
    assert run(
        engine, built.pin, "sh", "-c", "ls /bin/sh /usr/bin/awk; readlink /bin; echo a b | awk '{print $2}'"
    ) == ("/bin/sh\n/usr/bin/awk\nusr/bin\nb\n")
    engine.close()  # type: ignore[attr-defined]


def test_modules_come_from_bytecode_that_names_paths_of_the_image(built: Built, place: Path) -> None:
    layout = place / "layout-bytecode"
    built.transport().copy_to_layout(built.pin, layout)
    bytecode = Layout(layout).image(built.pin.manifest_digest).layers[2]
    data = Layout(layout).blob(bytecode.digest).read_bytes()
    assert b"/usr/local/lib/python3.11/dist-packages/six.py" in data
    assert str(place).encode() not in data


def real_engine(kind: str, cache: Path, request: pytest.FixtureRequest) -> Engine:
    if kind == "docker":
        return docker_engine(host=request.getfixturevalue("docker_host"), cache=cache)
    request.getfixturevalue("apptainer")
    return apptainer_engine(cache=cache, search_path=PATH)


def run(engine: Engine, pin: ImagePin, *command: str) -> str:
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        request = RunRequest(image=pin, command=command, working_folder="/work", label="recipe-test")
        execution = engine.run(request, stdout=stdout, stderr=stderr)
        stdout.seek(0)
        stderr.seek(0)
        assert execution.exit_code == 0, stderr.read().decode()
        return stdout.read().decode()


def test_a_second_time_is_fast_and_needs_nothing(built: Built) -> None:
    assert built.offline().resolve("image/", platform=PLATFORM) == built.pin
    assert built.offline(pins=built.pins).resolve("build:image/", platform=PLATFORM) == built.pin


def test_built_again_offline_from_the_packages(built: Built, place: Path) -> None:
    cache = place / "packages-only"
    cache.mkdir()
    for name in ("debs", "wheels"):
        (cache / name).symlink_to(built.cache / name)
    again = replace(built, cache=cache).offline(pins=built.pins)
    again.copy_to_layout(built.pin, place / "layout-again")
    Layout(place / "layout-again").verified_image(
        built.pin.manifest_digest, built.pin.config_digest, built.pin.diff_ids
    )


def test_a_damaged_layer_in_the_cache_is_made_again(built: Built, place: Path) -> None:
    blob = Layout(built.cache / "layout").blob(built.pin.diff_ids[1])
    good = blob.read_bytes()
    blob.write_bytes(good[:-1] + b"x")
    built.offline().copy_to_layout(built.pin, place / "layout-mended")
    assert blob.read_bytes() == good
    assert Layout(place / "layout-mended").blob(built.pin.diff_ids[1]).read_bytes() == good


def test_a_package_that_comes_on_top_leaves_the_others(built: Built, place: Path) -> None:
    root = write_recipe(place / "more", DECORATED.replace("busybox-static]", "busybox-static, libmagic-mgc]"))
    more = replace(built, root=root).transport(pins=built.pins).resolve("image/", platform=PLATFORM)
    assert {pin.name for pin in set(more.packages) - set(built.pin.packages)} == {"libmagic-mgc"}
    assert set(built.pin.packages) < set(more.packages)


def test_a_package_that_is_dropped_goes_with_what_it_needed(built: Built, place: Path) -> None:
    root = write_recipe(place / "less", "debian: {suite: bookworm, packages: [busybox-static]}")
    less = replace(built, root=root).offline(pins=built.pins).resolve("image/", platform=PLATFORM)
    assert [pin.name for pin in less.packages] == ["busybox-static"]
    assert len(less.diff_ids) == 1


def pins_with(built: Built, name: str, **change: object) -> dict[str, tuple[PackagePin, ...]]:
    pins = tuple(replace(pin, **change) if pin.name == name else pin for pin in built.pin.packages)
    return {built.pin.reference: pins}


def test_a_pinned_version_that_mirrors_lack_is_named(built: Built) -> None:
    pins = pins_with(built, "zlib1g", version="1:0.9-1", sha256=Digest.of(b"gone"))
    now = next(pin.version for pin in built.pin.packages if pin.name == "zlib1g")
    with pytest.raises(MachineError) as caught:
        built.transport(pins=pins).resolve("image/", platform=PLATFORM)
    for part in ("zlib1g", "1:0.9-1", now, "image/image.yaml"):
        assert part in caught.value.message
    assert "preserve lock --update" in str(caught.value.hint)


def test_another_package_of_the_pinned_version_is_refused(built: Built) -> None:
    pins = pins_with(built, "zlib1g", sha256=Digest.of(b"other"))
    with pytest.raises(DigestMismatch, match="zlib1g") as caught:
        built.transport(pins=pins).resolve("image/", platform=PLATFORM)
    assert Digest.of(b"other") in caught.value.message


def test_a_package_that_does_not_exist_is_named(built: Built, place: Path) -> None:
    root = write_recipe(place / "unknown", IMAGE.replace("busybox-static", "no-such-package-at-all"))
    with pytest.raises(UserError, match="no-such-package-at-all"):
        replace(built, root=root).transport().resolve("image/", platform=PLATFORM)


def test_a_wheel_with_another_hash_is_named(built: Built, place: Path) -> None:
    wrong = Digest.of(b"wrong").hex
    root = write_recipe(place / "wrong", IMAGE, f"six==1.17.0 --hash=sha256:{wrong}\n")
    with pytest.raises(DigestMismatch) as caught:
        replace(built, root=root).transport().resolve("image/", platform=PLATFORM)
    for part in ("six==1.17.0", wrong, "4721f391ed90541f", "requirements.lock"):
        assert part in caught.value.message


def test_what_differs_is_said_when_the_pin_cannot_be_met(built: Built, place: Path) -> None:
    root = write_recipe(place / "changed")
    (root / "image" / "tool.py").write_text("print('changed')\n")
    changed = replace(built, root=root, cache=place / "changed-cache")
    changed.cache.mkdir()
    for name in ("debs", "wheels"):
        (changed.cache / name).symlink_to(built.cache / name)
    with pytest.raises(DigestMismatch, match="the content of this layer is not: files"):
        changed.offline().copy_to_layout(built.pin, place / "layout-never")
    environment = DECORATED.replace("hello world", "bye")
    (root / "image" / "image.yaml").write_text(environment)
    write = (built.root / "image" / "tool.py").read_text()
    (root / "image" / "tool.py").write_text(write)
    with pytest.raises(DigestMismatch, match="all layers are the same, the environment"):
        changed.offline().copy_to_layout(built.pin, place / "layout-never")


def test_entry_points_and_scripts_start(built: Built, place: Path, docker_host: str) -> None:
    """A wheel made here stands for all: its console script runs, and RECORD tells the truth about every file."""
    wheels = place / "wheels"
    wheels.mkdir()
    wheel = wheels / "greet-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("greet/__init__.py", "def main():\n    print('hello')\n    return 0\n")
        archive.writestr("greet-1.0.data/scripts/greet-old", "#!python\nimport greet\ngreet.main()\n")
        archive.writestr("greet-1.0.dist-info/entry_points.txt", "[console_scripts]\ngreet-new = greet:main\n")
        archive.writestr("greet-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greet\nVersion: 1.0\n")
        archive.writestr("greet-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("greet-1.0.dist-info/RECORD", "")
    root = write_recipe(place / "greet", IMAGE, f"greet==1.0 --hash={Digest.of(wheel.read_bytes())}\n")
    environment = {**os.environ, "PIP_FIND_LINKS": str(wheels), "PIP_NO_INDEX": "1"}
    greet = replace(built, root=root).transport(environment=environment, pins=built.pins)
    pin = greet.resolve("image/", platform=PLATFORM)
    greet.copy_to_layout(pin, place / "layout-greet")
    engine = docker_engine(host=docker_host, cache=place / "greet-cache")
    engine.load(pin, place / "layout-greet")
    assert run(engine, pin, "greet-new") == "hello\n"
    assert run(engine, pin, "greet-old") == "hello\n"
    check = (
        "import base64,hashlib,csv,os\nbase='/usr/local/lib/python3.11/dist-packages/'\n"
        "for path,digest,size in csv.reader(open(base+'greet-1.0.dist-info/RECORD')):\n"
        "    data=open(base+path,'rb').read()\n"
        "    found='sha256='+base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()\n"
        "    assert not digest or (found,str(len(data)))==(digest,size), path\n    print(os.path.normpath(base+path))\n"
    )
    listed = run(engine, pin, "python3", "-S", "-c", check).split()
    assert {"/usr/local/bin/greet-new", "/usr/local/bin/greet-old"} < set(listed)
    engine.close()  # type: ignore[attr-defined]


@pytest.mark.docker
def test_a_dockerfile_is_built_by_the_engine(built: Built, place: Path, docker_host: str) -> None:
    root = place / "dockerfile"
    (root / "image").mkdir(parents=True)
    busybox = Path("/bin/busybox").read_bytes()
    (root / "image" / "busybox").write_bytes(busybox)
    (root / "image" / "busybox").chmod(0o755)
    (root / "image" / "Dockerfile").write_text('FROM scratch\nCOPY busybox /bin/sh\nENV MADE=here\nCMD ["/bin/sh"]\n')
    transport = replace(built, root=root).transport(docker_host=docker_host)
    pin = transport.resolve("image/", platform=PLATFORM)
    assert (pin.reference, pin.packages) == ("build:image/", ())
    assert transport.resolve("image/", platform=PLATFORM) == pin
    transport.copy_to_layout(pin, place / "layout-dockerfile")
    engine = docker_engine(host=docker_host, cache=place / "dockerfile-cache")
    engine.load(pin, place / "layout-dockerfile")
    assert run(engine, pin, "/bin/sh", "-c", "echo $MADE") == "here\n"
    engine.close()  # type: ignore[attr-defined]


def test_a_dockerfile_without_an_engine_says_so(built: Built, place: Path) -> None:
    root = place / "no-engine"
    (root / "image").mkdir(parents=True)
    (root / "image" / "Dockerfile").write_text("FROM scratch\n")
    with pytest.raises(MachineError, match="no Docker engine answers"):
        replace(built, root=root).transport(docker_host="unix:///nowhere.sock").resolve("image/", platform=PLATFORM)
