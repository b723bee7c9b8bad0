"""Files that make a folder a git repository: git obeys the configuration in it, so none of a stranger's may count."""

from __future__ import annotations

from pathlib import Path

import pytest

from preserve.documents.lockfile import SourcePin
from preserve.documents.paths import astray, problem
from preserve.errors import UserError
from preserve.operations.run_step import product_files
from preserve.sources import read_sources, uncommitted


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A replayed folder with files that archives may have, as git sees it: a repository that starts a program."""
    root = tmp_path / "kept"
    for name in ("objects/x", "refs/x", "code/scale.awk"):
        (root / name).parent.mkdir(parents=True)
        (root / name).touch()
    (root / "HEAD").write_text("ref: refs/heads/main\n")
    settings = f'worktree = .\nfsmonitor = "echo > {tmp_path}/obeyed; false"\n'
    (root / "config").write_text(f"[core]\nrepositoryformatversion = 0\nbare = false\n{settings}")
    return root


def test_git_is_not_asked_about_it(bare: Path, tmp_path: Path) -> None:
    found = read_sources(bare)
    assert (found.pin, "code/scale.awk" in found.tracked) == (None, True)
    with pytest.raises(UserError, match="not in a git repository"):
        uncommitted(bare, SourcePin(commit="0" * 40, tree="0" * 40, clean=True), {})
    assert not (tmp_path / "obeyed").exists()


@pytest.mark.parametrize("path", [".git/config", "code/.git/config", "code/.GIT", "out/.git/"])
def test_no_path_of_an_analysis_is_gits(path: str) -> None:
    assert astray(path) is not None
    assert problem(path) is not None


def test_a_product_with_a_repository_inside(tmp_path: Path) -> None:
    (tmp_path / "out" / "clone" / ".git").mkdir(parents=True)
    (tmp_path / "out" / "clone" / ".git" / "config").touch()
    files, why = product_files(tmp_path, "out/")
    assert files == []
    assert why is not None
    assert "out/clone/.git" in why


def test_without_git_its_files_are_no_code(tmp_path: Path) -> None:
    (tmp_path / "lib" / ".git").mkdir(parents=True)
    (tmp_path / "lib" / ".git" / "config").touch()
    (tmp_path / "lib" / "a.py").touch()
    assert read_sources(tmp_path).tracked == {"lib/a.py"}
