"""A probe that a stranger put into an archive: read with care, and never more than words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from archived import Files, Recorded, here, plan_of, problems

from preserve.documents.probe import Finding, Movement, Probe, ProbedStep
from preserve.documents.record import EngineUsed, Machine

NAME = "data/probe.json"


def forged(step: str, words: str = "x") -> Probe:
    moved = Movement(product="results/sum.txt", leaf=words, kind="content")
    found = Finding(variation=words, setting=words, held=False, confirmed=True, movements=(moved,))
    return Probe(
        run=words,
        engine=EngineUsed(name=words, version=words),
        machine=Machine(
            architecture="x86_64", cpu_model=words, cpu_id="AuthenticAMD-25-11-1", cpu_flags=(), cpus=2, kernel=words
        ),
        started="2026-11-23T12:00:00Z",
        ended="2026-11-23T12:00:00Z",
        steps=(ProbedStep(step=step, runs=3, network_attempts=0, tried=(), findings=(found,), untried=()),),
    )


@pytest.fixture
def files(recorded: Recorded, apptainer: str) -> Files:
    return Files.of(recorded.archive("apptainer"))


def with_probe(files: Files, data: bytes, path: Path) -> Path:
    """An archive with a probe, everything derived made to fit."""
    return files.changed({NAME: data}).with_all_derived().write(path)


def test_a_good_one_is_intact(files: Files, tmp_path: Path) -> None:
    probe = forged(plan_of(files).steps[0].id)
    assert problems(with_probe(files, probe.to_bytes(), tmp_path / "a.crate.zip")) == {}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"no json", "not readable as JSON"),
        (b'{"schema": "preserve/probe/2"}\n', "its schema is"),
        (b'{"schema": "preserve/probe/1"}\n', "damaged"),
        (b'{"schema": "preserve/probe/1", "schema": "preserve/probe/1"}\n', "stands twice"),
        (b"[" * 100_000, "not readable as JSON"),
        (forged("nobody").to_bytes(), "probes a step that the plan has not: nobody"),
    ],
)
def test_a_bad_one_is_damage(files: Files, tmp_path: Path, data: bytes, problem: str) -> None:
    found = problems(with_probe(files, data, tmp_path / "a.crate.zip"))
    assert list(found) == [NAME]
    assert problem in found[NAME]


def test_another_spelling_is_damage(files: Files, tmp_path: Path) -> None:
    data = json.dumps(json.loads(forged(plan_of(files).steps[0].id).to_bytes())).encode()
    assert problems(with_probe(files, data, tmp_path / "a.crate.zip")) == {
        NAME: "is not in the form that preserve writes"
    }


def test_changed_bytes_are_damage(files: Files, tmp_path: Path) -> None:
    probe = forged(plan_of(files).steps[0].id)
    good = files.changed({NAME: probe.to_bytes()}).with_all_derived()
    bad = good.changed({NAME: forged(plan_of(files).steps[1].id).to_bytes()}).write(tmp_path / "a.crate.zip")
    assert "other content" in problems(bad)[NAME]


def test_words_stay_words_on_the_terminal(files: Files, tmp_path: Path) -> None:
    probe = forged("no\x1b[31mbody")
    done = here("verify", str(with_probe(files, probe.to_bytes(), tmp_path / "a.crate.zip")))
    assert done.code == 1
    assert "\x1b" not in done.out + done.err
