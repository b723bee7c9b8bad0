"""Registries that tests can tell to lie, and a folder to copy to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lying_registry import Lies, serve


@pytest.fixture
def lies() -> Iterator[Lies]:
    yield from serve(Lies())


@pytest.fixture
def elsewhere() -> Iterator[Lies]:
    """A second host: blob storage, or a token service."""
    yield from serve(Lies())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "copy"
