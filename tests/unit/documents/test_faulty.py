"""Every faulty file of tests/data/faulty gets exactly the complaint beside it, as a person would read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from preserve.documents.planning import expand
from preserve.documents.reading import read_workflow
from preserve.errors import DocumentError

FAULTY = Path(__file__).parents[2] / "data" / "faulty"
NAMES = sorted(path.stem for path in FAULTY.glob("*.yaml"))
TRACKED = ("README.md", "code/fit.py", "code/select.py")


def complaint(name: str) -> str:
    """Read and plan a faulty file; what is said of it."""
    with pytest.raises(DocumentError) as caught:
        expand(read_workflow((FAULTY / f"{name}.yaml").read_bytes(), f"{name}.yaml"), tracked=TRACKED)
    assert caught.value.exit_code == 2
    return str(caught.value) + "\n"


def test_there_are_enough_examples() -> None:
    assert len(NAMES) >= 45
    assert {path.stem for path in FAULTY.glob("*.txt")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_complaint(name: str) -> None:
    assert complaint(name) == (FAULTY / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_each_fault_says_what_would_be_right(name: str) -> None:
    with pytest.raises(DocumentError) as caught:
        expand(read_workflow((FAULTY / f"{name}.yaml").read_bytes(), f"{name}.yaml"), tracked=TRACKED)
    assert all(fault.hint and fault.line >= 1 and fault.column >= 1 for fault in caught.value.faults)
