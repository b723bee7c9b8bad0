"""Products by content."""

from __future__ import annotations

import json
from pathlib import Path

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
