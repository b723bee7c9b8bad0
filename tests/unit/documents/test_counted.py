"""Numbers of things as people read them."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT

from preserve.documents.counted import all_are, counted, counted_of, some


@pytest.mark.parametrize(("number", "said"), [(0, "0 steps"), (1, "1 step"), (2, "2 steps")])
def test_one_is_not_many(number: int, said: str) -> None:
    assert counted(number, "step") == said


def test_other_plurals() -> None:
    assert (counted(1, "leaf", "leaves"), counted(2, "leaf", "leaves")) == ("1 leaf", "2 leaves")


def test_with_a_verb() -> None:
    assert [counted_of(n, 2, "step") for n in (0, 1, 2)] == [
        "0 of 2 steps were",
        "1 of 2 steps was",
        "2 of 2 steps were",
    ]
    assert counted_of(1, 1, "step") == "1 of 1 step was"
    assert (all_are(1, "step"), all_are(7, "step")) == ("the only step is", "all 7 steps are")


def test_some_of_many() -> None:
    assert some(("a",), 1) == "a"
    assert some(("a", "b", "c"), 1) == "a and 2 more"
    assert some(("a", "b", "c"), 3) == "a, b, c"


def test_nobody_counts_by_themselves() -> None:
    """A number straight before a noun in the plural says "1 steps" one day: ``counted`` is the place for it."""
    loose = re.compile(
        r"\{len\([^{}]*\)\} (steps|jobs|images|results|products|inputs|files|runs|packets|layers|leaves)\b"
    )
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / "preserve").rglob("*.py"))
        for line in path.read_text().splitlines()
        if loose.search(line) and path.name != "crate_run.py"  # the bytes of archives stay as they are
    ]
    assert found == []
