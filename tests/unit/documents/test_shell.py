"""Values in scripts: written by us, read by the real sh, which must see each as one inert word."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preserve.documents import expressions, quoting
from preserve.documents.expressions import Scope

SHOW = "show() { for a; do printf '%s\\0' \"$a\"; done; printf '\\1\\0'; }\n"
NASTY = (
    "",
    "plain",
    "it's",
    'a "quote"',
    "$(touch owned)",
    "`touch owned`",
    "; touch owned #",
    "&& touch owned",
    "two\nlines",
    "-n",
    "--help",
    "Größe µ±σ",
    "$HOME",
    "${HOME}",
    "a\\",
    "\\n",
    "*",
    "~",
    "if",
    "A=b",
    "\t x ",
    "!",
    "'\"'\"'",
    "EOF",
    "7",
    "{a,b}",
    "x)",
)


def argv_seen(script: str) -> list[list[str]]:
    """Arguments of each ``show`` in ``script``, as sh (dash) passed them; nothing else may have been done."""
    status, calls, errors = run(script)
    assert status == 0, errors
    return calls


def run(script: str) -> tuple[int, list[list[str]], str]:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["/bin/sh", "-eu", "-c", SHOW + script],
            cwd=folder,
            env={"LANG": "C.UTF-8", "x": "X", "HOME": "/h"},
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert not list(Path(folder).iterdir()), "the value was executed"
    calls: list[list[str]] = []
    words: list[str] = []
    for word in done.stdout.decode().split("\0")[:-1]:
        if word == "\1":
            calls.append(words)
            words = []
        else:
            words.append(word)
    return done.returncode, calls, done.stderr.decode()


def filled(script: str, **values: object) -> tuple[str, tuple[expressions.Problem, ...]]:
    template, problems = expressions.parse(script)
    assert not problems
    scope = Scope(parameters={}, values=values)  # type: ignore[arg-type]
    return expressions.fill_script(template, quoting.spots(template.with_holes), scope)


def written(script: str, **values: object) -> str:
    text, problems = filled(script, **values)
    assert not problems, problems
    return text


# Each place with what the word around the value is; {} is the value.
PLACES = {
    "show ${{ v }}": "{}",
    "show --a=${{v}}": "--a={}",
    "show a${{ v }}b": "a{}b",
    "show '${{ v }}'": "{}",
    "show 'a ${{ v }} b'": "a {} b",
    'show "${{ v }}"': "{}",
    'show "a ${{ v }} b"': "a {} b",
    'show "$x${{ v }}"': "X{}",
    "show $x${{ v }}": "X{}",
    'show "${x}${{ v }}${x}"': "X{}X",
    "show $x\\\n${{ v }}": "X{}",
    'show "$x\\\n${{ v }}"': "X{}",
    "show 2>&1 ${{ v }}": "{}",
    'show "$(printf %s. "${{ v }}")"': "{}.",
    'show "$(printf %s. ${{ v }})"': "{}.",
    'show "`echo a`${{ v }}"': "a{}",
    "show ${x:-'b'}\"${{ v }}\"": "X{}",
    "# it's a comment \"\nshow ${{ v }}": "{}",
    "show $((1 + (2 * 3)))${{ v }}": "7{}",
    "show a#'${{ v }}'": "a#{}",
    "show \\'${{ v }}": "'{}",
    'show \\"${{ v }}': '"{}',
    'show "\\"${{ v }}"': '"{}',
    "show a\\\n#${{ v }}": "a#{}",
    "cat <<'EOF' >/dev/null\nit's $( `\nEOF\nshow ${{ v }}": "{}",
    'cat <<-E"O"F >/dev/null\n\tit\'s "\n\tEOF\nshow "${{ v }}"': "{}",
    'for i in ${{ v }}; do show "$i"; done': "{}",
    "case ${{ v }} in nothing) show no;; *) show ${{ v }};; esac": "{}",
    "(show ${{ v }})": "{}",
    'y=${{ v }}; show "$y"': "{}",
    "y=\"$(cat <<'E'\n(\"\nE\n)\"; show '${{ v }}'": "{}",
}


@pytest.mark.parametrize("place", PLACES)
def test_nasty_values_are_one_inert_word_wherever_they_stand(place: str) -> None:
    script = "\n".join(written(place, v=value) for value in NASTY)
    assert argv_seen(script) == [[PLACES[place].replace("{}", value)] for value in NASTY]


def test_a_value_is_neither_a_keyword_nor_an_assignment_nor_a_file_descriptor() -> None:
    assert written("${{ v }} x", v="if") == "'if' x"
    assert written("${{ v }} x", v="A=b") == "'A=b' x"
    assert written("${{ v }}=c", v="A") == "'A'=c"
    assert written("${{ v }}ne", v="do") == "'do'ne"
    assert written("show ${{ v }}2>&1", v="7") == "show '7'2>&1"
    assert written("show ${{ v }}\\\n>f", v="7") == "show '7'\\\n>f"
    assert argv_seen(written("show ${{ v }}>&2; show ${{ v }} </dev/null", v="0")) == [["0"]]


def test_lists_become_words_outside_quotes() -> None:
    assert argv_seen(written("show a ${{ v }} b", v=("it's", "", "$x"))) == [["a", "it's", "", "$x", "b"]]
    assert argv_seen(written("show ${{ v }}", v=())) == [[]]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo '${{ v }}'", "inside '…'"),
        ('echo "${{ v }}"', 'inside "…"'),
        ("cat <<E\n${{ v }}\nE", "a here-document"),
        ("x=${{ v }}", "a part of a word"),
        ("# ${{ v }}", "a comment"),
    ],
)
def test_lists_elsewhere_are_refused(script: str, reason: str) -> None:
    _, problems = filled(script, v=("a", "b"))
    assert [reason in problem.message for problem in problems] == [True]


UNSURE = (
    "cat <<E\nfoo ${{ v }} bar\nE\n",
    "cat <<'E'\nfoo ${{ v }}\nE\n",
    "echo `echo ${{ v }}`",
    'echo "`echo ${{ v }}`"',
    "echo $((1 + ${{ v }}))",
    "echo ${x:-${{ v }}}",
    'echo "${x:-"${{ v }}"}"',
    "echo $'it\\'s ${{ v }}'",
    "echo $(case a in a) echo '${{ v }}';; esac)",
    "((x = ${{ v }}))",
    "cat <<<'${{ v }}'",
    "echo >&2${{ v }}",
    "echo 2>& '${{ v }}'",
    "echo \\${{ v }}",
)


@pytest.mark.parametrize("script", UNSURE)
@pytest.mark.parametrize("value", ["it's", "$x", "a b", "`id`", '"', "a\nb", ";"])
def test_where_it_cannot_be_told_an_unsafe_value_is_refused(script: str, value: str) -> None:
    assert len(filled(script, v=value)[1]) == 1


@pytest.mark.parametrize("script", UNSURE[:-1])
def test_where_it_cannot_be_told_a_plain_value_is_taken(script: str) -> None:
    assert written(script, v="12.5") == script.replace("${{ v }}", "12.5")


@pytest.mark.parametrize("line", ["${{ v }}", "E${{ v }}F", "EOF${{ w }}", "${{ v }}${{ w }}"])
def test_a_value_cannot_end_a_here_document(line: str) -> None:
    value = {"${{ v }}": "EOF", "E${{ v }}F": "O", "EOF${{ w }}": "", "${{ v }}${{ w }}": "EOF"}[line]
    assert filled(f"cat <<EOF\n{line}\nowned\nEOF\n", v=value, w="")[1]


def test_a_comment_keeps_its_line() -> None:
    assert written("# it's ${{ v }}\n", v="it's") == "# it's it's\n"
    assert filled("# ${{ v }}\n", v="a\nshow owned")[1]


PIECES = st.sampled_from(
    [
        "${{ v }}", "${{ v }}", "'${{ v }}'", '"${{ v }}"', "$x", "${x}", "a", " ", "\\'", '\\"', "\\\\", "'$( \"'",
        '"$x\'"', "\\$", "#", "\\\n", '"\\$x"', "$(echo b)", '"$(echo "c")"', "`echo d`", "$((1+2))", "=", "/", "-",
    ]
)  # fmt: skip


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(
    st.lists(PIECES, min_size=1, max_size=9),
    st.text(max_size=8).filter(lambda s: s.isprintable()) | st.sampled_from(NASTY),
)
def test_whatever_stands_around_it(pieces: list[str], value: str) -> None:
    """The words that sh makes with the value are those it makes with a marker, the marker replaced."""
    script = "show " + "".join(pieces) + "\n"
    marker = "Zq7Zq"
    text, problems = filled(script, v=value)
    if problems:  # refused, as it must be if the place is unsure and the value is not plain
        assert not re.fullmatch(r"[A-Za-z0-9_./+=:,@%-]+", value) or "\\${{" in script or "$name" in str(problems)
        return
    status, words, _ = run(written(script, v=marker))
    again, seen, _ = run(text)
    assert (again == 0) == (status == 0)
    if status == 0:
        assert seen == [[word.replace(marker, value) for word in call] for call in words]
