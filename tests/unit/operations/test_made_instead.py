"""What is said of a product that a step did not make."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preserve.operations.made_instead import LONGEST, made_instead, shown


def test_a_name_that_is_close_is_asked_about() -> None:
    said = made_instead("hists/barrel.json", ["hists/log.txt", "hists/barrel.jsn"])
    assert said == "it made hists/barrel.jsn (is one of the two names misspelt?), and hists/log.txt"
    assert made_instead("barrel.json", ["barrel.jsn"]) == "it made barrel.jsn (is one of the two names misspelt?)"


def test_names_that_are_not_close_are_only_told() -> None:
    assert made_instead("fit/mass.json", ["a", "b", "c", "d", "e"]) == "it made a, b, c and 2 more"


def test_nothing_at_all() -> None:
    assert made_instead("fit/mass.json", []) == "it wrote no other file there"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (b"plain.txt", "plain.txt"),
        ("Jψ→μμ.txt".encode(), "Jψ→μμ.txt"),
        (b"red\x1b[31m.txt", "red\\x1b[31m.txt"),
        (b"two\nlines", "two\\nlines"),
        (b"not utf-8: \xff", "not utf-8: \\xff"),
        ("right\u202eleft".encode(), "right\\u202eleft"),
    ],
)
def test_a_strangers_name_prints(tmp_path: Path, name: bytes, said: str) -> None:
    """As the file system has it: no byte of it acts on a terminal, and it can be written to a record."""
    (tmp_path / os.fsdecode(name)).touch()
    (found,) = os.listdir(tmp_path)  # noqa: PTH208  (as text, the way the product's folder is walked)
    assert shown(found) == said
    assert shown(found).encode()


def test_long_names_are_cut() -> None:
    assert len(made_instead("x", ["y" * 250] * 1000)) < 4 * LONGEST
