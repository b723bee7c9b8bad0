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
        "python3: can't open file '/work/data/b.txt': [Errno 2] No such file or directory",
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


@pytest.mark.parametrize("file", ["data/tools/cuts.py", "data/tools/cuts/__init__.py"])
def test_a_module_that_is_there_but_not_declared(tmp_path: Path, failed: tuple[PlannedStep, Record], file: str) -> None:
    """Python names modules, not files."""
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).touch()
    lines = ["Traceback (most recent call last):", "ModuleNotFoundError: No module named 'tools.cuts'"]
    step, record = failed
    said = reasons_for_failure(tmp_path, step, record, [*lines, "No module named 'numpy'"])
    assert said == (f"{file} is in the analysis folder, but not among the inputs of {step.name}: add it there",)


def test_a_file_written_where_nothing_may_be(tmp_path: Path, failed: tuple[PlannedStep, Record]) -> None:
    """The program says that the file system is read-only; the step's author has not made it so."""
    step, record = failed
    step = replace(step, outputs=("a/x.txt", "a/y.txt", "plots/"))
    said = reasons_for_failure(tmp_path, step, record, ["sh: can't create out.txt: Read-only file system"])
    assert said == (f"{step.name} may write in /tmp and in the folders of its outputs: a/, plots/",)


def test_a_word_too_long_for_a_name(tmp_path: Path, failed: tuple[PlannedStep, Record]) -> None:
    """A mangled name, say: no file is called so."""
    assert reasons_for_failure(tmp_path, *failed, ["undefined reference to _ZN" + "5boost" * 100, "=" * 300]) == ()


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


@pytest.mark.parametrize(
    ("line", "program"),
    [
        ("/bin/sh: root: not found", "root"),
        ("/bin/sh: 2: root: not found", "root"),
        ("bash: line 1: root: command not found", "root"),
        ("/usr/bin/env: 'python': No such file or directory", "python"),
        ("[FATAL tini (6)] exec pithon3 failed: No such file or directory", "pithon3"),
        ("pithon3: not found in the image", "pithon3"),
        ("/opt/tool/run: not found in the image", "/opt/tool/run"),
        ("nothing that tells", "a program of its command"),
    ],
)
def test_a_program_that_the_image_lacks(
    tmp_path: Path, failed: tuple[PlannedStep, Record], line: str, program: str
) -> None:
    """Named, as ash, dash, bash, env and the engines tell it, with the way to look."""
    step, record = failed
    (said,) = reasons_for_failure(tmp_path, step, replace(record, exit_code=127), ["all went well", line])
    assert said.startswith(f"{program} is not in the image {step.image}")
    assert f"preserve shell {step.id}" in said


def test_a_script_whose_interpreter_the_image_lacks(tmp_path: Path, failed: tuple[PlannedStep, Record]) -> None:
    """The shell says of the script that it is not there, which is not so."""
    step, record = failed
    (said,) = reasons_for_failure(tmp_path, step, replace(record, exit_code=127), ["/bin/sh: 1: data/a.txt: not found"])
    assert said.startswith("data/a.txt is there, but not the interpreter that its first line names")


def test_a_library_that_the_image_lacks(tmp_path: Path, failed: tuple[PlannedStep, Record]) -> None:
    step, record = failed
    line = "root: error while loading shared libraries: libGui.so.6.32: cannot open shared object file: No such file"
    (said,) = reasons_for_failure(tmp_path, step, replace(record, exit_code=127), [line])
    assert said.startswith(f"the image {step.image} lacks the library libGui.so.6.32;")


@pytest.mark.parametrize(
    "line",
    [
        "/bin/sh: data/a.txt: Permission denied",
        "/bin/sh: 1: data/a.txt: Permission denied",
        "[FATAL tini (7)] exec data/a.txt failed: Permission denied",
        "data/a.txt: not executable",
    ],
)
def test_a_file_that_may_not_be_executed(tmp_path: Path, failed: tuple[PlannedStep, Record], line: str) -> None:
    step, record = failed
    (said,) = reasons_for_failure(tmp_path, step, replace(record, exit_code=126), [line])
    assert said.startswith("data/a.txt may not be executed: chmod +x it")


@pytest.mark.parametrize("code", [0, 1, 2, 125, 128, 143])
def test_other_endings_say_nothing_of_programs(tmp_path: Path, failed: tuple[PlannedStep, Record], code: int) -> None:
    """A file that a program misses is its own affair."""
    step, record = failed
    lines = ["/bin/sh: root: not found", "cat: x: Permission denied"]
    assert reasons_for_failure(tmp_path, step, replace(record, exit_code=code), lines) == ()


@pytest.mark.parametrize(("memory", "said"), [(None, "this machine ran out of memory"), (64_000_000, "memory: 64 MB")])
def test_a_step_that_was_killed(
    tmp_path: Path, failed: tuple[PlannedStep, Record], memory: int | None, said: str
) -> None:
    """Its own limit, if it has one, or the machine's."""
    step, record = failed
    step = replace(step, resources=replace(step.resources, memory=memory))
    record = replace(record, exit_code=137, failure="exit code 137")
    (hint,) = reasons_for_failure(tmp_path, step, record, [])
    assert said in hint
    for other in ("interrupted", "timed out after 60 s"):
        assert reasons_for_failure(tmp_path, step, replace(record, failure=other), []) == ()
