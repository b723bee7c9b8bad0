"""The code's history as one file: the same bytes for the same commit, whole, and never half-written."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import pytest
from conftest import AsUser
from test_sources import git_in, write

from preserve.documents.lockfile import SourcePin
from preserve.errors import MachineError, UserError
from preserve.sources import bundle, check_bundle, read_sources

PROGRAM = """
import os, sys
from pathlib import Path
from preserve.sources import bundle
os.umask(int(sys.argv[4], 8))
bundle(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of thirty commits on two branches, merged, with texts that deltas pay for."""
    folder = tmp_path_factory.mktemp("original")
    git = git_in(folder)
    git("init", "-q")
    for number in range(30):
        write(folder, f"code/{number % 4}.py", text="".join(f"line {i * (number + 1)}\n" for i in range(400)))
        git("add", ".")
        git("commit", "-q", "-m", f"Commit {number}")
        if number == 10:
            git("branch", "side")
        if number == 20:
            git("merge", "-q", "-s", "ours", "-m", "Merge", "side")
    return folder


@pytest.fixture
def repository(original: Path, tmp_path: Path) -> Path:
    """A copy of ``original`` to do things to."""
    return Path(shutil.copytree(original, tmp_path / "analysis"))


def made(folder: Path, commit: str | None = None) -> bytes:
    """Give the bundle's bytes."""
    target = folder.parent / "made.bundle"
    bundle(folder, commit or git_in(folder)("rev-parse", "HEAD"), target)
    return target.read_bytes()


class TestSameBytes:
    @pytest.mark.parametrize(
        "change",
        [
            ("gc", "-q", "--aggressive", "--prune=now"),
            ("repack", "-qadfb", "--depth=3", "--window=2"),
            ("-c", "pack.compression=1", "repack", "-qadF"),
            ("repack", "-qd", "--write-midx", "--write-bitmap-index"),
            ("commit-graph", "write", "--reachable"),
            ("tag", "early", "HEAD~9"),
            ("tag", "-a", "-m", "Annotated", "late"),
            ("pack-refs", "--all"),
            ("config", "core.compression", "0"),
            ("config", "pack.window", "0"),
            ("config", "pack.depth", "1"),
            ("config", "core.bigFileThreshold", "1"),
            ("config", "pack.packSizeLimit", "1m"),
            ("replace", "HEAD~3", "HEAD~8"),
            ("checkout", "-q", "--detach", "HEAD~2"),
            ("branch", "-m", "renamed"),
        ],
        ids=" ".join,
    )
    def test_whatever_the_repositorys_state(self, repository: Path, change: tuple[str, ...]) -> None:
        git = git_in(repository)
        commit = git("rev-parse", "HEAD")
        before = made(repository, commit)
        git(*change)
        assert made(repository, commit) == before

    @pytest.mark.parametrize("options", [(), ("--no-local",), ("--shared",), ("--no-tags", "--single-branch")])
    def test_in_a_clone(self, repository: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
        clone = tmp_path / "clones" / 'new\nline "and" \\quotes'
        clone.parent.mkdir()
        git_in(tmp_path)("clone", "-q", *options, str(repository), str(clone))
        assert made(clone) == made(repository)

    def test_in_a_second_work_tree_and_from_a_subfolder(self, repository: Path, tmp_path: Path) -> None:
        git_in(repository)("worktree", "add", "-q", "--detach", str(tmp_path / "second"))
        assert made(tmp_path / "second") == made(repository)
        target = tmp_path / "from-subfolder"
        bundle(repository / "code", git_in(repository)("rev-parse", "HEAD"), target)
        assert target.read_bytes() == made(repository)

    def test_with_grafts(self, repository: Path) -> None:
        git = git_in(repository)
        before = made(repository)
        (repository / ".git" / "info" / "grafts").write_text(git("rev-parse", "HEAD~4") + "\n")
        assert made(repository) == before

    def test_for_another_user_clock_umask_and_locale(self, repository: Path, as_user: AsUser) -> None:
        copy = as_user.home / "copy"
        git_in(as_user.home)("clone", "-q", str(repository), str(copy))
        as_user.give(copy)
        target = as_user.home / "theirs.bundle"
        (as_user.home / ".gitconfig").write_text("[pack]\n\twindow = 1\n[core]\n\tcompression = 0\n")
        command = (sys.executable, "-W", "error", "-c", PROGRAM, copy, read_sources(repository).pin.commit, target)  # type: ignore[union-attr]
        strange = {"TZ": "Pacific/Apia", "LC_ALL": "C", "GIT_COMPRESSION": "0", "PYTHONUTF8": "1"}
        as_user([str(part) for part in (*command, "077")], check=True, env=strange, cwd=as_user.home)
        assert target.read_bytes() == made(repository)


class TestWhole:
    def test_git_verifies_and_clones_it(self, repository: Path, tmp_path: Path) -> None:
        file = tmp_path / "code.bundle"
        git = git_in(repository)
        bundle(repository, git("rev-parse", "HEAD"), file)
        git("bundle", "verify", str(file))
        git_in(tmp_path)("clone", "-q", str(file), "clone")
        clone = git_in(tmp_path / "clone")
        assert clone("log", "--format=%H %T") == git("log", "--format=%H %T")
        assert clone("symbolic-ref", "HEAD") == "refs/heads/preserved"
        clone("fsck", "--full", "--strict")

    def test_our_own_check_finds_nothing(self, repository: Path) -> None:
        pin = read_sources(repository).pin
        assert pin is not None
        assert check_bundle(io.BytesIO(made(repository)), pin) == ()

    def test_only_the_commits_history_is_inside(self, repository: Path) -> None:
        git = git_in(repository)
        before = made(repository)
        git("checkout", "-q", "-b", "secret")
        write(repository, "password")
        git("add", ".")
        git("commit", "-q", "-m", "Not to be archived")
        git("checkout", "-q", "main")
        assert made(repository) == before

    def test_a_history_of_one_empty_commit(self, tmp_path: Path) -> None:
        git = git_in(tmp_path)
        git("init", "-q")
        git("commit", "-q", "--allow-empty", "-m", "Empty")
        pin = SourcePin(commit=git("rev-parse", "HEAD"), tree=git("rev-parse", "HEAD^{tree}"), clean=True)
        bundle(tmp_path, pin.commit, tmp_path / "b")
        assert check_bundle(io.BytesIO((tmp_path / "b").read_bytes()), pin) == ()

    def test_a_repository_with_sha256_ids(self, tmp_path: Path) -> None:
        git = git_in(tmp_path)
        git("init", "-q", "--object-format=sha256")
        write(tmp_path, "a.py")
        git("add", ".")
        git("commit", "-q", "-m", "Start")
        pin = SourcePin(commit=git("rev-parse", "HEAD"), tree=git("rev-parse", "HEAD^{tree}"), clean=True)
        bundle(tmp_path, pin.commit, tmp_path / "b")
        assert check_bundle(io.BytesIO((tmp_path / "b").read_bytes()), pin) == ()
        git("bundle", "verify", str(tmp_path / "b"))


class TestRefused:
    def refuse(self, folder: Path, commit: str, kind: type[Exception], message: str) -> str:
        """The call raises, leaves nothing behind, and gives its hint."""
        target = folder.parent / "refused.bundle"
        beside = set(folder.parent.iterdir())
        with pytest.raises(kind, match=message) as caught:
            bundle(folder, commit, target)
        assert set(folder.parent.iterdir()) == beside
        return str(caught.value.hint)  # type: ignore[attr-defined]

    def test_a_shallow_clone_says_how_to_complete_it(self, repository: Path, tmp_path: Path) -> None:
        shallow = tmp_path / "shallow"
        git_in(tmp_path)("clone", "-q", "--depth=3", f"file://{repository}", str(shallow))
        commit = git_in(shallow)("rev-parse", "HEAD")
        assert "git fetch --unshallow" in self.refuse(shallow, commit, UserError, "clone is shallow")
        git_in(shallow)("fetch", "-q", "--unshallow")
        assert made(shallow) == made(repository)

    def test_a_partial_clone(self, repository: Path, tmp_path: Path) -> None:
        git_in(repository)("config", "uploadpack.allowFilter", "true")
        partial = tmp_path / "partial"
        git_in(tmp_path)("clone", "-q", "--filter=blob:none", f"file://{repository}", str(partial))
        commit = git_in(partial)("rev-parse", "HEAD")
        assert "--refetch" in self.refuse(partial, commit, MachineError, f"cannot pack the history of {commit[:12]}")

    def test_a_commit_that_is_gone(self, repository: Path) -> None:
        assert "preserve lock" in self.refuse(repository, "1" * 40, UserError, "1{40} is not in the repository")

    def test_what_is_no_commit(self, repository: Path) -> None:
        tree = git_in(repository)("rev-parse", "HEAD^{tree}")
        self.refuse(repository, tree, UserError, "is not in the repository")

    def test_a_folder_without_git(self, tmp_path: Path) -> None:
        (tmp_path / "plain").mkdir()
        assert "git init" in self.refuse(tmp_path / "plain", "1" * 40, UserError, "not in a git repository")

    def test_a_damaged_object(self, repository: Path) -> None:
        git = git_in(repository)
        name = git("rev-parse", "HEAD~5:code/1.py")
        loose = repository / ".git" / "objects" / name[:2] / name[2:]
        loose.chmod(0o644)
        loose.write_bytes(b"damaged")
        self.refuse(repository, git("rev-parse", "HEAD"), MachineError, "cannot pack")

    def test_a_place_that_is_not_there(self, repository: Path, tmp_path: Path) -> None:
        commit = git_in(repository)("rev-parse", "HEAD")
        with pytest.raises(MachineError, match="cannot write"):
            bundle(repository, commit, tmp_path / "no" / "such" / "folder")

    def test_without_git_on_the_search_path(self, repository: Path, tmp_path: Path) -> None:
        commit = git_in(repository)("rev-parse", "HEAD")
        with pytest.raises(MachineError, match="git cannot be started") as caught:
            bundle(repository, commit, tmp_path / "b", search_path=str(tmp_path / "nothing"))
        assert caught.value.hint == "apt install git"


def test_an_earlier_bundle_stays_when_the_new_one_fails(repository: Path, tmp_path: Path) -> None:
    target = tmp_path / "kept"
    target.write_bytes(b"earlier")
    with pytest.raises(UserError):
        bundle(repository, "1" * 40, target)
    assert target.read_bytes() == b"earlier"
