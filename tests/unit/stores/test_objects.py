"""Products by content."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from preserve.stores.hashes import HashMemory
from preserve.stores.objects import ObjectStore


def test_what_passes_through_is_not_remembered(tmp_path: Path) -> None:
    """Each run has places of its own, so a memory of them would grow for ever."""
    memory = HashMemory(tmp_path / "hashes.json")
    store = ObjectStore(tmp_path / "objects", memory)
    kept = []
    for run in ("one", "two"):
        work, log = tmp_path / run / "product", tmp_path / run / "log"
        work.parent.mkdir()
        work.write_text("made")
        log.write_text(f"said in {run}")
        kept += [store.take(work), store.keep(log)]
        store.place(kept[-1], tmp_path / run / "log of a step that is not run again")
        assert not work.exists()
        assert log.read_text() == f"said in {run}"
    memory.save()
    assert json.loads((tmp_path / "hashes.json").read_text()).keys() == {str(store.path(pin)) for pin in kept}


def test_two_that_keep_the_same_at_once_do_not_write_into_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may have looked before the other was done: what has an object's name is whole at any time."""
    store = ObjectStore(tmp_path / "objects", HashMemory(tmp_path / "hashes.json"))
    monkeypatch.setattr(store, "holds", lambda pin: False)
    logs = [tmp_path / "one", tmp_path / "two"]
    for log in logs:
        log.write_text("")
        os.utime(log, ns=(1, 1))
    pins = [store.keep(log) for log in logs]
    assert pins[0] == pins[1]
    assert [log.stat().st_mtime_ns for log in logs] == [1, 1]
    assert store.path(pins[0]).samefile(logs[1])
    assert [path.name for path in store.path(pins[0]).parent.iterdir()] == [store.path(pins[0]).name]
