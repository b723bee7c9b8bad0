"""Which files are code, and whether they are what was committed: read from real git repositories."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from conftest import PATH
from hypothesis import given, settings
from hypothesis import strategies as st

from preserve.documents.lockfile import SourcePin
from preserve.errors import MachineError
from preserve.sources import differs, read_sources

ODD = ["with space.py", "ü.py", "quote'.py", "new\nline.py", "-dash.py", "tab\t.py", "a -> b.py"]
Git = Callable[..., str]


def git_in(folder: Path) -> Git:
    """Run git in a folder, whatever the user's own settings are."""

    def run(*command: str) -> str:
        identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "init.defaultBranch=main")
        environment = {"PATH": PATH, "GIT_COMMITTER_DATE": "@1234567890 +0000", "GIT_AUTHOR_DATE": "@0 +0000"}
        done = subprocess.run(
            ["git", *identity, *command], check=True, cwd=folder, env=environment, capture_output=True, text=True
        )
        return done.stdout.strip()

    return run


def write(folder: Path, *names: str, text: str = "text\n") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """A repository in tmp_path with one commit: code/a.py, notes.md, and an analysis in sub/."""
    run = git_in(tmp_path)
    write(tmp_path, "code/a.py", "notes.md", "sub/preserve.yaml", "sub/code/b.py")
    run("init", "-q")
    run("add", ".")
    run("commit", "-q", "-m", "Start")
    return run


class TestOutsideGit:
    def test_every_file_is_code_but_ours_and_what_is_not(self, tmp_path: Path) -> None:
        write(tmp_path, "a.py", "data/x", "out/y", "out/deep/z", "outer/w", ".preserve/runs/1", "preserve.lock")
        found = read_sources(tmp_path, not_code=("data/x", "out/"))
        assert found.tracked == {"a.py", "outer/w"}
        assert (found.pin, found.epoch, found.changed) == (None, 0, ())


class TestTheCommit:
    def test_its_ids_and_its_committers_time(self, tmp_path: Path, git: Git) -> None:
        found = read_sources(tmp_path)
        commit, tree = git("rev-parse", "HEAD"), git("rev-parse", "HEAD^{tree}")
        assert found.pin == SourcePin(commit=commit, tree=tree, clean=True)
        assert found.epoch == 1234567890
        assert found.tracked == {"code/a.py", "notes.md", "sub/preserve.yaml", "sub/code/b.py"}

    def test_before_the_first_commit(self, tmp_path: Path) -> None:
        git = git_in(tmp_path)
        git("init", "-q")
        write(tmp_path, "a.py", "b.py")
        git("add", "a.py")
        found = read_sources(tmp_path)
        assert (found.pin, found.tracked, found.changed) == (None, {"a.py"}, ("a.py",))

    def test_a_repository_that_is_damaged(self, tmp_path: Path, git: Git) -> None:
        (tmp_path / ".git" / "index").write_bytes(b"DIRC and nothing more")
        with pytest.raises(MachineError, match="git refuses"):
            read_sources(tmp_path)

    def test_an_analysis_in_a_subfolder_sees_only_itself(self, tmp_path: Path, git: Git) -> None:
        write(tmp_path, "notes.md", "new.txt", text="changed\n")
        found = read_sources(tmp_path / "sub")
        assert found.tracked == {"preserve.yaml", "code/b.py"}
        assert found.pin is not None
        assert found.pin.clean
        write(tmp_path, "sub/code/b.py", text="changed\n")
        assert read_sources(tmp_path / "sub").changed == ("code/b.py",)

    def test_names_that_git_would_quote(self, tmp_path: Path, git: Git) -> None:
        write(tmp_path, *(f"odd/{name}" for name in ODD))
        assert read_sources(tmp_path).changed == tuple(sorted(f"odd/{name}" for name in ODD))
        git("add", ".")
        git("commit", "-q", "-m", "Odd")
        found = read_sources(tmp_path)
        assert {f"odd/{name}" for name in ODD} <= found.tracked
        assert found.changed == ()


class TestDirty:
    @pytest.mark.parametrize("change", ["edited", "deleted", "renamed", "staged", "new", "executable"])
    def test_a_change_is_seen(self, tmp_path: Path, git: Git, change: str) -> None:
        code = tmp_path / "code" / "a.py"
        names = {"renamed": ("code/a.py", "code/c.py"), "new": ("code/n.py",), "staged": ("code/s.py",)}
        ways: dict[str, Callable[[], object]] = {
            "edited": lambda: code.write_text("other\n"),
            "deleted": code.unlink,
            "renamed": lambda: git("mv", "code/a.py", "code/c.py"),
            "staged": lambda: (write(tmp_path, "code/s.py"), git("add", "code/s.py")),
            "new": lambda: write(tmp_path, "code/n.py"),
            "executable": lambda: code.chmod(0o755),
        }
        ways[change]()
        found = read_sources(tmp_path)
        assert found.changed == names.get(change, ("code/a.py",))
        assert found.pin is not None
        assert not found.pin.clean

    def test_products_and_data_are_no_change_unless_tracked(self, tmp_path: Path, git: Git) -> None:
        write(tmp_path, "data/x", "out/y", "preserve.lock", ".preserve/hashes.json", "stranger")
        assert read_sources(tmp_path, not_code=("data/x", "out/")).changed == ("stranger",)
        write(tmp_path, "notes.md", text="changed\n")
        assert read_sources(tmp_path, not_code=("notes.md",)).changed == ("data/x", "notes.md", "out/y", "stranger")

    @settings(max_examples=15, deadline=None)
    @given(
        st.sets(st.sampled_from(["code/a.py", "notes.md", "new.py", "code/new.py"])),
        st.sets(st.sampled_from(["data/x", "out/y", "out/deep/z", "preserve.lock", ".preserve/busy"])),
    )
    def test_it_is_clean_unless_code_changed(self, code: set[str], ours: set[str]) -> None:
        with TemporaryDirectory() as name:
            folder = Path(name)
            run = git_in(folder)
            write(folder, "code/a.py", "notes.md")
            run("init", "-q")
            run("add", ".")
            run("commit", "-q", "-m", "Start")
            write(folder, *code, *ours, text="changed\n")
            found = read_sources(folder, not_code=("data/x", "out/"))
            assert found.changed == tuple(sorted(code))
            assert found.pin is not None
            assert found.pin.clean == (not code)


class TestDiffers:
    @pytest.fixture
    def pins(self, tmp_path: Path, git: Git) -> Iterator[Callable[..., SourcePin]]:
        """Commit files with new content, and give the pin."""
        counter = iter(range(100))

        def commit(*names: str) -> SourcePin:
            write(tmp_path, *names, text=f"{next(counter)}\n")
            git("add", ".")
            git("commit", "-q", "--allow-empty", "-m", "Next")
            pin = read_sources(tmp_path).pin
            assert pin is not None
            return pin

        yield commit

    def test_the_lock_alone_is_no_difference(self, tmp_path: Path, pins: Callable[..., SourcePin]) -> None:
        first, second, third = pins("code/a.py"), pins("preserve.lock"), pins("preserve.lock", "code/a.py")
        assert not differs(tmp_path, first, first)
        assert not differs(tmp_path, first, second)
        assert differs(tmp_path, second, third)

    def test_for_a_subfolder_only_what_lies_there_counts(self, tmp_path: Path, pins: Callable[..., SourcePin]) -> None:
        first, second, third = pins("notes.md"), pins("code/a.py", "sub/preserve.lock"), pins("sub/code/b.py")
        assert not differs(tmp_path / "sub", first, second)
        assert differs(tmp_path / "sub", second, third)

    def test_a_lock_elsewhere_is_a_file_like_others(self, tmp_path: Path, pins: Callable[..., SourcePin]) -> None:
        first, second = pins("notes.md"), pins("sub/preserve.lock")
        assert differs(tmp_path, first, second)

    def test_a_commit_that_is_gone(self, tmp_path: Path, pins: Callable[..., SourcePin]) -> None:
        gone = SourcePin(commit="0" * 40, tree="0" * 40, clean=True)
        assert differs(tmp_path, gone, pins("code/a.py"))
