"""Names of an analysis' files in an archive: one for each path, on any file system; the path itself if it can be."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preserve.documents.archive import archived_names, name_fault
from preserve.stores.zip_form import name_problems

PART = st.text("aAbB\u00e9 =", min_size=1, max_size=4) | st.sampled_from(["a" * 99, "A" * 99, "b" * 190])
PATHS = st.lists(st.lists(PART, min_size=1, max_size=3).map("/".join), max_size=12)


def together(paths: list[str]) -> list[str]:
    """Those of the paths that can lie in one folder."""
    return [path for path in sorted(set(paths)) if not any(other.startswith(f"{path}/") for other in paths)]


@given(PATHS)
def test_all_names_fit_and_none_is_another_where_case_does_not_count(paths: list[str]) -> None:
    names = archived_names(together(paths))
    assert list(names) == together(paths)
    assert [fault for name in names.values() if (fault := name_fault(name))] == []
    assert list(name_problems(sorted(f"data/inputs/{name}" for name in names.values()))) == []


@pytest.mark.parametrize(
    ("paths", "renamed"),
    [
        (["data/a.txt", "code/b.py"], []),
        (["Data/x", "data/y"], []),  # one folder on some systems: nothing hides anything
        (["a", "A"], ["a"]),
        (["A/x", "a"], ["a"]),
        (["A", "a/x"], ["A"]),
        (["a/B", "A/b/c", "A/x"], ["a/B"]),
    ],
)
def test_what_differs_by_case_alone_gets_its_digest(paths: list[str], renamed: list[str]) -> None:
    names = archived_names(paths)
    assert [path for path, name in names.items() if name != path] == renamed
    assert all(re.fullmatch(f"{path}=[0-9a-f]{{12}}", names[path]) for path in renamed)
