"""What a long command shows: on a terminal of any width, without colours where none are wanted, and elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest

from preserve.cli.progress import Lines

LONG = "a-step-with-a-name-of-nearly-sixty-characters@category=endcap"
CONTROL = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")
Shown = Callable[..., str]


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Give what a terminal of some columns got while ``act`` spoke to the display."""

    def run(act: Callable[[Lines], None], *, columns: int, **environment: str) -> str:
        for name, value in {"TERM": "xterm-256color", "COLUMNS": str(columns), **environment}.items():
            monkeypatch.setenv(name, value)
        stream = Terminal()
        monkeypatch.setattr("sys.stderr", stream)
        with Lines(quiet=False) as lines:
            act(lines)
        return stream.getvalue()

    return run


def one_step(lines: Lines) -> None:
    lines.step_started(LONG)
    lines._bars.refresh()
    lines.step_finished(LONG, outcome="done", seconds=1.5)


def rows(text: str) -> list[str]:
    """Lines as a person sees them, one after the other."""
    return [row for row in CONTROL.sub("", text).replace("\r", "\n").split("\n") if row]


@pytest.mark.parametrize("columns", [40, 80])
def test_the_line_of_a_step_stays_whole(shown: Shown, columns: int) -> None:
    """It is for copying: the terminal may wrap it, nobody else does."""
    assert f"  {LONG}: done, 1.50 s" in rows(shown(one_step, columns=columns))


def test_on_a_narrow_terminal_the_name_gives_way(shown: Shown) -> None:
    running = [row for row in rows(shown(one_step, columns=40)) if "running" in row]
    assert running
    assert all(len(row) <= 40 and row.endswith("… running 0:00:00") for row in running), running


def test_a_step_that_ended_is_not_shown_as_running_below_its_line(shown: Shown) -> None:
    seen = rows(shown(one_step, columns=80))
    assert all("running" not in row for row in seen[seen.index(f"  {LONG}: done, 1.50 s") :])


def test_no_colour_where_none_is_wanted(shown: Shown) -> None:
    colours = re.compile(r"\x1b\[[\d;]*m")
    assert colours.search(shown(one_step, columns=80))
    assert not colours.search(shown(one_step, columns=80, NO_COLOR="1"))


def test_the_cursor_comes_back(shown: Shown) -> None:
    text = shown(one_step, columns=80)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_a_terminal_that_knows_no_codes_gets_none(shown: Shown) -> None:
    assert shown(one_step, columns=80, TERM="dumb").strip() == f"{LONG}: done, 1.50 s"


@pytest.mark.parametrize(
    ("name", "said"),
    [("data/[bold]x[/y].root", "data/[bold]x[/y].root"), ("data/\x1b[31mred", "data/\\x1b[31mred")],
)
def test_a_name_means_nothing_to_the_display(shown: Shown, name: str, said: str) -> None:
    """Names of files come from strangers: neither rich's markup nor a terminal's codes."""

    def transfer(lines: Lines) -> None:
        lines.bytes_done(name, 1_000_000, 4_000_000)
        lines._bars.refresh()

    text = shown(transfer, columns=80)
    assert said in "\n".join(rows(text))
    assert "\x1b[31m" not in text
    assert "1.0 of 4.0 MB" in text


def test_elsewhere_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(quiet=False) as lines:
        lines.step_started("fit")
        lines.bytes_done("copying", 1, 2)
        lines.step_finished("fit", outcome="interrupted", seconds=0.125)
    assert capsys.readouterr().err == "  fit: interrupted, 0.12 s\n"


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(quiet=True) as lines:
        lines.step_started("fit")
        lines.step_finished("fit", outcome="done", seconds=1)
    assert capsys.readouterr().err == ""
