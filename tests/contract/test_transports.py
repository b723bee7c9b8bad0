"""What every transport guarantees (interfaces.Transport), with a real registry, a real Docker engine and a layout."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from preserve.digest import Digest
from preserve.documents.lockfile import ImagePin
from preserve.errors import DigestMismatch, UserError
from preserve.interfaces import Transport
from preserve.oci import CONFIG, LAYER, MANIFEST, Layout
from preserve.transports.docker_daemon import DockerDaemonTransport
from preserve.transports.oci_layout import OciLayoutTransport
from preserve.transports.registry import RegistryTransport

LARGE = 48 << 20  # bytes
PLACES = ("registry", pytest.param("docker-daemon", marks=pytest.mark.docker), "oci")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A real place with two images: how to make its transport, the images' references, and a name it lacks."""

    make: Callable[[Path], Transport]  # given a folder for itself
    reference: str
    other: str
    unknown: str
    own_manifest: bool  # it keeps the manifest that was put there


@dataclass(frozen=True, kw_only=True)
class Images:
    """The two images as they were written: ``first`` small, ``large`` with a layer of 48 MB and the same one twice."""

    layout: Path
    first: ImagePin
    large: ImagePin


def _write(layout: Layout, layers: list[bytes], architecture: str) -> ImagePin:
    def add(kind: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": kind, "digest": str(layout.add_bytes(data).digest), "size": len(data)}

    def plain(value: dict[str, Any]) -> bytes:
        return json.dumps(value, sort_keys=True).encode()

    diff_ids = [Digest.of(layer) for layer in layers]
    config = {"architecture": architecture, "os": "linux", "config": {"Env": ["A=ü 1"]}}
    config["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": add(CONFIG, plain(config))}
    manifest["layers"] = [add(LAYER, layer) for layer in layers]
    image = layout.image(Digest(add(MANIFEST, plain(manifest))["digest"]))
    layout.list_image(image)
    return ImagePin(
        reference="written here",
        platform=image.platform,
        manifest_digest=image.manifest.digest,
        config_digest=image.config.digest,
        diff_ids=image.diff_ids,
    )


def _tar(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        header = tarfile.TarInfo(name)
        header.size = len(data)
        tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, tiny_image: Any) -> Images:
    layout = Layout(tmp_path_factory.mktemp("images") / "layout").create()
    architecture = tiny_image.pin.platform.partition("/")[2]
    small = _tar("small", b"a file\n")
    first = _write(layout, [small], architecture)
    large = _write(layout, [_tar("large", b"0123456789abcdef" * (LARGE >> 4)), small], architecture)
    return Images(layout=layout.path, first=first, large=large)


@pytest.fixture(scope="module")
def in_registry(images: Images, registry: Any) -> Place:
    first = registry.push(images.layout, images.first.manifest_digest, "contract/images:first")
    large = registry.push(images.layout, images.large.manifest_digest, "contract/images:large")
    return Place(
        make=lambda _folder: RegistryTransport(),
        reference=f"docker://{first}",
        other=f"docker://{large}",
        unknown=f"docker://{registry.host}/contract/nothing:1",
        own_manifest=True,
    )


@pytest.fixture(scope="module")
def in_daemon(images: Images, docker_host: str) -> Place:
    for name, pin in (("first", images.first), ("large", images.large)):
        archive = images.layout.parent / f"{name}.tar"
        _skopeo("copy", _single(images.layout, pin), f"docker-archive:{archive}:preserve-contract/{name}:1")
        _succeed("docker", "--host", docker_host, "load", "--input", str(archive))
    return Place(
        make=lambda folder: DockerDaemonTransport(host=docker_host, scratch=folder / "scratch"),
        reference="docker-daemon:preserve-contract/first:1",
        other="docker-daemon:preserve-contract/large:1",
        unknown="docker-daemon:preserve-contract/nothing:1",
        own_manifest=False,
    )


@pytest.fixture(scope="module")
def in_layout(images: Images) -> Place:
    return Place(
        make=lambda _folder: OciLayoutTransport(root=images.layout.parent),
        reference=f"oci:layout@{images.first.manifest_digest}",
        other=f"oci:layout@{images.large.manifest_digest}",
        unknown="oci:layout:nothing",
        own_manifest=True,
    )


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    fixture = {"registry": "in_registry", "docker-daemon": "in_daemon", "oci": "in_layout"}[request.param]
    found: Place = request.getfixturevalue(fixture)
    return found


def _skopeo(*arguments: str) -> bytes:
    return _succeed("skopeo", "--insecure-policy", *arguments)


def _succeed(*command: str) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def _single(layout: Path, pin: ImagePin) -> str:
    """Skopeo takes an image of a layout by its tag or as the only one: a view with this one alone."""
    view = layout.parent / f"only-{pin.manifest_digest.hex}"
    if not view.exists():
        view.mkdir()
        (view / "blobs").symlink_to(layout / "blobs")
        (view / "oci-layout").write_bytes((layout / "oci-layout").read_bytes())
        size = Layout(layout).blob(pin.manifest_digest).stat().st_size
        entry = {"mediaType": MANIFEST, "digest": pin.manifest_digest, "size": size}
        (view / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return f"oci:{view}"


def _listed(layout: Path) -> list[str]:
    if not (layout / "index.json").exists():
        return []
    return [entry["digest"] for entry in json.loads((layout / "index.json").read_bytes())["manifests"]]


def test_one_image_has_one_config_everywhere(place: Place, images: Images, tmp_path: Path) -> None:
    pin = place.make(tmp_path).resolve(place.reference, platform=images.first.platform)
    assert (pin.config_digest, pin.diff_ids) == (images.first.config_digest, images.first.diff_ids)
    assert (pin.reference, pin.platform) == (place.reference, images.first.platform)
    assert not place.own_manifest or pin.manifest_digest == images.first.manifest_digest


def test_resolving_is_repeatable(place: Place, images: Images, tmp_path: Path) -> None:
    pins = [place.make(tmp_path / str(n)).resolve(place.other, platform=images.large.platform) for n in range(2)]
    assert pins[0] == pins[1]


def test_a_copy_is_accepted_by_us_and_by_skopeo(place: Place, images: Images, tmp_path: Path) -> None:
    transport = place.make(tmp_path)
    pin = transport.resolve(place.reference, platform=images.first.platform)
    transport.copy_to_layout(pin, tmp_path / "copy")
    Layout(tmp_path / "copy").verified_image(pin.manifest_digest, pin.config_digest, pin.diff_ids)
    seen = json.loads(_skopeo("inspect", f"oci:{tmp_path / 'copy'}"))
    assert seen["Digest"] == pin.manifest_digest
    assert seen["Env"] == ["A=ü 1"]
    assert _listed(tmp_path / "copy") == [pin.manifest_digest]


def test_a_copy_needs_only_the_pin(place: Place, images: Images, tmp_path: Path) -> None:
    pin = place.make(tmp_path / "one").resolve(place.reference, platform=images.first.platform)
    place.make(tmp_path / "two").copy_to_layout(pin, tmp_path / "copy")
    assert _listed(tmp_path / "copy") == [pin.manifest_digest]


def test_copying_again_changes_nothing(place: Place, images: Images, tmp_path: Path) -> None:
    transport = place.make(tmp_path)
    pin = transport.resolve(place.reference, platform=images.first.platform)
    states = []
    for _ in range(2):
        transport.copy_to_layout(pin, tmp_path / "copy")
        files = sorted(path for path in (tmp_path / "copy").rglob("*") if path.is_file())
        blobs = [path.stat().st_mtime_ns for path in files if path.name in {*pin.diff_ids[0:1], pin.diff_ids[0].hex}]
        states.append(([(str(path), path.read_bytes()) for path in files], blobs))
    assert states[0] == states[1]


def test_a_damaged_blob_of_the_copy_is_replaced(place: Place, images: Images, tmp_path: Path) -> None:
    transport = place.make(tmp_path)
    pin = transport.resolve(place.reference, platform=images.first.platform)
    transport.copy_to_layout(pin, tmp_path / "copy")
    layer = Layout(tmp_path / "copy").blob(pin.diff_ids[0])
    good = layer.read_bytes()
    layer.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    transport.copy_to_layout(pin, tmp_path / "copy")
    assert layer.read_bytes() == good


def test_two_images_share_their_layers(place: Place, images: Images, tmp_path: Path) -> None:
    transport = place.make(tmp_path)
    for reference in (place.reference, place.other):
        transport.copy_to_layout(transport.resolve(reference, platform=images.first.platform), tmp_path / "copy")
    assert len(_listed(tmp_path / "copy")) == 2
    assert len(list((tmp_path / "copy/blobs/sha256").iterdir())) == 2 + 2 + 2  # manifests, configs, layers


def test_an_unknown_name_is_the_users(place: Place, images: Images, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        place.make(tmp_path).resolve(place.unknown, platform=images.first.platform)
    assert "nothing" in caught.value.message


def test_another_platform_is_not_taken_instead(place: Place, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="s390x"):
        place.make(tmp_path).resolve(place.reference, platform="linux/s390x")


def test_a_pin_with_another_images_manifest_is_refused(place: Place, images: Images, tmp_path: Path) -> None:
    transport = place.make(tmp_path)
    pin = transport.resolve(place.reference, platform=images.first.platform)
    other = transport.resolve(place.other, platform=images.first.platform)
    wrong = dataclasses.replace(pin, manifest_digest=other.manifest_digest)
    with pytest.raises(DigestMismatch, match=f"expected ({pin.config_digest}|{other.manifest_digest})"):
        transport.copy_to_layout(wrong, tmp_path / "copy")
    assert _listed(tmp_path / "copy") == []


def test_a_pin_with_other_diff_ids_is_refused(place: Place, images: Images, tmp_path: Path) -> None:
    transport = place.make(tmp_path)
    pin = transport.resolve(place.reference, platform=images.first.platform)
    wrong = dataclasses.replace(pin, diff_ids=(Digest.of(b"another layer"),))
    with pytest.raises(DigestMismatch, match="diff_ids"):
        transport.copy_to_layout(wrong, tmp_path / "copy")
    assert _listed(tmp_path / "copy") == []
    assert not Layout(tmp_path / "copy").blob(pin.diff_ids[0]).exists()


def test_a_large_layer_goes_through_little_memory(place: Place, images: Images, tmp_path: Path) -> None:
    transport = place.make(tmp_path)
    tracemalloc.start()
    try:
        pin = transport.resolve(place.other, platform=images.large.platform)
        transport.copy_to_layout(pin, tmp_path / "copy")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pin.diff_ids == images.large.diff_ids
    assert peak < LARGE / 3  # bytes


def test_a_flipped_byte_in_a_layout_names_its_blob(images: Images, tmp_path: Path) -> None:
    _flip_and_refuse(images, tmp_path, lambda: _copied(images, tmp_path))


def _copied(images: Images, tmp_path: Path) -> tuple[Transport, str, Path]:
    transport = OciLayoutTransport(root=images.layout.parent)
    pin = transport.resolve(f"oci:layout@{images.first.manifest_digest}", platform=images.first.platform)
    transport.copy_to_layout(pin, tmp_path / "source")
    layer = Layout(tmp_path / "source").blob(images.first.diff_ids[0])
    return OciLayoutTransport(root=tmp_path), "oci:source", layer


def test_a_flipped_byte_in_a_registry_names_its_blob(images: Images, tmp_path: Path, registry: Any) -> None:
    def prepare() -> tuple[Transport, str, Path]:
        name = registry.push(images.layout, images.first.manifest_digest, "contract/damaged:1")
        digest = images.first.diff_ids[0].hex
        blob = registry.data / f"docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data"
        return RegistryTransport(), f"docker://{name}", blob

    _flip_and_refuse(images, tmp_path, prepare)


def _flip_and_refuse(images: Images, tmp_path: Path, prepare: Callable[[], tuple[Transport, str, Path]]) -> None:
    transport, reference, layer = prepare()
    pin = transport.resolve(reference, platform=images.first.platform)
    good = layer.read_bytes()
    try:
        layer.write_bytes(good[:600] + bytes([good[600] ^ 1]) + good[601:])
        with pytest.raises(DigestMismatch, match=str(images.first.diff_ids[0])):
            transport.copy_to_layout(pin, tmp_path / "copy")
    finally:
        layer.write_bytes(good)
    assert _listed(tmp_path / "copy") == []
    transport.copy_to_layout(pin, tmp_path / "copy")
    assert _listed(tmp_path / "copy") == [pin.manifest_digest]


@pytest.mark.parametrize("fixture", ["in_registry", "in_layout"])
def test_an_image_id_taken_for_a_digest_is_explained(
    fixture: str, images: Images, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = request.getfixturevalue(fixture)
    name = place.reference.removesuffix(f"@{images.first.manifest_digest}")
    with pytest.raises(UserError, match="image id") as caught:
        place.make(tmp_path).resolve(f"{name}@{images.first.config_digest}", platform=images.first.platform)
    assert str(images.first.config_digest) in caught.value.message
    if fixture == "in_registry":  # the tag beside it tells the right digest
        assert str(images.first.manifest_digest) in (caught.value.hint or "")


@pytest.mark.docker
def test_a_daemons_image_id_is_a_reference(in_daemon: Place, images: Images, tmp_path: Path, docker_host: str) -> None:
    name = in_daemon.reference.removeprefix("docker-daemon:")
    shown = _succeed("docker", "--host", docker_host, "image", "inspect", "--format={{.Id}}", name).decode().strip()
    pin = in_daemon.make(tmp_path).resolve(f"docker-daemon:{shown}", platform=images.first.platform)
    assert pin.config_digest == images.first.config_digest
    assert shown in (pin.config_digest, pin.manifest_digest)  # graph driver, containerd store


@pytest.mark.docker
def test_a_daemons_export_is_made_once(
    in_daemon: Place, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = in_daemon.make(tmp_path)
    pin = transport.resolve(in_daemon.reference, platform=images.first.platform)
    monkeypatch.setattr("docker.api.image.ImageApiMixin.get_image", None)  # a second export would fail
    transport.copy_to_layout(pin, tmp_path / "copy")
    assert transport.resolve(in_daemon.reference, platform=images.first.platform) == pin


def test_an_index_is_pinned_by_its_platforms_manifest(images: Images, tmp_path: Path, registry: Any) -> None:
    layout = Layout(tmp_path / "source").create()
    pins = {
        architecture: _write(layout, [_tar("a", architecture.encode())], architecture)
        for architecture in ("amd64", "arm64", "ppc64le")
    }
    data = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {
                    "mediaType": MANIFEST,
                    "digest": pin.manifest_digest,
                    "size": layout.blob(pin.manifest_digest).stat().st_size,
                    "platform": {"os": "linux", "architecture": architecture},
                }
                for architecture, pin in pins.items()
            ],
        }
    ).encode()
    index = layout.add_bytes(data).digest
    name = registry.push(layout.path, index, "contract/index:1").rpartition(":")[0]
    for transport, reference in (
        (RegistryTransport(), f"{name}@{index}"),
        (OciLayoutTransport(root=tmp_path), f"oci:source@{index}"),
    ):
        pin = transport.resolve(reference, platform="linux/arm64/v8")
        assert pin.manifest_digest == pins["arm64"].manifest_digest
        transport.copy_to_layout(pin, tmp_path / transport.scheme)
        assert _listed(tmp_path / transport.scheme) == [pin.manifest_digest]
        with pytest.raises(UserError, match="amd64, linux/arm64, linux/ppc64le"):
            transport.resolve(reference, platform="linux/riscv64")
