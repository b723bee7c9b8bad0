"""YAML 1.2 (core schema), strictly: bytes to a tree of nodes that know where they stand.

PyYAML's parser gives the events; what scalars mean is decided here, since PyYAML's own resolver follows YAML 1.1
(where ``no`` is false, ``22:22`` is 1342, ``010`` is 8 and ``1e3`` is text). Tags, anchors, aliases, merge keys,
several documents and duplicate keys are refused: they make a file say something else than what is read in it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from preserve.documents.faults import Faults
from preserve.documents.merging import CONFLICT, merge_conflict
from preserve.documents.workflow import Position, Scalar
from preserve.errors import DocumentError

MAX_BYTES = 16 << 20
MAX_NODES = 1_000_000
MAX_DEPTH = 20  # preserve.yaml needs 8
MAX_INTEGER = 1 << 64

_EVENTS: Any = yaml.CBaseLoader if yaml.__with_libyaml__ else yaml.BaseLoader
_SLOW_BUT_CLEAR = 1 << 18  # bytes; a broken file up to this size is parsed again for the better message
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarNode:
    """A scalar as written; ``style`` is ``""`` for a plain one, else its quote (``'``, ``"``) or ``|``, ``>``."""

    text: str
    style: str
    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListNode:
    """A list."""

    items: tuple[Node, ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MapNode:
    """A mapping; keys are unique by their text, whatever that would mean as a value."""

    entries: tuple[tuple[ScalarNode, Node], ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenNode:
    """Stands where something was refused, so that it is not complained about twice."""

    line: int
    column: int


Node = ScalarNode | ListNode | MapNode | BrokenNode


class NotAScalar(ValueError):
    """A plain scalar of a number's form that no finite number of ours has; the text says why."""


def read_tree(text: str, faults: Faults) -> Node:
    """Read one YAML document to a tree; what is refused but leaves the rest readable is noted in ``faults``.

    ``text`` comes from ``decode``, so that it has no invisible characters.

    Raises:
        DocumentError: it is not readable to its end.
    """
    try:
        return _Builder(faults).build(yaml.parse(text, Loader=_EVENTS))
    except yaml.YAMLError as error:
        _note_syntax(_clearer(text, error), text, faults)
        raise DocumentError(faults.found) from error


def decode(data: bytes, faults: Faults) -> str:
    """Decode UTF-8 (a byte order mark at the start is dropped).

    Raises:
        DocumentError: too large, not UTF-8, or with characters that nobody can see.
    """
    start = Position(line=1, column=1)
    if len(data) > MAX_BYTES:
        faults.add(start, f"the file has {len(data)} bytes, more than {MAX_BYTES}", "generate steps with for_each")
        faults.raise_any()
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        message = f"not UTF-8: byte 0x{data[error.start]:02x}"
        faults.add(_position(before, len(before)), message, "save the file in the encoding UTF-8")
        raise DocumentError(faults.found) from error
    for match in _FORBIDDEN.finditer(text):
        message = f"the invisible character U+{ord(match[0]):04X}"
        faults.add(_position(text, match.start()), message, "remove it; it is likely the remains of a copy and paste")
    if line := merge_conflict(data):
        hint = "keep what is right of both sides, and remove the lines <<<<<<<, ======= and >>>>>>>"
        faults.add(Position(line=line, column=1), CONFLICT, hint)
    faults.raise_any()
    return text


def resolve(node: ScalarNode) -> Scalar | None:
    """Value of a scalar by YAML 1.2's core schema; quoted ones are text.

    Raises:
        NotAScalar: an infinite or too large number.
    """
    return node.text if node.style else resolve_plain(node.text)


def resolve_plain(text: str) -> Scalar | None:
    """Value of a plain scalar by YAML 1.2's core schema.

    Raises:
        NotAScalar: an infinite or too large number.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if math.isinf(value):
            raise NotAScalar(f"{text} is too large for a number")
        return value
    if _INFINITE.fullmatch(text):
        raise NotAScalar(f"{text} is not a finite number")
    return text


def plain(node: Node) -> Any:
    """Give the tree as dicts, lists and scalars; numbers that are none stay text, and what was refused is ``None``."""
    if isinstance(node, MapNode):
        return {key.text: plain(value) for key, value in node.entries}
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    if isinstance(node, BrokenNode):
        return None
    try:
        return resolve(node)
    except NotAScalar:
        return node.text


def _integer(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    value = int(text, base) if len(text) < 100 else MAX_INTEGER
    if abs(value) >= MAX_INTEGER:
        raise NotAScalar(f"{text[:30]} is too large for an integer")
    return value


def _position(text: str, at: int) -> Position:
    start = max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1
    newlines = len(re.findall(r"\r\n|\r|\n", text[:start]))
    return Position(line=newlines + 1, column=at - start + 1)


class _Builder:
    """Builds the tree from the parser's events with a stack of its own: no recursion, whatever the file."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._open: list[tuple[yaml.Event, list[Node]]] = []
        self._root: Node | None = None
        self._documents = 0
        self._nodes = 0

    def build(self, events: Iterator[yaml.Event]) -> Node:
        for event in events:
            self._take(event)
            if self._documents > 1:
                break
        return self._root or ScalarNode(text="", style="", line=1, column=1)

    def _take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._note_properties(event)
            self._add(self._scalar(event))
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._note_properties(event)
            self._push(event)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            start, children = self._open.pop()
            self._add(self._collection(start, children))
        elif isinstance(event, yaml.AliasEvent):
            place = _start(event)
            self._faults.add(
                place, f"the alias *{event.anchor} is refused", "write it out: what stands here should be seen here"
            )
            self._add(BrokenNode(line=place.line, column=place.column))
        elif isinstance(event, yaml.DocumentStartEvent):
            self._start_document(event)

    def _push(self, event: yaml.Event) -> None:
        self._open.append((event, []))
        if len(self._open) > MAX_DEPTH:
            self._faults.add(_start(event), f"nested deeper than {MAX_DEPTH} levels", "nothing here needs so many")
            self._faults.raise_any()

    def _add(self, node: Node) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._faults.add(node, f"more than {MAX_NODES} entries", "generate steps with for_each")
            self._faults.raise_any()
        if self._open:
            self._open[-1][1].append(node)
        else:
            self._root = node

    def _scalar(self, event: Any) -> Node:
        place = _start(event)
        if event.style == '"' and (found := _FORBIDDEN.search(event.value)):
            self._faults.add(place, f"an escape for the invisible character U+{ord(found[0]):04X}", "remove it")
            return BrokenNode(line=place.line, column=place.column)
        return ScalarNode(text=event.value, style=event.style or "", line=place.line, column=place.column)

    def _collection(self, start: yaml.Event, children: list[Node]) -> Node:
        place = _start(start)
        if isinstance(start, yaml.SequenceStartEvent):
            return ListNode(items=tuple(children), line=place.line, column=place.column)
        entries: dict[str, tuple[ScalarNode, Node]] = {}
        for key, value in zip(children[::2], children[1::2], strict=True):
            if not isinstance(key, ScalarNode):
                if not isinstance(key, BrokenNode):
                    self._faults.add(key, "a key that is no single word", "if it is a ${{ … }}, put it in quotes")
            elif key.text in entries:
                first = entries[key.text][0].line
                self._faults.add(key, f'the key "{key.text}" stands twice', f"it is already in line {first}")
            elif key.text == "<<" and not key.style:
                self._faults.add(
                    key, "a merge key (<<) is refused", "write the entries out: what stands here should be seen here"
                )
            else:
                entries[key.text] = key, value
        return MapNode(entries=tuple(entries.values()), line=place.line, column=place.column)

    def _note_properties(self, event: Any) -> None:
        if event.anchor is not None:
            self._faults.add(_start(event), f"the anchor &{event.anchor} is refused", "remove it: aliases are not used")
        if event.tag is not None:
            hint = "remove it: put a text in quotes, write a number without"
            self._faults.add(_start(event), f"the tag {_short(event.tag)} is refused", hint)

    def _start_document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            self._faults.add(_start(event), "a second document begins here", "remove the --- and what follows")
        if event.version not in (None, (1, 2)):
            written = ".".join(str(part) for part in event.version)
            self._faults.add(
                _start(event), f"the directive %YAML {written} is refused", "remove it: the file is read as YAML 1.2"
            )
        if event.tags:
            self._faults.add(_start(event), "the directive %TAG is refused", "remove it: tags are not used")


def _start(event: Any) -> Position:
    return Position(line=event.start_mark.line + 1, column=event.start_mark.column + 1)


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def _clearer(text: str, error: yaml.YAMLError) -> yaml.YAMLError:
    """Ask PyYAML's own parser, whose words differ from libyaml's, so that every machine gives the same message."""
    if len(text) <= _SLOW_BUT_CLEAR:
        try:
            for _ in yaml.parse(text, Loader=yaml.BaseLoader):
                pass
        except yaml.YAMLError as clearer:
            return clearer
    return error


_SYNTAX = (
    ("expected the node content", "a value is missing here", "write one, and close every [ and {"),
    ("'\\t'", "a tab", "indent with spaces, and put a text that begins with a tab in quotes"),
    ("mapping values are not allowed", 'a ":" where none can stand', 'put a text that contains ": " in quotes'),
    (
        "expected <block end>",
        "this does not fit the lines above",
        "begin all entries of a list or mapping in one column",
    ),
    ("did not find expected", "this does not fit the lines above", "look for an unclosed quote or bracket, or a shift"),
    (
        "could not find expected ':'",
        'a key without ":"',
        'write "key: value"; if this is a line of a script, indent it more than its "run: |"',
    ),
    ("expected ',' or ']'", "the list [ … ] is not closed", "put a comma or ] here, and quotes around special signs"),
    (
        "expected ',' or '}'",
        "the mapping { … } is not closed",
        "put a comma or } here, and quotes around special signs",
    ),
    (
        "while scanning a quoted scalar",
        "a quote is opened here and not closed",
        "close it, or quote the text as a whole",
    ),
    ("unknown escape character", "an unknown escape", 'write \\\\ for a backslash inside "…", or use single quotes'),
    ("that cannot start any token", "a special sign begins this text", "put the text in quotes"),
)


def _note_syntax(error: yaml.YAMLError, text: str, faults: Faults) -> None:
    problem = str(getattr(error, "problem", None) or error)
    context = str(getattr(error, "context", None) or "")
    mark = getattr(error, "problem_mark", None)
    if context in _BEGINS_EARLIER and "escape" not in problem:
        mark = error.context_mark  # type: ignore[attr-defined]
        problem = context if "quoted" in context else problem
    place = Position(line=mark.line + 1, column=mark.column + 1) if mark else Position(line=1, column=1)
    message, hint = next(
        ((message, hint) for part, message, hint in _SYNTAX if part in problem),
        ("not readable as YAML", problem),
    )
    opened = getattr(error, "context_mark", None)
    if "is not closed" in message and opened is not None:
        message = f"{message} (opened in line {opened.line + 1})"
        if opened.line + 1 < place.line:  # the bracket is to blame, not this line
            faults.add(place, message, hint)
            return
    lines = text.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    faults.add(place, *_fitting(message, hint, line))


# Errors that PyYAML finds a line or more behind the place that a person has to look at.
_BEGINS_EARLIER = ("while scanning a quoted scalar", "while scanning a simple key")
_RUN_LINE = re.compile(r"\s*(- +)?run:\s")
_GOES_ON_BEHIND_QUOTE = re.compile(r"""\s*(- +)?[\w.-]+:\s+('[^']*'|"[^"]*")\s*[^\s#]""")
SCRIPT_HINT = 'write the script on the lines below "run: |", indented; or put quotes around the whole of it'


def _fitting(message: str, hint: str, line: str) -> tuple[str, str]:
    """Fit what is said of an error to the line where it stands: a script on one line, an expression in brackets."""
    if "does not fit" in message and _GOES_ON_BEHIND_QUOTE.match(line):
        message, hint = "the text goes on behind its closing quote", "put quotes around the whole text"
    if _RUN_LINE.match(line):
        return message, SCRIPT_HINT
    if "${{" in line:
        return message, 'inside [ … ] and { … }, put a text with ${{ … }} in quotes: "${{ … }}"'
    return message, hint
