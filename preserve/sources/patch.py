"""What of the code is not committed, as a patch that ``git apply`` takes."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from preserve.digest import CHUNK
from preserve.errors import MachineError, UserError
from preserve.sources.bundle import require_commit
from preserve.sources.scratch import SEARCH_PATH, Answer, Scratch, scratch_repository
from preserve.sources.work_tree import look_at

# A patch must not depend on what git's defaults are or what its version finds prettier.
_FORM = (
    *("--patch", "--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames"),
    *("--unified=3", "--diff-algorithm=myers", "--no-indent-heuristic", "--src-prefix=a/", "--dst-prefix=b/"),
)


def patch(folder: Path, commit: str, paths: Collection[str] = (), *, search_path: str = SEARCH_PATH) -> bytes:
    """Give what leads from ``commit`` to the work tree below ``folder``: tracked files, and those in ``paths``.

    ``paths`` are relative to ``folder``, the patch's to the repository's top. Bytes are compared as they are on
    disk: applied to a checkout of the commit without conversions, the patch gives exactly these files. preserve.lock
    and .preserve/ are left out, and so are submodules.

    Raises:
        UserError: the commit is not there, or a file cannot be read.
        MachineError: git is missing or refuses.
    """
    repository = look_at(folder, since=commit)
    names = sorted({*repository.changed, *(repository.start + path for path in paths)})
    with scratch_repository(sample=commit, search_path=search_path) as scratch:
        scratch.borrow(repository.objects)
        require_commit(scratch, commit)
        _done(scratch.git("read-tree", commit))
        entries = sorted(
            f"{kind} {made or '0' * len(commit)}\t".encode() + os.fsencode(name) + b"\0"
            for name in names
            for kind, made in _entry(scratch, repository.top / name)
        )
        _done(scratch.git("update-index", "-z", "--index-info", chunks=entries))  # "0 …", removed, first
        tree = _done(scratch.git("write-tree", "--missing-ok")).decode().strip()
        return _done(scratch.git("diff-tree", *_FORM, commit, tree))


def _entry(scratch: Scratch, path: Path) -> Iterator[tuple[str, str]]:
    """Store a file as it is on disk and yield git's mode and id for it: ``0`` where it is gone; nothing for folders."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            yield "120000", _stored(scratch, (os.fsencode(path.readlink()),))
        elif stat.S_ISREG(mode):
            yield "100755" if mode & 0o100 else "100644", _stored(scratch, _read(path))
    except (FileNotFoundError, NotADirectoryError):
        yield "0", ""
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", hint="mend its rights, or remove it") from error


def _stored(scratch: Scratch, chunks: Iterable[bytes]) -> str:
    return _done(scratch.git("hash-object", "-w", "--no-filters", "--stdin", chunks=chunks)).decode().strip()


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def _done(answer: Answer) -> bytes:
    if answer.exit_code != 0:
        raise MachineError(f"git cannot compare the code with its commit: {answer.reason}", hint="see: git status")
    return answer.output
