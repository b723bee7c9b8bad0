"""Where values stand in a script for sh, and how it is quoted there.

The scanner follows the quoting of POSIX sh (XCU 2.2 quoting, 2.3 token recognition, 2.6 expansions, 2.7.4
here-documents) as dash and bash read it. A value's place is marked by ``HOLE``. Where the scanner can't tell, or the
two shells differ, it says so ("unsure").
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

HOLE = "\0"  # no YAML text contains it
ESCAPED = "directly after a backslash"  # a reason of its own: nothing at all can be written there

_ORDINARY = re.compile(r"""[^\0\\'"`$#<()\s;&|>]+""")
_IN_DOUBLE = re.compile(r'[^\0\\"`$]+')
_IN_BRACE = re.compile(r"""[^\0\\'"`$}]+""")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-]")
_DELIMITER = re.compile(r"""[ \t]*((?:[^\0\s;&|<>()'"\\`$]|'[^'\0]*'|"[^"\0\\`$]*"|\\[^\n\0])+)""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where one value stands: ``bare``, ``single`` or ``double`` quoted, in a ``comment``, or ``unsure``.

    ``reason`` says where, in words. ``after_name``: directly after ``$name``, which the value would lengthen.
    ``alone``: it is a word of its own. ``may_be_plain``: no quotes are needed here around a plain word.
    ``delimiter`` ends the here-document; ``bare_line``: its line is the delimiter if the values in it are empty.
    """

    kind: str
    reason: str
    after_name: bool = False
    alone: bool = False
    may_be_plain: bool = False
    delimiter: str | None = None
    bare_line: bool = False


def spots(script: str) -> tuple[Spot, ...]:
    """Places of all ``HOLE`` in ``script``, in order."""
    scanner = _Scanner(script)
    scanner.scan()
    return tuple(scanner.found)


@dataclass(slots=True, kw_only=True)
class _Frame:
    """An open construct: ``top``, ``paren`` for ``$(``, ``double``, ``brace`` for ``${``, ``arith`` for ``$((``."""

    kind: str
    depth: int = 0
    heredocs: list[tuple[str, bool, bool]] = field(default_factory=list)  # delimiter, strip tabs, quoted


class _Scanner:
    """Walks through a script once, keeping a stack of the constructs that are open."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: list[Spot] = []
        self.fresh = True  # a word may begin here, so that # begins a comment
        self.duplicating = False  # in the word after >& or <&, which bash expands twice
        self.frames = [_Frame(kind="top")]

    def scan(self) -> None:
        steps = {
            "top": self._bare,
            "paren": self._bare,
            "double": self._double,
            "brace": self._brace,
            "arith": self._arith,
        }
        while self.at < len(self.text):
            steps[self.frames[-1].kind]()

    def _bare(self) -> None:
        char = self.text[self.at]
        if match := _ORDINARY.match(self.text, self.at):
            if self.fresh and match[0] == "case" and self.frames[-1].kind == "paren":
                self._lose("after a case inside $( … )")
                return
            self._advance(match.end())
        elif char == HOLE:
            self._hole("bare", "outside quotes")
        elif char == "'":
            self._single()
        elif char == '"':
            self._open("double", 1)
        elif char in "\\`$":
            self._special(char)
        elif char == "#":
            self._comment() if self.fresh else self._advance(self.at + 1)
        elif char in "()":
            self._parenthesis(char)
        elif char == "\n":
            self._newline()
        elif self.text.startswith("<<", self.at):
            self._heredoc()
        else:
            self._blank_or_operator(char)

    def _blank_or_operator(self, char: str) -> None:
        if char == "&" and self.text[self.at - 1 : self.at] in ("<", ">"):
            self.duplicating = True
        elif not (self.fresh and char in " \t"):
            self.duplicating = False
        self.at += 1
        self.fresh = True

    def _double(self) -> None:
        char = self.text[self.at]
        if match := _IN_DOUBLE.match(self.text, self.at):
            self.at = match.end()
        elif char == '"':
            self._close(1)
        elif char == HOLE:
            self._hole("double", 'inside "…"')
        else:
            self._special(char)

    def _brace(self) -> None:
        char = self.text[self.at]
        quoted = any(frame.kind == "double" for frame in self.frames)
        if match := _IN_BRACE.match(self.text, self.at):
            self.at = match.end()
        elif char == "}":
            self._close(1)
        elif char == HOLE:
            self._hole("unsure", "inside ${ … }")
        elif char in "'\"" and quoted:
            self._lose("after a quote inside ${ … }")  # shells differ on what it means there
        elif char == "'":
            self._single()
        elif char == '"':
            self._open("double", 1)
        else:
            self._special(char)

    def _arith(self) -> None:
        char, frame = self.text[self.at], self.frames[-1]
        if char == HOLE:
            self._hole("unsure", "inside $(( … ))")
        elif char == "$":
            self._dollar()
        elif char == ")" and frame.depth == 0 and self.text.startswith("))", self.at):
            self._close(2)
        elif char in "'\"`\\" or (char == ")" and frame.depth == 0):
            self._lose("after an unusual $(( … ))")
        else:
            frame.depth += {"(": 1, ")": -1}.get(char, 0)
            self.at += 1

    def _special(self, char: str) -> None:
        if char == "$":
            self._dollar()
        elif char == "`":
            self._backquotes()
        else:
            self._backslash()

    def _backslash(self) -> None:
        follower = self.text[self.at + 1 : self.at + 2]
        self.at += 1 if follower in ("", HOLE) else 2
        if follower != "\n":  # a backslash and a newline are nothing at all
            self.fresh = False

    def _single(self) -> None:
        end = self.text.find("'", self.at + 1)
        end = len(self.text) if end < 0 else end
        self._holes_until(end, "single", "inside '…'")
        self._advance(end + 1)

    def _backquotes(self) -> None:
        match = re.compile(r"(?:[^`\\]|\\.)*", re.DOTALL).match(self.text, self.at + 1)
        end = match.end() if match else len(self.text)
        self._holes_until(end, "unsure", "inside `…`")
        self._advance(end + 1)

    def _comment(self) -> None:
        end = self.text.find("\n", self.at)
        end = len(self.text) if end < 0 else end
        self._holes_until(end, "comment", "a comment")
        self.at = end

    def _dollar(self) -> None:
        start = self.at + 1
        if self.text.startswith("((", start):
            self._open("arith", 3)
        elif self.text.startswith("(", start):
            self._open("paren", 2)
            self.fresh = True
        elif self.text.startswith("{", start):
            self._open("brace", 2)
        elif self.text.startswith("'", start) and self.frames[-1].kind != "double":
            self._lose("after $'…'")  # bash has it, dash has not
        else:
            match = _VARIABLE.match(self.text, start)
            self._advance(match.end() if match else start)

    def _parenthesis(self, char: str) -> None:
        frame = self.frames[-1]
        if char == "(" and self.text.startswith("((", self.at):
            self._lose("after ((")  # a subshell in dash, arithmetic in bash
        elif char == ")" and frame.kind == "paren" and frame.depth == 0:
            if frame.heredocs:
                self._lose("after a here-document that begins inside $( … )")
            else:
                self._close(1)
        else:
            frame.depth += 1 if char == "(" else -1 if frame.kind == "paren" else 0
            self.at += 1
            self.fresh = True

    def _newline(self) -> None:
        self.at += 1
        self.fresh, self.duplicating = True, False
        frame = self.frames[-1]
        while frame.heredocs and self.at < len(self.text):
            self._body(*frame.heredocs.pop(0))

    def _heredoc(self) -> None:
        strip = self.text.startswith("<<-", self.at)
        start = self.at + (3 if strip else 2)
        match = _DELIMITER.match(self.text, start)
        after = self.text[match.end() : match.end() + 1] if match else ""
        if match is None or after in ("'", '"', "\\", "`", "$", HOLE) or self.text.startswith("<", start):
            self._lose("after <<")
            return
        word = match[1]
        delimiter = re.sub(r"""['"]|\\(.)""", r"\1", word)
        self.frames[-1].heredocs.append((delimiter, strip, delimiter != word))
        self._advance(match.end())

    def _body(self, delimiter: str, strip: bool, quoted: bool) -> None:
        while self.at < len(self.text):
            end = self.text.find("\n", self.at)
            end = len(self.text) if end < 0 else end
            line = self.text[self.at : end]
            text = line.lstrip("\t") if strip else line
            if text == delimiter:
                self.at = end + 1
                return
            bare = HOLE in text and text.replace(HOLE, "") == delimiter
            self._holes_until(end, "unsure", "inside a here-document", delimiter=delimiter, bare_line=bare)
            self.at = end + 1
            if not quoted and _continues(line):
                self._lose("after an expansion of several lines in a here-document")

    def _holes_until(
        self, end: int, kind: str, reason: str, *, delimiter: str | None = None, bare_line: bool = False
    ) -> None:
        at = self.text.find(HOLE, self.at, end)
        while at >= 0:
            self._note(at, Spot(kind=kind, reason=reason, delimiter=delimiter, bare_line=bare_line))
            at = self.text.find(HOLE, at + 1, end)

    def _hole(self, kind: str, reason: str) -> None:
        for frame in reversed(self.frames):
            if frame.kind == "brace":
                kind, reason = "unsure", "inside ${ … }"
            elif frame.kind == "arith":
                kind, reason = "unsure", "inside $(( … ))"
            if frame.kind in ("paren", "top", "brace", "arith"):
                break
        self._note(self.at, Spot(kind=kind, reason=reason))
        self._advance(self.at + 1)

    def _note(self, at: int, spot: Spot) -> None:
        kind, reason = spot.kind, spot.reason
        if kind in ("bare", "double", "unsure") and _is_escaped(self.text, at):
            kind, reason = "unsure", ESCAPED
        elif kind in ("bare", "double", "single") and self.duplicating:
            kind, reason = "unsure", "the word after >&"
        start, end = _before_joins(self.text, at), _after_joins(self.text, at + 1)
        before, after = self.text[start - 1 : start], self.text[end : end + 1]
        alone = (not before or before in " \t\n;|&()") and (not after or after in " \t\n;|&()<>")
        self.found.append(
            Spot(
                kind=kind,
                reason=reason,
                after_name=_follows_name(self.text, at),
                alone=alone,
                may_be_plain=(alone or before in ("=", "/", ":")) and after not in ("<", ">", "("),
                delimiter=spot.delimiter,
                bare_line=spot.bare_line,
            )
        )

    def _lose(self, reason: str) -> None:
        self._holes_until(len(self.text), "unsure", reason)
        self.at = len(self.text)

    def _open(self, kind: str, length: int) -> None:
        self.frames.append(_Frame(kind=kind))
        self._advance(self.at + length)

    def _close(self, length: int) -> None:
        self.frames.pop()
        self._advance(self.at + length)

    def _advance(self, to: int) -> None:
        self.at = to
        self.fresh = False


def _is_escaped(text: str, at: int) -> bool:
    backslashes = at - len(text[:at].rstrip("\\"))
    return backslashes % 2 == 1


def _before_joins(text: str, at: int) -> int:
    """Where what is joined to ``at`` by backslash and newline ends."""
    while text[at - 2 : at] == "\\\n" and _is_escaped(text, at - 1):
        at -= 2
    return at


def _after_joins(text: str, at: int) -> int:
    while text.startswith("\\\n", at):
        at += 2
    return at


def _follows_name(text: str, at: int) -> bool:
    end = start = _before_joins(text, at)
    while start and (text[start - 1] == "_" or (text[start - 1].isascii() and text[start - 1].isalnum())):
        start = _before_joins(text, start - 1)
    return 0 < start < end and text[start - 1] == "$"


def _continues(line: str) -> bool:
    return _is_escaped(line, len(line)) or line.count("(") != line.count(")") or line.count("`") % 2 == 1
