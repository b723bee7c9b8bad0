"""Which analysis somebody is in: theirs, as git would find it, and never a stranger's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preserve.errors import UserError
from preserve.operations.folder import find_folder, folder_above, named_folder


@pytest.fixture
def analysis(tmp_path: Path) -> Path:
    """An analysis with folders in it."""
    root = tmp_path / "analysis"
    (root / "code" / "deep").mkdir(parents=True)
    (root / "preserve.yaml").touch()
    return root


@pytest.mark.parametrize("below", [".", "code", "code/deep"])
def test_from_any_folder_in_it(analysis: Path, below: str) -> None:
    assert find_folder(analysis / below).root == analysis


def test_the_nearest_one(analysis: Path) -> None:
    (analysis / "code" / "preserve.yaml").touch()
    assert find_folder(analysis / "code" / "deep").root == analysis / "code"


def test_not_beyond_the_top_of_a_work_tree(analysis: Path) -> None:
    """Another project inside is another project; how to get out is said."""
    (analysis / "code" / ".git").mkdir()
    with pytest.raises(UserError, match=r"there is no preserve\.yaml in .*/code/deep or a folder above it"):
        find_folder(analysis / "code" / "deep")
    (analysis / ".git").mkdir()  # the analysis itself is one, as a rule
    (analysis / "code" / ".git").rmdir()
    assert find_folder(analysis / "code").root == analysis


def test_not_what_somebody_else_put_there(analysis: Path) -> None:
    """In a folder for everybody, a stranger's preserve.yaml would be run by whoever calls preserve below it."""
    mine = os.geteuid()
    assert folder_above(analysis / "code", owner=mine) == analysis
    assert folder_above(analysis / "code", owner=mine + 1) is None
    if mine == 0:  # who alone can give files away
        os.chown(analysis / "preserve.yaml", 12345, -1)
        assert folder_above(analysis / "code", owner=mine) is None


def test_a_folder_by_name_is_that_one(analysis: Path) -> None:
    """A misspelt -C does not run the analysis around it; but it is told where that is."""
    assert named_folder(analysis).root == analysis
    with pytest.raises(UserError, match="there is no folder") as missing:
        named_folder(analysis / "cod")
    assert missing.value.exit_code == 2
    with pytest.raises(UserError, match=r"no preserve\.yaml in .*/code$") as inside:
        named_folder(analysis / "code")
    assert inside.value.hint == f"there is one above: -C {analysis}"


def test_asking_makes_nothing(tmp_path: Path) -> None:
    """Neither the folder asked from nor those above get a .preserve."""
    (tmp_path / ".git").mkdir()
    with pytest.raises(UserError):
        find_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".git"]
