"""Images as their documents describe them, whoever wrote these."""

from __future__ import annotations

import json
from typing import Any

import pytest

from preserve.digest import Digest
from preserve.errors import DigestMismatch
from preserve.oci import CONFIG, LAYER, MANIFEST, Image, read_image


def image_with(**config: Any) -> Image:
    """Read an image of one layer with such a config."""
    platform = {"os": "linux", "architecture": "amd64"}
    data = json.dumps({**platform, "rootfs": {"type": "layers", "diff_ids": [Digest.of(b"layer")]}, **config}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": Digest.of(data), "size": len(data)},
        "layers": [{"mediaType": LAYER, "digest": Digest.of(b"layer"), "size": 5}],
    }
    return read_image(json.dumps(manifest).encode(), lambda config: data if config.size == len(data) else b"")


@pytest.mark.parametrize("config", [{}, {"config": None}, {"config": {}}, {"config": {"Env": None}}])
def test_an_image_may_set_no_variable(config: dict[str, Any]) -> None:
    assert image_with(**config).settings.get("Env") == []


def test_settings_are_kept() -> None:
    settings = {"Env": ["PATH=/bin", "ODD"], "Cmd": ["sh"], "WorkingDir": "/x"}
    assert image_with(config=settings).settings == settings


@pytest.mark.parametrize(
    "settings", [7, "x", ["Env"], {"Env": 7}, {"Env": "A=B"}, {"Env": {"A": "B"}}, {"Env": [7]}, {"Env": [None]}]
)
def test_settings_of_another_form_are_refused(settings: Any) -> None:
    with pytest.raises(DigestMismatch, match="its settings have another form"):
        image_with(config=settings)


@pytest.mark.parametrize("entry", ["A=\0", "A=\ud800", "\0"])
def test_a_variable_that_no_program_can_be_given(entry: str) -> None:
    with pytest.raises(DigestMismatch, match="its settings have another form"):
        image_with(config={"Env": [entry]})


@pytest.mark.parametrize("config", [{"rootfs": None}, {"rootfs": {}}, {"rootfs": {"diff_ids": [7]}}, {"rootfs": []}])
def test_a_config_without_layers_is_none(config: dict[str, Any]) -> None:
    with pytest.raises(DigestMismatch):
        image_with(**config)
