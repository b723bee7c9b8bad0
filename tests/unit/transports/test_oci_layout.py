"""Layouts with one image, several, tags, and damage."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from lying_registry import small_image, stored

from preserve.errors import DigestMismatch, MachineError, UserError
from preserve.oci import Layout
from preserve.transports.oci_layout import OciLayoutTransport

ONE, TWO = small_image(b"one"), small_image(b"two")
PLATFORM = "linux/amd64"


def _tag(layout: Layout, *tags: str) -> None:
    index = json.loads((layout.path / "index.json").read_bytes())
    for entry, tag in zip(index["manifests"], tags, strict=True):
        entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (layout.path / "index.json").write_text(json.dumps(index))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "images").create()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where images are copied to."""
    return tmp_path / "copy"


@pytest.fixture
def transport(tmp_path: Path) -> OciLayoutTransport:
    return OciLayoutTransport(root=tmp_path)


def test_the_only_image_needs_no_name(layout: Layout, transport: OciLayoutTransport) -> None:
    stored(ONE, layout)
    pin = transport.resolve("oci:images", platform=PLATFORM)
    assert pin == dataclasses.replace(ONE.pin, reference="oci:images")
    assert transport.resolve(f"oci:{layout.path}", platform=PLATFORM).diff_ids == ONE.pin.diff_ids


def test_several_images_need_a_tag_or_a_digest(layout: Layout, transport: OciLayoutTransport) -> None:
    stored(ONE, layout)
    stored(TWO, layout)
    _tag(layout, "x", "y")
    with pytest.raises(UserError, match="2 images") as caught:
        transport.resolve("oci:images", platform=PLATFORM)
    assert ":x, :y" in (caught.value.hint or "")
    found = {transport.resolve(f"oci:images:{tag}", platform=PLATFORM).manifest_digest for tag in "xy"}
    assert found == {ONE.pin.manifest_digest, TWO.pin.manifest_digest}
    by_digest = transport.resolve(f"oci:images@{TWO.pin.manifest_digest}", platform=PLATFORM)
    assert by_digest.config_digest == TWO.pin.config_digest


@pytest.mark.parametrize("reference", ["oci:nowhere", "oci:images:none", f"oci:images@{TWO.pin.manifest_digest}"])
def test_what_is_not_there(reference: str, layout: Layout, transport: OciLayoutTransport) -> None:
    stored(ONE, layout)
    with pytest.raises(UserError, match=reference):
        transport.resolve(reference, platform=PLATFORM)


def test_an_empty_layout(layout: Layout, transport: OciLayoutTransport) -> None:
    with pytest.raises(UserError, match="no such image"):
        transport.resolve(f"oci:{layout.path.name}", platform=PLATFORM)


def test_another_layout_version(layout: Layout, transport: OciLayoutTransport) -> None:
    (layout.path / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    with pytest.raises(UserError, match=r"2\.0\.0"):
        transport.resolve("oci:images", platform=PLATFORM)


@pytest.mark.parametrize("which", ["manifest", "config", "layer", "missing"])
def test_damage_names_the_blob(which: str, layout: Layout, transport: OciLayoutTransport, target: Path) -> None:
    stored(ONE, layout)
    pin = transport.resolve("oci:images", platform=PLATFORM)
    digest = {"manifest": pin.manifest_digest, "config": pin.config_digest}.get(which, pin.diff_ids[0])
    blob = layout.blob(digest)
    if which == "missing":
        blob.unlink()
    else:
        data = blob.read_bytes()
        blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DigestMismatch, match=str(digest)):
        transport.copy_to_layout(pin, target)
    assert json.loads((target / "index.json").read_bytes())["manifests"] == []


def test_copies_are_independent_of_the_authors_layout(
    layout: Layout, transport: OciLayoutTransport, target: Path
) -> None:
    stored(ONE, layout)
    pin = transport.resolve("oci:images", platform=PLATFORM)
    transport.copy_to_layout(pin, target)
    for blob in (layout.path / "blobs/sha256").iterdir():
        blob.write_bytes(b"changed in place")
    Layout(target).verified_image(pin.manifest_digest, pin.config_digest, pin.diff_ids)


def test_a_layout_that_is_gone_since(layout: Layout, transport: OciLayoutTransport, target: Path) -> None:
    stored(ONE, layout)
    pin = transport.resolve("oci:images", platform=PLATFORM)
    layout.path.rename(layout.path.with_name("moved"))
    with pytest.raises(MachineError, match="images"):
        transport.copy_to_layout(pin, target)
