"""The analysis' code: git commit, tree and dirtiness. GitPython is used here and nowhere else.

Only ever on the author's own repository: a stranger's goes through checking.py.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import TYPE_CHECKING

from preserve.digest import Digest, FilePin, hash_stream
from preserve.documents.lockfile import SourcePin
from preserve.documents.paths import closed
from preserve.errors import MachineError, UserError

if TYPE_CHECKING:
    from git import Repo
    from git.objects import Blob, Tree

OWN = (".preserve/", "preserve.lock")
_LINK, _EXECUTABLE = 0o120000, 0o100755
_STAND_IN = re.compile(rb"version https://git-lfs\S+\noid (sha256:[0-9a-f]{64})\nsize ([0-9]{1,18})\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The files of the analysis folder that belong to the code, and the commit they are of.

    ``pin`` is ``None`` outside git or before the first commit; ``epoch`` is the commit's time (seconds since 1970,
    UTC); ``changed`` are the paths that differ from the commit, ours left out.
    """

    tracked: frozenset[str]
    pin: SourcePin | None
    epoch: int
    changed: tuple[str, ...]


def read_sources(folder: Path, *, not_code: Collection[str] = ()) -> Sources:
    """Look at the git work tree that ``folder`` lies in; without git, every file below it counts as code.

    ``not_code`` are products and input data: where they are not tracked they do not make the work tree dirty.

    Raises:
        MachineError: git is not installed or refuses the repository.
    """
    if _around(folder) is None:
        return _without_git(folder, not_code)
    try:
        import git  # noqa: PLC0415  (a tenth of a second)
    except ImportError as error:
        raise MachineError("git is not installed", hint="apt install git") from error
    try:
        repository = _repository_of(folder)
    except (git.InvalidGitRepositoryError, git.NoSuchPathError):
        return _without_git(folder, not_code)
    try:
        with repository:
            return _look(repository, folder, not_code)
    except git.GitError as error:
        raise MachineError(f"git refuses {folder}: {error}", hint="see: git status") from error


def differs(folder: Path, earlier: SourcePin, now: SourcePin) -> bool:
    """Whether anything but preserve.lock changed between two commits.

    An earlier commit that is not there (any more) counts as changed.
    """
    import git  # noqa: PLC0415

    if earlier.commit == now.commit:
        return False
    with _repository_of(folder) as repository:
        start = _start(folder, _top(repository))
        try:
            names = repository.git.diff("--name-only", "-z", earlier.commit, now.commit, "--", start or ".")
        except git.GitError:
            return True
    return any(name != f"{start}preserve.lock" for name in names.split("\0") if name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """The repository that an analysis folder lies in.

    ``top`` is its work tree, ``start`` the folder's path in it (empty, or with a trailing ``/``), ``objects`` where
    its objects lie; ``shallow``: it does not have the whole history. ``changed`` are the tracked files below the
    folder that differ from a commit, by path from the top, ours left out.
    """

    top: Path
    start: str
    objects: Path
    shallow: bool
    changed: tuple[str, ...]


def look_at(folder: Path, *, since: str | None = None) -> Repository:
    """Find the repository of ``folder``, and what differs from commit ``since`` (``None``: nothing is compared).

    Raises:
        UserError: there is none, or it has no such commit.
        MachineError: git is not installed or refuses it.
    """
    with _opened(folder) as repository:
        top = _top(repository)
        start = _start(folder, top)
        changed = []
        if since is not None:
            _tree(repository, since)  # says what is wrong when it is not there
            changed = _differing(repository, since, folder)
        return Repository(
            top=top,
            start=start,
            objects=(top / repository.git.rev_parse("--git-path", "objects")).resolve(),
            shallow=repository.git.rev_parse("--is-shallow-repository") == "true",
            changed=tuple(name for name in changed if not _ours(name.removeprefix(start), (), ())),
        )


def uncommitted(
    folder: Path, source: SourcePin, files: Mapping[str, FilePin], *, not_code: Collection[str] = ()
) -> tuple[str, ...]:
    """Which files below ``folder`` the history does not hold as they are: sorted, relative to it.

    These are the files that steps read (``files``) and commit ``source.commit`` has not, or has otherwise; and the
    tracked files that differ from HEAD, except preserve.lock, .preserve/ and ``not_code`` (products, input data).

    Raises:
        UserError: the repository does not have the commit (any more).
        MachineError: git is not installed or refuses the repository.
    """
    with _opened(folder) as repository:
        top = _top(repository)
        start = _start(folder, top)
        tree = _tree(repository, source.commit)
        other = {path for path, pin in files.items() if not _holds(tree, start + path, pin)}
        edited = (name.removeprefix(start) for name in _differing(repository, "HEAD", folder))
        other |= {path for path in edited if not _ours(path, (), not_code)}
        return tuple(sorted(other))


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[Repo]:
    """Yield the repository; git's complaints become ours."""
    try:
        import git  # noqa: PLC0415
    except ImportError as error:
        raise MachineError("git is not installed", hint="apt install git") from error
    try:
        with _repository_of(folder) as repository:
            yield repository
    except (git.InvalidGitRepositoryError, git.NoSuchPathError) as error:
        raise UserError(f"{folder} is not in a git repository", hint="git init, commit, and lock again") from error
    except git.GitError as error:
        raise MachineError(f"git refuses {folder}: {error}", hint="see: git status; git fsck") from error


def _around(folder: Path) -> Path | None:
    """Give the nearest folder, from ``folder`` upward, that has a ``.git``."""
    here = folder.resolve()
    return next((one for one in (here, *here.parents) if os.path.lexists(one / ".git")), None)


def _repository_of(folder: Path) -> Repo:
    """Give the repository around ``folder``, whose top has a ``.git``.

    Where git's own files lie about without one (a bare repository), git would obey a configuration that a stranger's
    archive may have laid out, and start the programs that it names.

    Raises:
        InvalidGitRepositoryError: there is none.
    """
    import git  # noqa: PLC0415

    top = _around(folder)
    if top is None:
        raise git.InvalidGitRepositoryError(str(folder))
    repository = git.Repo(top)
    # git's files beside .git would come before it; and a configured work tree is taken from the current folder
    if Path(str(repository.git_dir)).resolve() == top or Path(str(repository.working_tree_dir)).resolve() != top:
        repository.close()
        raise git.InvalidGitRepositoryError(str(folder))
    return repository


def _top(repository: Repo) -> Path:
    return Path(str(repository.working_tree_dir)).resolve()


def _start(folder: Path, top: Path) -> str:
    prefix = folder.resolve().relative_to(top).as_posix()
    return "" if prefix == "." else prefix + "/"


def _differing(repository: Repo, commit: str, folder: Path) -> list[str]:
    """Tracked files below ``folder`` whose content, mode or existence is not the commit's; paths from the top."""
    options = ("--name-only", "-z", "--no-renames", "--no-relative", "--no-ext-diff", "--ignore-submodules=none")
    return [name for name in repository.git.diff(*options, commit, "--", str(folder)).split("\0") if name]


def _tree(repository: Repo, commit: str) -> Tree:
    try:
        return repository.commit(commit).tree
    except ValueError as error:
        raise UserError(
            f"commit {commit} is not in the repository (any more)",
            hint="fetch it again; or lock and run what is there now: preserve lock && preserve run",
        ) from error


def _holds(tree: Tree, path: str, pin: FilePin) -> bool:
    """Whether a commit's tree has this content at ``path``, behind symbolic links too, or git-lfs' stand-in for it."""
    blob = _blob(tree, path)
    if blob is None or (blob.mode == _EXECUTABLE) != pin.executable:
        return False
    if blob.size < 1024 and (lfs := _STAND_IN.match(blob.data_stream.read())):
        return (Digest(lfs[1].decode()), int(lfs[2])) == (pin.sha256, pin.size)
    return blob.size == pin.size and hash_stream(blob.data_stream)[0] == pin.sha256


def _blob(tree: Tree, path: str) -> Blob | None:
    for _ in range(8):  # links to links
        try:
            found = tree / path
        except KeyError:
            return None
        if found.type != "blob":
            return None
        if found.mode != _LINK:
            return found
        path = normpath(join(dirname(path), found.data_stream.read().decode(errors="replace")))
    return None


def _look(repository: Repo, folder: Path, not_code: Collection[str]) -> Sources:
    start = _start(folder, _top(repository))
    names = repository.git.ls_files("-z", "--full-name", "--", str(folder)).split("\0")
    tracked = frozenset(name.removeprefix(start) for name in names if name)
    if not repository.head.is_valid():
        return Sources(tracked=tracked, pin=None, epoch=0, changed=tuple(sorted(tracked)))
    changed = tuple(path for path in _changed(repository, folder, start) if not _ours(path, tracked, not_code))
    commit = repository.head.commit
    pin = SourcePin(commit=commit.hexsha, tree=commit.tree.hexsha, clean=not changed)
    return Sources(tracked=tracked, pin=pin, epoch=int(commit.committed_date), changed=changed)


def _changed(repository: Repo, folder: Path, start: str) -> list[str]:
    """Paths below ``folder`` that git status names, relative to it."""
    options = ("--porcelain=v1", "-z", "--untracked-files=all", "--no-renames")
    text = repository.git.status(*options, "--", str(folder))
    return sorted(entry[3:].removeprefix(start) for entry in text.split("\0") if len(entry) > 3)


def _ours(path: str, tracked: Collection[str], not_code: Collection[str]) -> bool:
    if path.startswith(OWN[0]) or path == OWN[1]:
        return True
    return path not in tracked and _covers(not_code, path)


def _covers(paths: Collection[str], path: str) -> bool:
    """Whether ``path`` is one of ``paths`` or lies in a folder (trailing ``/``) of them."""
    return path in paths or any(p.endswith("/") and path.startswith(p) for p in paths)


def _without_git(folder: Path, not_code: Collection[str]) -> Sources:
    code = (path for path in _all_files(folder) if not _covers(not_code, path))
    return Sources(tracked=frozenset(code), pin=None, epoch=0, changed=())


def _all_files(folder: Path) -> list[str]:
    """Paths of all files below ``folder``; git's and preserve's own folders, which grow large, are not entered."""
    found = []
    for parent, folders, names in os.walk(folder):
        here = Path(parent).relative_to(folder)
        folders[:] = [name for name in folders if closed((here / name).as_posix()) is None]
        found += [(here / name).as_posix() for name in names if Path(parent, name).is_file()]
    return [path for path in found if closed(path) is None and path != "preserve.lock"]
