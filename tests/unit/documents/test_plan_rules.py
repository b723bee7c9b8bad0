"""What a stranger's plan may not say, whatever its archive's digests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import small_archive

from preserve.digest import Digest, FilePin
from preserve.documents.plan import Plan
from preserve.documents.plan_rules import faults_of_plan

NAME = "'count@category=end cap' is no name for a step"  # the small archive's one fault: its names are to be awkward
PIN = FilePin(sha256=Digest.of(b""), size=0)


def first(plan: Plan, **changes: Any) -> Plan:
    """The plan with its first step changed."""
    return replace(plan, steps=(replace(plan.steps[0], **changes), *plan.steps[1:]))


def test_a_plan_with_names_of_ours_has_no_fault() -> None:
    assert list(faults_of_plan(small_archive.plan())) == [NAME]
    ours = tuple(step for step in small_archive.STEPS if " " not in step.id)
    assert list(faults_of_plan(small_archive.plan(steps=ours))) == []


@pytest.mark.parametrize("folder", ["", "deep/er/"])
def test_files_that_would_make_a_repository(folder: str) -> None:
    """Git would take its orders from them: settings name programs to be run."""
    names = (f"{folder}{name}" for name in ("HEAD", "config", "Objects/x", "refs/heads/main"))
    plan = small_archive.plan(sources=dict.fromkeys(names, PIN))
    fault = next(fault for fault in faults_of_plan(plan) if "git" in fault)
    assert fault == f"its files would make a git repository of {folder.rstrip('/') or 'the analysis folder'}"


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", ".preserve/x", "a/.git/config", "x\0y"])
def test_paths_that_lead_elsewhere(path: str) -> None:
    """As an input, and as what a step makes."""
    plan = small_archive.plan()
    assert set(faults_of_plan(replace(plan, sources={**plan.sources, path: PIN}))) > {NAME}
    assert set(faults_of_plan(first(plan, outputs=(path,)))) > {NAME}


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "../x"},
        {"image": "none"},
        {"stage": "elsewhere"},
        {"outputs": ()},
        {"command": ()},
        {"command": ("sh", "\0")},
        {"environment": {"APPTAINER_BIND": "/"}},
        {"environment": {"A=B": "c"}},
    ],
)
def test_steps_that_are_none(changes: dict[str, Any]) -> None:
    """Each is named."""
    assert set(faults_of_plan(first(small_archive.plan(), **changes))) > {NAME}
