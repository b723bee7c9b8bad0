"""A stranger's git bundle: is it the history of the declared commit, whole, and nothing else?

It is never cloned, fetched from or checked out. Its header must be the one that ``bundle`` writes, so that no ref, no
prerequisite and no filter of a stranger reaches git; its pack goes into a repository that is thrown away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from preserve.digest import CHUNK
from preserve.documents.archive import BUNDLE
from preserve.documents.lockfile import SourcePin
from preserve.documents.verification import Finding
from preserve.sources.bundle import header
from preserve.sources.scratch import GIB, SEARCH_PATH, Limits, Scratch, scratch_repository

LIMITS = Limits(memory=4 * GIB, cpu_seconds=900)  # a delta of 1 MB can ask for 2 TB
_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# Slips of old programs that made real histories and harm nobody; everything else that git fsck names is refused.
_HARMLESS = (
    *("badDate", "badDateOverflow", "badEmail", "badName", "badTimezone", "missingEmail", "missingNameBeforeEmail"),
    *("missingSpaceBeforeDate", "missingSpaceBeforeEmail", "zeroPaddedDate", "zeroPaddedFilemode", "nullSha1"),
)


def check_bundle(
    stream: BinaryIO,
    source: SourcePin,
    *,
    inside: Path | None = None,
    search_path: str = SEARCH_PATH,
    limits: Limits = LIMITS,
) -> tuple[Finding, ...]:
    """Read a bundle and say all that is wrong with it; ``inside`` is a folder with room for a copy of it.

    Raises:
        MachineError: git is not installed, or there is no room.
    """
    if not _ID.fullmatch(source.commit) or not _ID.fullmatch(source.tree):
        return (_finding("the lock's commit and tree are not git's ids", found=f"{source.commit} {source.tree}"),)
    expected = header(source.commit)
    found = stream.read(len(expected))
    if found != expected:
        return (_finding("not a bundle of the declared commit alone", expected, found),)
    with scratch_repository(inside, sample=source.commit, search_path=search_path, limits=limits) as scratch:
        return tuple(_check_pack(scratch, stream, source))


def _check_pack(scratch: Scratch, stream: BinaryIO, source: SourcePin) -> Iterator[Finding]:
    pack = _Counted(stream)
    options = ("--stdin", "--threads=1", f"--strict={','.join(f'{name}=warn' for name in _HARMLESS)}")
    answer = scratch.git("index-pack", *options, chunks=pack)
    if answer.exit_code != 0:
        yield _finding("git refuses its pack", found=answer.reason)
        return
    stored = next((scratch.folder / "objects" / "pack").glob("*.pack")).stat().st_size
    if stored != pack.size:
        yield _finding("has bytes after its end", f"a pack of {stored} bytes", f"{pack.size} bytes")
    yield from _check_history(scratch, source, objects=int.from_bytes(pack.head[8:12], "big"))


def _check_history(scratch: Scratch, source: SourcePin, *, objects: int) -> Iterator[Finding]:
    kind = scratch.git("cat-file", "-t", source.commit).output.decode().strip()
    if kind != "commit":  # a tag, for one, leads to a tree as well
        yield _finding(f"does not hold commit {source.commit}", "a commit", kind)
        return
    tree = scratch.git("rev-parse", "--verify", "--quiet", f"{source.commit}^{{tree}}").output.decode().strip()
    if tree != source.tree:
        yield _finding(f"the tree of commit {source.commit} is another", source.tree, tree)
        return
    walk = scratch.git("rev-list", "--objects", "--no-object-names", source.commit)
    if walk.exit_code != 0:
        yield _finding("lacks a part of the history", found=walk.reason)
        return
    reached = walk.output.count(b"\n")
    if reached != objects:
        yield _finding("holds objects that are no part of the history", str(reached), str(objects))


def _finding(problem: str, expected: bytes | str = "", found: bytes | str = "") -> Finding:
    return Finding(path=BUNDLE, problem=problem, expected=_shown(expected), found=_shown(found))


def _shown(text: bytes | str) -> str:
    """Make a stranger's text fit for one line of a terminal."""
    whole = text.decode(errors="backslashreplace") if isinstance(text, bytes) else text
    return ascii(whole)[1:-1][:300]


class _Counted:
    """The rest of a stream in chunks; ``size`` are the bytes given so far, ``head`` the first twelve of them."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.size, self.head = stream, 0, b""

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._stream.read(CHUNK):
            self.size += len(chunk)
            self.head += chunk[: 12 - len(self.head)]
            yield chunk
