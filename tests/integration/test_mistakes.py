"""The mistakes that everybody makes, on each engine: what is said, and that it is said of the right thing."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from conftest import TinyImage
from sessions import LONG, Analysis, finished, lock_analysis, napping, own_copy

STEPS = f"""\
format: 1
title: Steps with a mistake each
images:
  tiny: oci:image
parameters: {{seconds: 0}}
steps:
{LONG}\
  - name: misspelt
    stage: preparation
    image: tiny
    outputs: [made/mass.json]
    run: |
      echo 91.2 > made/mass.jsn
      touch "made/$(printf '\\033[31mred')" "made/$(printf 'caf\\351')"
  - name: idle
    stage: preparation
    image: tiny
    outputs: [idle/]
    run: echo 91.2
  - name: untidy
    stage: preparation
    image: tiny
    outputs: [untidy/mass.json]
    run: |
      echo 91.2 | tee untidy/mass.json > "untidy/$(printf 'caf\\351')"
  - name: lacking
    stage: preparation
    image: tiny
    outputs: [lacking/x]
    run: root -b -q
  - name: lacking-command
    stage: preparation
    image: tiny
    outputs: [lacking/y]
    command: [root, -b, -q]
  - name: closed
    stage: preparation
    image: tiny
    inputs: [code/closed.sh]
    outputs: [closed/x]
    run: code/closed.sh
  - name: closed-command
    stage: preparation
    image: tiny
    inputs: [code/closed.sh]
    outputs: [closed/y]
    command: [code/closed.sh]
  - name: wide
    stage: preparation
    image: tiny
    for_each: {{number: [1, 2]}}
    outputs: ["wide/${{{{ number }}}}"]
    resources: {{cpus: 64}}
    run: echo wide > ${{{{ outputs[0] }}}}
"""


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, tiny_image: TinyImage) -> Path:
    """The analysis, committed and locked."""
    files = {"preserve.yaml": STEPS, "code/closed.sh": "#!/bin/sh\necho never\n"}
    return lock_analysis(tmp_path_factory.mktemp("mistakes") / "analysis", tiny_image.layout, files)


@pytest.fixture
def analysis(engine: str, docker_address: str, locked: Path, tmp_path: Path) -> Analysis:
    """A copy of one's own, on each engine."""
    return own_copy(locked, tmp_path / "analysis", engine, docker_address)


def failing(analysis: Analysis, step: str) -> str:
    """What is said of a step that fails."""
    done = analysis("run", "--step", step)
    assert done.returncode == 4, done.stderr
    return done.stderr


def test_a_product_under_another_name(analysis: Analysis) -> None:
    """What was made is said, the name that is close first; a name acts on no terminal."""
    instead = (
        "did not make its product made/mass.json; it made made/mass.jsn (is one of the two names misspelt?), "
        "and made/\\x1b[31mred, made/caf\\xe9\n"
    )
    said = failing(analysis, "misspelt")
    assert instead in said
    assert "\x1b" not in said
    shown = analysis("status")
    assert (shown.returncode, instead in shown.stdout, "\x1b" in shown.stdout) == (0, True, False)


def test_a_folder_that_stays_empty(analysis: Analysis) -> None:
    assert "left its product idle/ empty; it wrote no other file there\n" in failing(analysis, "idle")


def test_a_file_beside_the_products_whose_name_is_not_text(analysis: Analysis) -> None:
    """It is thrown away like any other; the run is not the worse for it."""
    done = analysis("run", "--step", "untidy")
    assert done.returncode == 0, done.stderr
    assert "step untidy wrote what it does not declare, and that is gone: untidy/caf\\xe9\n" in done.stderr


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("lacking", "exit code 127"),
        ("lacking", "root is not in the image tiny, or not on its PATH; look with: preserve shell lacking\n"),
        ("lacking-command", "root is not in the image tiny, or not on its PATH"),
        ("closed", "code/closed.sh may not be executed: chmod +x it, or start it with its interpreter"),
        ("closed-command", "exit code 126"),
        ("closed-command", "code/closed.sh may not be executed"),
    ],
)
def test_a_program_that_does_not_start(analysis: Analysis, step: str, said: str) -> None:
    assert said in failing(analysis, step)


def test_more_cpus_than_the_run_has(analysis: Analysis) -> None:
    """Said once, not for each job; it runs all the same."""
    done = analysis("run", "--step", "wide", "-j", "2")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("note: step wide asks for 64 CPUs, -j gives 2: it runs alone\n") == 1
    assert "asks for" not in analysis("run", "--step", "first", "-j", "2").stderr


def test_an_interrupted_step_did_not_fail(analysis: Analysis) -> None:
    with napping(analysis) as run:
        run.process.send_signal(signal.SIGINT)
        code, said = run.end()
    assert (code, "  nap: interrupted, " in said, "failed" in said) == (130, True, False)
    (line,) = (line for line in analysis("status").stdout.splitlines() if line.split()[0] == "nap")
    assert line.split()[2] == "interrupted"
    assert "failed" not in line
    assert "nap: was interrupted\n" in analysis("run", "-n", "-p", f"seconds={run.seconds}").stdout


def test_from_a_folder_inside(locked: Path, tmp_path: Path) -> None:
    """The analysis is found, which one is said, and no folder gets a .preserve of its own."""
    root = shutil.copytree(locked, tmp_path / "analysis", symlinks=True)
    analysis = Analysis(root=root, engine="none", environment={"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
    done = finished(analysis.argv("validate"), root / "code", analysis.environment)
    assert (done.returncode, done.stderr.splitlines()[0]) == (0, f"in {root}")
    for command in (("status",), ("run", "-n"), ("log", "first"), ("archive",)):
        elsewhere = finished(analysis.argv(*command)[:3] + command, tmp_path, analysis.environment)
        assert (elsewhere.returncode, "there is no preserve.yaml in" in elsewhere.stderr) == (2, True), elsewhere.stderr
    assert not (root / "code" / ".preserve").exists()
    assert not (tmp_path / ".preserve").exists()
