"""What is said beside a failed step's log: the commonest mistakes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_archive import contents

from preserve.documents.plan import PlannedInput, PlannedStep
from preserve.documents.record import Record
from preserve.operations.failures import reasons_for_failure


@pytest.fixture
def failed() -> tuple[PlannedStep, Record]:
    """A step that reads data/a.txt, and its record."""
    plan = contents().plan
    step = replace(plan.steps[0], inputs=(PlannedInput(path="data/a.txt"),), network=False)
    return step, replace(contents().records[step.id], network_attempts=0)


@pytest.mark.parametrize(
    "line",
    [
        "awk: data/b.txt: No such file or directory",
        "cp: can't stat '{root}/data/b.txt': No such file or directory",
        "cannot open ./data/b.txt.",
    ],
)
def test_a_file_that_is_there_but_not_declared(tmp_path: Path, failed: tuple[PlannedStep, Record], line: str) -> None:
    """Named with the cure, however the program names it."""
    (tmp_path / "data").mkdir()
    for name in ("a", "b"):
        (tmp_path / "data" / f"{name}.txt").touch()
    step, record = failed
    said = reasons_for_failure(tmp_path, step, record, [line.format(root=tmp_path), "data/a.txt is fine, data/c.txt"])
    assert said == (f"data/b.txt is in the analysis folder, but not among the inputs of {step.name}: add it there",)


def test_files_outside_are_not_looked_for(tmp_path: Path, failed: tuple[PlannedStep, Record]) -> None:
    """A log is a stranger's word: it does not make preserve tell what else is on the disk."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.txt").touch()
    assert reasons_for_failure(tmp_path / "inside", *failed, ["../secret.txt /etc/passwd .preserve/busy"]) == ()


def test_the_network(tmp_path: Path, failed: tuple[PlannedStep, Record]) -> None:
    """A step that tried to reach it, and may not."""
    step, record = failed
    (said,) = reasons_for_failure(tmp_path, step, replace(record, network_attempts=3), [])
    assert "network: true" in said
