"""Which reader looks at a file, and its leaves, all of them, within limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from preserve.comparators.leaves import Leaf, Limits, MissingExtra, Reader, TooMuch, Unreadable
from preserve.comparators.pieces import Packed, load_packed
from preserve.comparators.readers import BUILT_INS, reader

HEAD = 64 << 10  # bytes of a file that readers see before one is chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Why something could not be compared, and what would cure it."""

    reason: str
    hint: str | None = None


class Obstructed(Exception):
    """A file or leaf could not be read; ``obstacle`` says why."""

    def __init__(self, obstacle: Obstacle) -> None:
        super().__init__(obstacle.reason)
        self.obstacle = obstacle


def choose(file: Path, name: str) -> Reader:
    """Give the reader that is surest of a file; ``name`` is what it is called in the analysis."""
    with file.open("rb") as stream:
        head = stream.read(HEAD)
    return choose_by(head, name)


def choose_by(head: bytes, name: str) -> Reader:
    """Give the reader that is surest of what begins with ``head``; of two, the first of the built-ins."""
    return max((reader(one) for one in BUILT_INS), key=lambda one: one.sniff(head, name))


def read_leaves(chosen: Reader, file: Path, limits: Limits) -> dict[str, Leaf]:
    """Give all leaves by path; a path that comes again gets ``#2``, ``#3`` at its end, so that none hides another.

    Raises:
        Obstructed: the file is broken, too large, or its library is missing.
    """
    leaves: dict[str, Leaf] = {}
    times: dict[str, int] = {}

    def read() -> Mapping[str, Leaf]:
        for leaf in chosen.leaves(file, limits):
            if len(leaves) >= limits.leaves:
                raise TooMuch(f"more than {limits.leaves} leaves")
            path = leaf.path
            while path in leaves:
                times[leaf.path] = times.get(leaf.path, 1) + 1
                path = f"{leaf.path}#{times[leaf.path]}"
            leaves[path] = leaf if path == leaf.path else replace(leaf, path=path)
        return leaves

    translated(read)
    return leaves


def load(leaf: Leaf) -> Any:
    """Give a leaf's content.

    Raises:
        Obstructed: it cannot be read.
    """
    return translated(leaf.load)


def load_both(recorded: Leaf, found: Leaf) -> tuple[Any, Any] | None:
    """Give the content of two leaves; ``None``: they are the same as they lie in their files, and nothing was loaded.

    Raises:
        Obstructed: one cannot be read.
    """
    one, other = recorded.load, found.load
    if isinstance(one, Packed) and isinstance(other, Packed):
        both: tuple[Any, Any] | None = translated(lambda: load_packed(one, other))
        return both
    return load(recorded), load(found)


def translated(read: Callable[[], Any]) -> Any:
    """Do what a reader does; whatever goes wrong in a stranger's file or in a library that reads it is an obstacle.

    Raises:
        Obstructed: something went wrong.
    """
    try:
        return read()
    except MissingExtra as error:
        raise Obstructed(_missing(error)) from error
    except (TooMuch, Unreadable) as error:
        raise Obstructed(Obstacle(reason=str(error))) from error
    except RecursionError as error:
        raise Obstructed(Obstacle(reason="nested too deeply")) from error
    # Libraries raise anything on hostile files, and no list of it would last: one file must not end the judgement of
    # the others. MemoryError is among them: what does not fit is an obstacle of this one file.
    except Exception as error:
        raise Obstructed(Obstacle(reason=f"cannot be read: {type(error).__name__}: {error}")) from error


def _missing(error: MissingExtra) -> Obstacle:
    text = str(error)
    cure = text[text.index("pip install") :] if "pip install" in text else None
    return Obstacle(reason=text, hint=cure)
