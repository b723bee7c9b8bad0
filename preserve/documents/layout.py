"""What a step finds at /work, as a rule: which folders it may write in, and which inputs are shielded there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLayout:
    """Folders are relative to /work, which is ``.`` itself.

    ``writable`` are the folders of the outputs, sorted; ``mounted`` the outermost of them, which are mounted;
    ``islands`` the inputs that stand in a writable folder, each as the highest folder that holds only inputs, or as
    the file: they are mounted over it, read-only.
    """

    writable: tuple[str, ...]
    mounted: tuple[str, ...]
    islands: tuple[str, ...]


def layout_of(inputs: tuple[str, ...], outputs: tuple[str, ...]) -> StepLayout:
    """Give the layout of a step that reads ``inputs`` and makes ``outputs``; ``/`` at the end marks a folder."""
    writable = writable_folders(outputs)
    mounted = tuple(name for name in writable if not any(other in _parents(name) for other in writable))
    return StepLayout(writable=writable, mounted=mounted, islands=_islands(inputs, writable))


def writable_folders(outputs: tuple[str, ...]) -> tuple[str, ...]:
    """Folders in which a step may write, sorted."""
    names = {path.rstrip("/") if path.endswith("/") else str(PurePosixPath(path).parent) for path in outputs}
    return tuple(sorted(names))


def is_writable(path: str, writable: tuple[str, ...]) -> bool:
    """Whether a path stands in one of the folders."""
    return any(parent in writable for parent in _parents(path))


def _parents(path: str) -> tuple[str, ...]:
    return tuple(str(parent) for parent in PurePosixPath(path).parents)


def _islands(inputs: tuple[str, ...], writable: tuple[str, ...]) -> tuple[str, ...]:
    found = set()
    for path in inputs:
        if not is_writable(path, writable):
            continue
        chosen = path.rstrip("/")
        for parent in _parents(path):
            if parent == "." or any(name == parent or parent in _parents(name) for name in writable):
                break
            chosen = parent
        found.add(chosen)
    return tuple(sorted(found))
