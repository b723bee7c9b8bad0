"""What is for a person at a terminal: a shell in a step's container, and Ctrl-C. On each engine, at a real terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import TinyImage
from sessions import LONG, SECONDS, Analysis, Napping, command_lines, lock_analysis, own_copy, wait_until
from terminal import CTRL_C, CTRL_D, Terminal, at_terminal

STEPS = f"""\
format: 1
title: A long step, and one to look into
images:
  tiny: oci:image
parameters: {{seconds: 0}}
steps:
{LONG}\
  - name: look
    stage: processing
    image: tiny
    for_each: {{number: [1, 2]}}
    inputs: [first/first.txt, code/list.txt]
    outputs: ["look/${{{{ number }}}}.txt"]
    run: cat ${{{{ inputs[0] }}}} code/list.txt > ${{{{ outputs[0] }}}}
  - name: sum
    stage: assembly
    image: tiny
    inputs: [look/*.txt]
    outputs: [sum/sum.txt]
    run: cat look/*.txt > ${{{{ outputs[0] }}}}
"""
PROMPT = "look@number=2:/work$ "


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, tiny_image: TinyImage) -> Path:
    """The analysis, committed and locked."""
    files = {"preserve.yaml": STEPS, "code/list.txt": "a list\n", "code/unread.txt": "not for the step\n"}
    return lock_analysis(tmp_path_factory.mktemp("terminal") / "analysis", tiny_image.layout, files)


@pytest.fixture
def analysis(engine: str, docker_address: str, locked: Path, tmp_path: Path) -> Analysis:
    """A copy of one's own, on each engine, its first step done."""
    made = own_copy(locked, tmp_path / "analysis", engine, docker_address)
    made.run("--step", "first")
    return made


def shell(analysis: Analysis, step: str) -> tuple[str, ...]:
    return (*analysis.argv("shell", step), "--engine", analysis.engine)


def fall_asleep(terminal: Terminal) -> int:
    """Let the shell run something long; how long, in seconds, tells it from all other processes."""
    seconds = next(SECONDS)
    terminal.type(f"sleep {seconds}\n")
    assert wait_until(lambda: is_asleep(seconds), 30), terminal.text
    return seconds


def is_asleep(seconds: int) -> bool:
    return any(line[-2:] == ["sleep", str(seconds)] for _, line in command_lines())


def left(analysis: Analysis) -> list[str]:
    """What a shell's end should have taken with it."""
    return [path.name for path in (analysis.root / ".preserve").glob("shell-*")]


def test_a_shell_in_a_steps_container(analysis: Analysis) -> None:
    """The step's inputs and nothing else, read-only; what is written goes nowhere; Ctrl-C is for what runs in it."""
    with at_terminal(shell(analysis, "look@number=2"), analysis.root, analysis.environment, columns=97) as terminal:
        before = terminal.settings()
        terminal.wait_for(PROMPT)
        assert "the container of look@number=2: what is written in it is thrown away" in terminal.text
        terminal.type(
            "echo begin$((1 + 1)); find . -type f | sort; stty size; hostname; cat first/first.txt; echo en$((0))d\n"
        )
        terminal.wait_for("en0d")
        shown = terminal.text.partition("begin2")[2].partition("en0d")[0].split()
        assert shown == ["./code/list.txt", "./first/first.txt", "24", "97", "preserve", "first"]
        terminal.type("echo changed > first/first.txt\n")
        terminal.wait_for("Read-only file system")
        terminal.type("echo tried > look/2.txt && cat look/2.txt\n")
        terminal.wait_for("\ntried\r\n")
        fall_asleep(terminal)
        terminal.type(CTRL_C)
        terminal.type("echo here $((40 + 2))\n")
        terminal.wait_for("here 42")
        terminal.type("exit 7\n")
        assert terminal.end() == 7
        assert terminal.settings() == before
    assert (analysis.root / "first" / "first.txt").read_text() == "first\n"
    assert not (analysis.root / "look").exists()
    assert left(analysis) == []


def test_a_shell_ends_with_the_end_of_input(analysis: Analysis) -> None:
    """Of a step with several jobs, the first is taken."""
    with at_terminal(shell(analysis, "look"), analysis.root, analysis.environment) as terminal:
        terminal.wait_for("look@number=1:/work$ ")
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    assert left(analysis) == []


def test_a_shell_needs_a_step(analysis: Analysis) -> None:
    """One that there is, and whose inputs are made."""
    for step, said in (("lok", "there is no step 'lok'"), ("sum", "what step sum reads is not made yet")):
        with at_terminal(shell(analysis, step), analysis.root, analysis.environment) as terminal:
            assert terminal.end() == 2
            assert said in terminal.text


def test_a_closed_window_takes_the_shell_with_it(analysis: Analysis) -> None:
    """And the container, what runs in it, and what was laid out for it."""
    with at_terminal(shell(analysis, "look"), analysis.root, analysis.environment) as terminal:
        terminal.wait_for("look@number=1:/work$ ")
        seconds = fall_asleep(terminal)
        terminal.close()
        assert wait_until(lambda: terminal.process.poll() is not None, 30)
    assert wait_until(lambda: not is_asleep(seconds), 10)
    assert left(analysis) == []


def test_ctrl_c(analysis: Analysis) -> None:
    """The key reaches every process of the terminal: the step is interrupted, nothing is left, the cursor is back."""
    seconds = next(SECONDS)
    argv = analysis.argv("run", "--step", "nap", "-p", f"seconds={seconds}")
    with at_terminal(argv, analysis.root, analysis.environment) as terminal:
        run = Napping(analysis=analysis, process=None, seconds=seconds)  # type: ignore[arg-type]
        terminal.wait_for("nap running")
        assert wait_until(run.started, 30)
        terminal.type(CTRL_C)
        assert terminal.end() == 130
        assert "  nap: interrupted, " in terminal.text
        assert "preserve: interrupted; the containers are gone" in terminal.text
        assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")
        assert "Traceback" not in terminal.text
    run.assert_clean()
