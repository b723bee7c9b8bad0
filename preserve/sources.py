"""The analysis' code: git commit, tree and dirtiness. GitPython is used here and nowhere else."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from preserve.documents.lockfile import SourcePin
from preserve.errors import MachineError

OWN = (".preserve/", "preserve.lock")


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
    try:
        import git  # noqa: PLC0415  (a tenth of a second)
    except ImportError as error:
        raise MachineError("git is not installed", hint="apt install git") from error
    try:
        repository = git.Repo(folder, search_parent_directories=True)
    except (git.InvalidGitRepositoryError, git.NoSuchPathError):
        code = (path for path in _all_files(folder) if not _covers(not_code, path))
        return Sources(tracked=frozenset(code), pin=None, epoch=0, changed=())
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
    with git.Repo(folder, search_parent_directories=True) as repository:
        prefix = folder.resolve().relative_to(Path(str(repository.working_tree_dir)).resolve()).as_posix()
        lock = "preserve.lock" if prefix == "." else f"{prefix}/preserve.lock"
        try:
            names = repository.git.diff("--name-only", "-z", earlier.commit, now.commit, "--", prefix)
        except git.GitError:
            return True
    return any(name != lock for name in names.split("\0") if name)


def _look(repository: object, folder: Path, not_code: Collection[str]) -> Sources:
    run = repository.git  # type: ignore[attr-defined]
    top = Path(str(repository.working_tree_dir)).resolve()  # type: ignore[attr-defined]
    prefix = folder.resolve().relative_to(top).as_posix()
    start = "" if prefix == "." else prefix + "/"
    tracked = frozenset(
        name.removeprefix(start) for name in run.ls_files("-z", "--full-name", "--", str(folder)).split("\0") if name
    )
    if not repository.head.is_valid():  # type: ignore[attr-defined]
        return Sources(tracked=tracked, pin=None, epoch=0, changed=tuple(sorted(tracked)))
    changed = tuple(path for path in _changed(run, folder, start) if not _ours(path, tracked, not_code))
    commit = repository.head.commit  # type: ignore[attr-defined]
    pin = SourcePin(commit=commit.hexsha, tree=commit.tree.hexsha, clean=not changed)
    return Sources(tracked=tracked, pin=pin, epoch=int(commit.committed_date), changed=changed)


def _changed(run: object, folder: Path, start: str) -> list[str]:
    """Paths below ``folder`` that git status names, relative to it."""
    text = run.status("--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--", str(folder))  # type: ignore[attr-defined]
    return sorted(entry[3:].removeprefix(start) for entry in text.split("\0") if len(entry) > 3)


def _ours(path: str, tracked: Collection[str], not_code: Collection[str]) -> bool:
    if path.startswith(OWN[0]) or path == OWN[1]:
        return True
    return path not in tracked and _covers(not_code, path)


def _covers(paths: Collection[str], path: str) -> bool:
    """Whether ``path`` is one of ``paths`` or lies in a folder (trailing ``/``) of them."""
    return path in paths or any(p.endswith("/") and path.startswith(p) for p in paths)


def _all_files(folder: Path) -> list[str]:
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [path for path in paths if not path.startswith((".preserve/", ".git/")) and path != "preserve.lock"]
