"""The code's history as one file: a git bundle whose bytes only the commit decides (git's gitformat-bundle(5))."""

from __future__ import annotations

import os
from pathlib import Path

from preserve.errors import MachineError, UserError
from preserve.sources.scratch import SEARCH_PATH, Scratch, scratch_repository
from preserve.sources.work_tree import Repository, look_at

REF = "refs/heads/preserved"
# Nothing is taken over from the packs that are there, and one thread searches: so their state cannot show.
_PACKING = ("--revs", "--stdout", "--quiet", "--threads=1", "--no-reuse-object", "--delta-base-offset")


def header(commit: str) -> bytes:
    """Give all that stands in a bundle before the pack: the commit under one branch and HEAD."""
    kind = "# v3 git bundle\n@object-format=sha256\n" if len(commit) == 64 else "# v2 git bundle\n"
    return f"{kind}{commit} {REF}\n{commit} HEAD\n\n".encode()


def bundle(folder: Path, commit: str, target: Path, *, search_path: str = SEARCH_PATH) -> None:
    """Write the full history of ``commit`` in the repository of ``folder`` to ``target``.

    The same commit gives the same bytes (with one version of git and zlib) in a fresh clone and in a packed
    repository, whatever its settings, tags and replacements, the clock, the locale, the user.

    Raises:
        UserError: the repository does not have the whole history, or not this commit.
        MachineError: git is missing, refuses the repository, or there is no room.
    """
    repository = look_at(folder)
    beside = target.with_name(target.name + ".writing")
    try:
        with scratch_repository(target.parent, sample=commit, search_path=search_path) as scratch:
            scratch.borrow(repository.objects)
            require_commit(scratch, commit)
            _write(scratch, commit, beside, repository)
        beside.replace(target)
    except OSError as error:
        raise MachineError(f"cannot write {target}: {error.strerror}", hint="free some space") from error
    finally:
        beside.unlink(missing_ok=True)


def require_commit(scratch: Scratch, commit: str) -> None:
    """Refuse a commit that is not there.

    Raises:
        UserError: it is not.
    """
    if scratch.git("cat-file", "-e", f"{commit}^{{commit}}").exit_code != 0:
        raise UserError(
            f"commit {commit} is not in the repository (any more)",
            hint="fetch it again; or lock and run what is there now: preserve lock && preserve run",
        )


def _write(scratch: Scratch, commit: str, beside: Path, repository: Repository) -> None:
    with beside.open("wb") as stream:
        stream.write(header(commit))
        stream.flush()  # git writes on behind it
        answer = scratch.git("pack-objects", *_PACKING, chunks=(f"{commit}\n".encode(),), stdout=stream)
        if answer.exit_code != 0:
            raise _incomplete(commit, repository, answer.reason)
        os.fsync(stream.fileno())


def _incomplete(commit: str, repository: Repository, reason: str) -> UserError | MachineError:
    if repository.shallow:
        return UserError(
            f"the clone is shallow: it lacks the history before some commit that {commit[:12]} builds on",
            hint="fetch the rest, then try again: git fetch --unshallow",
        )
    return MachineError(
        f"git cannot pack the history of {commit[:12]}: {reason}",
        hint="see: git fsck --full; in a partial clone, fetch the rest: git fetch --refetch --no-filter",
    )
