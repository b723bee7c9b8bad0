"""Steps that do more, or less, than they declare: network, inputs never opened, files beside the products."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from archived import Session, commit, session, write_analysis
from conftest import ENGINES, TinyImage

REACHING = """\
format: 1
title: Steps that do not keep to their declaration
authors: [{name: A. Physicist}]
license: CC0-1.0
images:
  tiny: oci:image
inputs:
  data/numbers.txt: {}
steps:
  - name: kept
    stage: preparation
    image: tiny
    inputs: [data/numbers.txt]
    outputs: [made/kept.txt]
    run: cp ${{ inputs[0] }} ${{ outputs[0] }}
  - name: lazy
    stage: processing
    image: tiny
    inputs: [made/kept.txt, data/numbers.txt, code/scale.awk, code/]
    outputs: [made/lazy.txt, made/parts/]
    run: |
      ls -l data code > /dev/null
      head -n 1 made/kept.txt > ${{ outputs[0] }}
      echo x > made/parts/x
  - name: untidy
    stage: postprocessing
    image: tiny
    inputs: [made/lazy.txt]
    outputs: [made/untidy.txt]
    run: |
      mkdir made/deep
      echo aside | tee made/aside.txt > made/deep/er.txt
      echo elsewhere > /tmp/mine
      cp made/lazy.txt ${{ outputs[0] }}
  - name: calling
    stage: assembly
    image: tiny
    inputs: [made/untidy.txt]
    outputs: [results/sum.txt]
    run: |
      cp made/untidy.txt ${{ outputs[0] }}
      for attempt in 1 2 3; do nc -w 1 198.51.100.7 80 < /dev/null || sleep 0.1; done
"""
LAZY = "step lazy never opened an input it declares: data/numbers.txt, code/scale.awk, code/unread.txt"
UNTIDY = "step untidy wrote what it does not declare, and that is gone: made/aside.txt, made/deep/er.txt"


@pytest.fixture(params=ENGINES)
def analysis(
    request: pytest.FixtureRequest, tiny_image: TinyImage, docker_host: str, apptainer: str, tmp_path: Path
) -> Session:
    made = session(tmp_path / "analysis", request.param, docker_host)
    write_analysis(made.root, tiny_image.layout)
    (made.root / "preserve.yaml").write_text(REACHING)
    commit(made.root)
    made("lock")
    return made


def notes(text: str) -> list[str]:
    return [line.removeprefix("note: ") for line in text.splitlines() if line.startswith("note: step")]


def test_is_told_after_the_run_and_by_status(analysis: Session) -> None:
    told = notes(analysis("run", "--trace-inputs").err)
    assert told[:2] == [LAZY, UNTIDY]
    assert told[2].startswith("step calling tried to reach the network: ")
    assert len(told) == 3
    assert notes(analysis("status").out) == told
    shown = {step["step"]: step["undeclared"] for step in analysis("status", "--json").document["steps"]}
    assert shown == {"kept": [], "lazy": [LAZY], "untidy": [UNTIDY], "calling": [told[2]]}
    assert not (analysis.root / "made" / "aside.txt").exists()


def test_inputs_are_watched_only_if_asked_for(analysis: Session) -> None:
    assert [note.split()[1] for note in notes(analysis("run").err)] == ["untidy", "calling"]


def test_the_same_file_in_another_step_does_not_count(analysis: Session) -> None:
    """``kept`` and ``lazy`` have links to one file; what one opens the other has not opened."""
    assert LAZY in notes(analysis("run", "--trace-inputs", "-j", "2").err)


def test_inputs_on_another_file_system(analysis: Session) -> None:
    """They are mounted one by one, since there are no links across file systems."""
    data = analysis.root / "data" / "numbers.txt"
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        there = Path(shutil.move(data, elsewhere))
        data.symlink_to(there)
        assert LAZY in notes(analysis("run", "--trace-inputs").err)
        (analysis.root / "preserve.yaml").write_text(REACHING.replace("head -n 1 made", "cat data/numbers.txt made"))
        assert LAZY.replace("data/numbers.txt, ", "") in notes(analysis("run", "--trace-inputs").err)
