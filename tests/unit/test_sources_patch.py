"""What is not committed: which files, and as a patch that leads from the commit to exactly these bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sources import ODD, Git, git_in, write

from preserve.digest import FilePin, hash_file
from preserve.documents.lockfile import SourcePin
from preserve.errors import MachineError, UserError
from preserve.sources import bundle, patch, read_sources, uncommitted

Change = Callable[[Path, Git], object]


def start(folder: Path) -> tuple[Git, SourcePin]:
    """Make a repository in ``folder`` with one commit, the analysis at its top."""
    git = git_in(folder)
    git("init", "-q")
    write(folder, "code/a.py", "code/b.py", "notes.md", "preserve.lock")
    (folder / "table.bin").write_bytes(bytes(range(256)) * 9)
    (folder / "link.py").symlink_to("code/a.py")
    git("add", ".")
    git("commit", "-q", "-m", "Start")
    pin = read_sources(folder).pin
    assert pin is not None
    return git, pin


@pytest.fixture
def begun(tmp_path: Path) -> tuple[Path, Git, SourcePin]:
    folder = tmp_path / "analysis"
    folder.mkdir()
    return folder, *start(folder)


def tree_of(folder: Path) -> dict[str, tuple[str, bytes | str]]:
    """All files of a work tree: kind and content."""
    found: dict[str, tuple[str, bytes | str]] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name.startswith(".git/") or (path.is_dir() and not path.is_symlink()):
            continue
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        else:
            found[name] = (
                "program" if os.access(path, os.X_OK) and path.stat().st_mode & 0o100 else "file",
                path.read_bytes(),
            )
    return found


def applied(folder: Path, commit: str, data: bytes, beside: Path) -> dict[str, tuple[str, bytes | str]]:
    """What a stranger gets: clone the bundle, apply the patch."""
    bundle(folder, commit, beside / "code.bundle")
    git_in(beside)("clone", "-q", "code.bundle", "clone")
    (beside / "uncommitted.patch").write_bytes(data)
    if data:
        git_in(beside / "clone")("apply", "--whitespace=nowarn", "--binary", str(beside / "uncommitted.patch"))
    return tree_of(beside / "clone")


def _folder_for_file(folder: Path, _: Git) -> None:
    (folder / "notes.md").unlink()
    write(folder, "notes.md/deep")


def _file_for_folder(folder: Path, _: Git) -> None:
    shutil.rmtree(folder / "code")
    write(folder, "code")


CHANGES: dict[str, Change] = {
    "edited": lambda folder, git: write(folder, "code/a.py", text="other\n"),
    "without a last newline": lambda folder, git: write(folder, "code/a.py", text="other"),
    "empty": lambda folder, git: write(folder, "code/a.py", text=""),
    "carriage returns": lambda folder, git: (folder / "code/a.py").write_bytes(b"a\r\nb\rc\0\xff\n"),
    "binary": lambda folder, git: (folder / "table.bin").write_bytes(bytes(range(255, -1, -1)) * 7),
    "gone": lambda folder, git: (folder / "code/a.py").unlink(),
    "executable": lambda folder, git: (folder / "code/a.py").chmod(0o755),
    "link moved": lambda folder, git: ((folder / "link.py").unlink(), (folder / "link.py").symlink_to("notes.md")),
    "link to file": lambda folder, git: ((folder / "link.py").unlink(), write(folder, "link.py")),
    "file to link": lambda folder, git: ((folder / "notes.md").unlink(), (folder / "notes.md").symlink_to("code")),
    "renamed": lambda folder, git: git("mv", "code/a.py", "code/z.py"),
    "staged": lambda folder, git: (write(folder, "new.py"), git("add", "new.py")),
    "staged, then edited": lambda folder, git: (
        write(folder, "new.py"),
        git("add", "new.py"),
        write(folder, "new.py", text="later\n"),
    ),
    "committed since": lambda folder, git: (write(folder, "notes.md", text="x"), git("commit", "-qam", "Later")),
    "folder for file": _folder_for_file,
    "file for folder": _file_for_folder,
}


class TestPatch:
    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_it_leads_to_exactly_these_files(
        self, begun: tuple[Path, Git, SourcePin], tmp_path: Path, change: Change
    ) -> None:
        folder, git, pin = begun
        change(folder, git)
        untracked = [name for name in tree_of(folder) if name not in git("ls-files", "-z").split("\0")]
        data = patch(folder, pin.commit, untracked)
        assert data
        assert applied(folder, pin.commit, data, tmp_path) == tree_of(folder)

    def test_names_of_all_kinds(self, begun: tuple[Path, Git, SourcePin], tmp_path: Path) -> None:
        folder, _, pin = begun
        write(folder, *(f"odd/{name}" for name in ODD))
        data = patch(folder, pin.commit, [f"odd/{name}" for name in ODD])
        assert applied(folder, pin.commit, data, tmp_path) == tree_of(folder)

    def test_nothing_changed_is_an_empty_patch(self, begun: tuple[Path, Git, SourcePin]) -> None:
        folder, _, pin = begun
        assert patch(folder, pin.commit, ["code/a.py", "link.py"]) == b""

    def test_what_is_ours_stays_out(self, begun: tuple[Path, Git, SourcePin]) -> None:
        folder, git, pin = begun
        write(folder, "preserve.lock", ".preserve/state", "stranger", text="changed\n")
        git("add", "-f", ".preserve")
        assert patch(folder, pin.commit) == b""

    def test_only_the_analysis_folder_is_looked_at(self, begun: tuple[Path, Git, SourcePin], tmp_path: Path) -> None:
        folder, _, pin = begun
        write(folder, "notes.md", "code/b.py", text="changed\n")
        data = patch(folder / "code", pin.commit, ["new.py"])
        assert b"notes.md" not in data
        assert b"a/code/b.py b/code/b.py" in data

    def test_the_index_and_the_work_tree_stay_as_they_are(self, begun: tuple[Path, Git, SourcePin]) -> None:
        folder, git, pin = begun
        write(folder, "new.py", "code/a.py", text="changed\n")
        before = git("status", "--porcelain"), git("count-objects"), tree_of(folder)
        assert patch(folder, pin.commit, ["new.py"])
        assert (git("status", "--porcelain"), git("count-objects"), tree_of(folder)) == before

    @pytest.mark.parametrize(
        "setting",
        [
            ("diff.noprefix", "true"),
            ("diff.mnemonicPrefix", "true"),
            ("diff.context", "0"),
            ("diff.algorithm", "patience"),
            ("diff.renames", "copies"),
            ("diff.external", "false"),
            ("diff.relative", "true"),
            ("diff.ignoreSubmodules", "all"),
            ("color.ui", "always"),
            ("core.abbrev", "4"),
            ("core.quotePath", "false"),
            ("diff.shown.textconv", "false"),
            ("diff.orderFile", "order"),
            ("diff.suppressBlankEmpty", "true"),
        ],
        ids="=".join,
    )
    def test_the_repositorys_settings_do_not_show(
        self, begun: tuple[Path, Git, SourcePin], setting: tuple[str, str]
    ) -> None:
        folder, git, pin = begun
        (folder / ".gitattributes").write_text("*.py diff=shown\n")
        (folder / "order").write_text("*.bin\n")
        CHANGES["edited"](folder, git)
        CHANGES["binary"](folder, git)
        write(folder, "ü.py", "code/a copy.py", text="\n text\n\n")
        before = patch(folder, pin.commit, ["ü.py", "code/a copy.py"])
        git("config", *setting)
        assert patch(folder, pin.commit, ["ü.py", "code/a copy.py"]) == before

    def test_the_users_settings_and_hooks_do_not_show(
        self, begun: tuple[Path, Git, SourcePin], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, git, pin = begun
        CHANGES["edited"](folder, git)
        before = patch(folder, pin.commit)
        (tmp_path / ".gitconfig").write_text("[diff]\n\tnoprefix = true\n\texternal = false\n[color]\n\tui = always\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
        assert patch(folder, pin.commit) == before

    def test_a_file_that_cannot_be_read(self, begun: tuple[Path, Git, SourcePin], tmp_path: Path) -> None:
        folder, _, pin = begun
        (folder / "loop").symlink_to("loop")
        with pytest.raises(UserError, match="loop/x: cannot be read"):
            patch(folder, pin.commit, ["loop/x"])

    def test_a_commit_that_is_gone(self, begun: tuple[Path, Git, SourcePin]) -> None:
        with pytest.raises(UserError, match=r"1{40} is not in the repository"):
            patch(begun[0], "1" * 40)

    @settings(max_examples=12, deadline=None)
    @given(st.dictionaries(st.sampled_from(["code/a.py", "new", "deep/er/new", "table.bin"]), st.binary(max_size=200)))
    def test_any_content(self, contents: dict[str, bytes]) -> None:
        with TemporaryDirectory() as name:
            folder = Path(name) / "analysis"
            folder.mkdir()
            _, pin = start(folder)
            for path, data in contents.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(data)
            data = patch(folder, pin.commit, contents)
            assert applied(folder, pin.commit, data, Path(name)) == tree_of(folder)


class TestUncommitted:
    def pins(self, folder: Path, *paths: str) -> dict[str, FilePin]:
        return {path: hash_file(folder / path) for path in paths}

    def test_nothing(self, begun: tuple[Path, Git, SourcePin]) -> None:
        folder, _, pin = begun
        assert uncommitted(folder, pin, self.pins(folder, "code/a.py", "table.bin", "link.py")) == ()

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ("edited", ("code/a.py", "link.py")),
            ("executable", ("code/a.py", "link.py")),
            ("gone", ("code/a.py",)),
            ("link to file", ("link.py",)),
            ("staged", ("new.py",)),
            ("renamed", ("code/a.py", "code/z.py")),
            ("committed since", ()),
        ],
    )
    def test_a_change(self, begun: tuple[Path, Git, SourcePin], change: str, expected: tuple[str, ...]) -> None:
        folder, git, pin = begun
        CHANGES[change](folder, git)
        read = self.pins(folder, *(path for path in ("code/b.py", "link.py") if (folder / path).exists()))
        if change == "link to file":
            read["link.py"] = FilePin(sha256=read["link.py"].sha256, size=1)
        assert uncommitted(folder, pin, read) == expected

    def test_files_that_steps_read_count_though_git_does_not_know_them(
        self, begun: tuple[Path, Git, SourcePin]
    ) -> None:
        folder, _, pin = begun
        write(folder, "new.py", "stranger")
        assert uncommitted(folder, pin, self.pins(folder, "new.py")) == ("new.py",)

    def test_files_that_steps_read_must_be_the_pinned_commits_not_heads(
        self, begun: tuple[Path, Git, SourcePin]
    ) -> None:
        folder, git, pin = begun
        write(folder, "code/a.py", text="later\n")
        git("commit", "-qam", "Later")
        assert uncommitted(folder, pin, self.pins(folder, "code/a.py")) == ("code/a.py",)

    def test_same_size_other_bytes(self, begun: tuple[Path, Git, SourcePin]) -> None:
        folder, _, pin = begun
        (folder / "code/a.py").write_text("tixt\n")
        assert uncommitted(folder, pin, self.pins(folder, "code/a.py")) == ("code/a.py",)

    def test_what_is_ours_does_not_count(self, begun: tuple[Path, Git, SourcePin]) -> None:
        folder, git, pin = begun
        write(folder, "preserve.lock", ".preserve/x", "table.bin", "code/b.py", text="changed\n")
        git("add", "-f", ".preserve")
        assert uncommitted(folder, pin, {}, not_code=("table.bin", "code/")) == ()

    def test_links_that_lead_out_or_in_circles_are_not_held(self, begun: tuple[Path, Git, SourcePin]) -> None:
        folder, git, _ = begun
        (folder / "round").symlink_to("round")
        (folder / "out").symlink_to("../outside")
        (folder / "whole").symlink_to("code")
        git("add", ".")
        git("commit", "-q", "-m", "Links")
        now = read_sources(folder).pin
        assert now is not None
        some = FilePin(sha256=hash_file(folder / "notes.md").sha256, size=5)
        assert uncommitted(folder, now, {"round": some, "out": some, "whole": some}) == ("out", "round", "whole")

    def test_git_lfs_stand_ins_are_what_they_stand_for(self, begun: tuple[Path, Git, SourcePin]) -> None:
        folder, git, _ = begun
        pin = hash_file(folder / "table.bin")
        text = f"version https://git-lfs.github.com/spec/v1\noid {pin.sha256}\nsize {pin.size}\n"
        (folder / "table.bin").write_text(text)
        git("commit", "-qam", "To LFS")
        now = read_sources(folder).pin
        assert now is not None
        other = FilePin(sha256=pin.sha256, size=pin.size + 1)
        assert uncommitted(folder, now, {"table.bin": pin}) == ()
        assert uncommitted(folder, now, {"table.bin": other}) == ("table.bin",)

    def test_a_commit_that_is_gone(self, begun: tuple[Path, Git, SourcePin]) -> None:
        gone = SourcePin(commit="1" * 40, tree="1" * 40, clean=True)
        with pytest.raises(UserError, match=r"1{40} is not in the repository"):
            uncommitted(begun[0], gone, {})

    def test_outside_git(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="not in a git repository"):
            uncommitted(tmp_path, SourcePin(commit="1" * 40, tree="1" * 40, clean=True), {})

    def test_a_damaged_repository(self, begun: tuple[Path, Git, SourcePin]) -> None:
        folder, _, pin = begun
        (folder / ".git" / "index").write_bytes(b"DIRC and nothing more")
        with pytest.raises(MachineError, match="git refuses"):
            uncommitted(folder, pin, {})
