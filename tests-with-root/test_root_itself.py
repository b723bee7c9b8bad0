"""Files that ROOT itself wrote get the verdicts that they must get."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from preserve.comparators.comparing import compare_files, sides_of
from preserve.comparators.judging import Compared, judge
from preserve.comparators.leaves import Limits
from preserve.documents.policy import Policy

FILES = Path(__file__).resolve().parent.parent / ".cache" / "root" / "files"
VERDICTS: dict[str, str] = json.loads((FILES / "verdicts.json").read_text())["verdicts"]


@pytest.mark.parametrize("change", VERDICTS)
def test_verdicts(change: str) -> None:
    facts = compare_files(sides_of("all.root", FILES / "base.root", FILES / f"{change}.root"), Limits())
    [result] = judge([Compared(path="all.root", declared="all.root", facts=facts, policy=Policy())])
    different = [row["path"] for row in result.facts.get("differences", ())]
    assert (result.verdict, result.reader) == (VERDICTS[change], "root"), different
