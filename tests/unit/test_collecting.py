"""Any part of the tests can be asked for together with any other: pytest knows their files by name alone."""

from __future__ import annotations

from collections import Counter

from conftest import ROOT


def test_no_two_files_have_one_name() -> None:
    """A second conftest.py would hide the first, from which tests import."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py"))
    assert [name for name, times in names.items() if times > 1] == []
