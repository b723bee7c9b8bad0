"""Results that only the analysis' programs can read: a declared command prints them as JSON, in the step's image."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from archived import session
from conftest import ENGINES, TinyImage

ANALYSIS = """\
format: 1
title: A private format
images:
  tiny: oci:image
parameters: {mass: 91.2}
steps:
  - name: fit
    stage: assembly
    image: tiny
    outputs: [results/model.bin, results/table.bin, results/broken.bin]
    run: |
      { echo "written at $(date +%s) by process $$ in $(cat /proc/sys/kernel/random/uuid)"
        echo "mass ${{ parameters.mass }}"; } > results/model.bin
      cp results/model.bin results/table.bin
      cp results/model.bin results/broken.bin
results:
  results/model.bin:
    require: tolerated
    command: [awk, '/^mass/ {printf "{\\"mass\\": %s}", $2}', results/model.bin]
    rules: [{match: /mass, rtol: 1.0e-3, because: rounding}]
  results/table.bin: {command: [awk, '/^mass/ {printf "{\\"mass\\": %s}", $2}', results/table.bin]}
  results/broken.bin: {require: advisory, command: [sh, -c, "echo cannot read it >&2; exit 3"]}
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_what_its_command_prints_is_compared(
    engine: str, tiny_image: TinyImage, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    found = request.getfixturevalue("docker_host" if engine == "docker" else "apptainer")
    user = session(tmp_path / "model", engine, found if engine == "docker" else "")
    user.root.mkdir()
    (user.root / "preserve.yaml").write_text(ANALYSIS)
    shutil.copytree(tiny_image.layout, user.root / "image")
    for command in (("lock",), ("run",), ("archive", "-o", "model.crate.zip")):
        user(*command)

    again = user("replay", "model.crate.zip", "--json", "--keep", "replayed").document
    results = {result["path"]: result for result in again["results"]}
    assert {path: (r["verdict"], r["reader"]) for path, r in results.items()} == {
        "results/model.bin": ("equivalent", "command"),
        "results/table.bin": ("equivalent", "command"),
        "results/broken.bin": ("uncomparable", "command"),
    }
    assert "exit code 3): cannot read it" in results["results/broken.bin"]["facts"]["obstacle"]["reason"]

    moved = user("replay", "model.crate.zip", "--json", "-p", "mass=91.25").document  # a recast
    results = {result["path"]: result for result in moved["results"]}
    assert results["results/model.bin"]["verdict"] == "tolerated"
    assert results["results/table.bin"]["verdict"] == "different"
    assert results["results/table.bin"]["facts"]["differences"][0]["numbers"]["worst"] == [
        {"at": [], "recorded": 91.2, "found": 91.25}
    ]

    read = user("diff", "model.crate.zip", "replayed", "--json", expect=1).document
    assert {result["verdict"] for result in read["results"]} == {"uncomparable"}
    assert "preserve diff runs nothing" in read["results"][0]["facts"]["obstacle"]["reason"]
