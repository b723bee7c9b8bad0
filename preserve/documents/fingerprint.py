"""What is kept of a result when its bytes are not: its leaves, small ones whole, large ones by digest and statistics.

Written one leaf a line, sorted by path, in one form only; read strictly, for an archive's may come from a stranger.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from preserve.digest import Digest
from preserve.documents import jsonform
from preserve.documents.typed import typed
from preserve.errors import PreserveError, UserError

SCHEMA = "preserve/fingerprint/1"
READERS = "1"  # raised whenever a reader of comparators gives other leaves for the same file
MAX_BYTES = 8 << 20  # of one fingerprint as a file
WHOLE_NUMBERS = 1 << 14  # of a leaf that is kept whole: histograms of ten thousand bins
WHOLE_TEXT = 500  # characters of one
_MOST_DIMENSIONS = 64
MOST_WORDS = 4000  # characters of a path or a reason
KINDS = ("num", "text", "pixels", "opaque", "volatile", "unreadable")
INFINITE = ("nan", "inf", "-inf")  # how JSON has the numbers that it has no form for

Value = bool | int | float | str

_TYPE = re.compile(r"[<|][A-Za-z?][^\x00-\x1f]{0,80}|\{[^\x00-\x1f]{1,4000}\}")
# dtypes whose values may stand in a fingerprint, and how struct (standard sizes) packs one number of them
PACKED = {
    **{"|b1": "?", "|i1": "b", "<i2": "h", "<i4": "i", "<i8": "q", "|u1": "B", "<u2": "H", "<u4": "I", "<u8": "Q"},
    **{"<f2": "e", "<f4": "f", "<f8": "d", "<c8": "f", "<c16": "d"},
}
_NUMBER = re.compile(r"-?\d{1,40}|-?\d+\.\d+(?:e[-+]\d+)?|-?\d+e[-+]\d+|-?inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What is known of many numbers: ``n`` of them, of these ``nan`` NaN and ``infinite`` infinite.

    ``sum``, ``min`` and ``max`` are of the finite ones, exact and in decimal (``"12"``, ``"0.5"``; the sum rounded once
    to a double, if they are of floating point); ``None`` where there is none. ``part`` names the field of a structured
    array or ``real`` and ``imag``; empty for plain numbers.
    """

    part: str = ""
    n: int
    nan: int = 0
    infinite: int = 0
    sum: str | None = None
    min: str | None = None
    max: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafPrint:
    """What is kept of a leaf (its ``path`` and ``kind`` are the reader's).

    Either its content: ``values`` (numbers in row-major order, complex ones as real and imaginary part; what is not
    finite as text) or ``text``; or the content's ``digest``, with ``statistics`` of numbers, or ``length`` in
    characters of a text. ``dtype`` (numpy's, little-endian) and ``shape`` are those of arrays. ``why`` says why the
    leaf could not be read.
    """

    path: str
    kind: str
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    values: tuple[Value, ...] | None = None
    text: str | None = None
    digest: Digest | None = None
    length: int | None = None
    statistics: tuple[Statistics, ...] = ()
    why: str | None = None

    @property
    def whole(self) -> bool:
        """Whether the content itself is here."""
        return self.values is not None or self.text is not None

    def line(self) -> str:
        """Give the leaf as one line of JSON, without what it has not."""
        present: dict[str, Any] = {name: value for name in _KEYS if (value := getattr(self, name)) is not None}
        if self.statistics:
            present["statistics"] = [_members(one) for one in self.statistics]
        return _LINE.encode(present)


_KEYS = ("digest", "dtype", "kind", "length", "path", "shape", "text", "values", "why")  # all but statistics
_LINE = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """The leaves that are not listed: how many, and one digest of them all (comparators/fingerprint.py)."""

    leaves: int
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """The leaves of a file with this ``sha256`` and ``size`` in bytes, as ``reader`` gave them.

    ``versions`` are those of what read it, by name (``preserve``'s own is that of its readers); ``obstacle`` says why
    it could not be read: then nothing but its bytes' digest is known, and ``missing`` names the Python module that
    somebody has to install. ``shortened`` counts leaves that are known by their digest only because the fingerprint
    would be too large, ``rest`` stands for leaves that are not even listed for that reason.
    """

    sha256: Digest
    size: int
    reader: str
    versions: Mapping[str, str] = field(default_factory=dict)
    obstacle: str | None = None
    missing: str | None = None
    shortened: int = 0
    rest: Rest | None = None
    leaves: tuple[LeafPrint, ...] = ()

    def to_bytes(self) -> bytes:
        """Give the bytes of the fingerprint's file."""
        head = {"schema": SCHEMA, **jsonform.members(self), "rest": self.rest and jsonform.members(self.rest)}
        del head["leaves"]
        lines = [f"  {json.dumps(name)}: {_written(head[name])},\n" for name in sorted(head)]
        leaves = ",\n".join("    " + leaf.line() for leaf in self.leaves)
        opened = f'  "leaves": [\n{leaves}\n  ]\n' if leaves else '  "leaves": []\n'
        return ("{\n" + "".join(lines) + opened + "}\n").encode()


def read_fingerprint(data: bytes, file: str) -> Fingerprint:
    """Read a fingerprint.

    Raises:
        UserError: it is too large, damaged, of another version, or not in the one form that fingerprints have.
    """
    if len(data) > MAX_BYTES:
        raise UserError(f"{file}: has {len(data)} bytes, a fingerprint has at most {MAX_BYTES}")
    value = jsonform.load(data, file, schema=SCHEMA)
    value.pop("schema")
    try:
        found = Fingerprint(
            **{
                **value,
                "sha256": Digest(value["sha256"]),
                "rest": _rest(value["rest"]),
                "leaves": tuple(_leaf(leaf) for leaf in value["leaves"]),
            }
        )
        problem = next(_problems(typed(found)), None)
        if problem is None and found.to_bytes() != data:
            problem = "is not in the form that preserve writes"
    except (KeyError, TypeError, ValueError, AttributeError, PreserveError) as error:
        raise UserError(f"{file}: damaged: {error}") from error
    if problem is not None:
        raise UserError(f"{file}: {problem}")
    return found


def _members(statistics: Statistics) -> dict[str, Any]:
    present = {field.name: getattr(statistics, field.name) for field in fields(statistics)}
    return {name: value for name, value in present.items() if value not in (None, "", 0) or name == "n"}


def _written(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _rest(value: dict[str, Any] | None) -> Rest | None:
    return None if value is None else Rest(**{**value, "digest": Digest(value["digest"])})


def _leaf(value: dict[str, Any]) -> LeafPrint:
    read: dict[str, Any] = {name: tuple(value[name]) for name in ("shape", "values") if name in value}
    if "digest" in value:
        read["digest"] = Digest(value["digest"])
    if "statistics" in value:
        read["statistics"] = tuple(Statistics(**one) for one in value["statistics"])
    return LeafPrint(**{**value, **read})


def _problems(found: Fingerprint) -> Iterator[str]:
    if found.size < 0 or found.shortened < 0 or (found.rest is not None and found.rest.leaves < 1):
        yield "has a size or a count that cannot be"
    if found.obstacle is not None and (found.leaves or found.rest):
        yield "has leaves of a file that could not be read"
    before = None
    for leaf in found.leaves:
        if before is not None and leaf.path <= before:
            yield f"{leaf.path[:80]!a} does not stand in its place: paths are sorted, each comes once"
        before = leaf.path
        yield from (f"{leaf.path[:80]!a} {problem}" for problem in _problems_of_leaf(leaf))


def _problems_of_leaf(leaf: LeafPrint) -> Iterator[str]:
    if leaf.kind not in KINDS:
        yield f"is of the kind {leaf.kind!a}, which leaves have not"
        return
    if len(leaf.path) > MOST_WORDS or len(leaf.why or "") > MOST_WORDS:
        yield f"has a path or a reason of more than {MOST_WORDS} characters"
    present = frozenset(name for name in _KEYS if getattr(leaf, name) is not None) - {"path", "kind"}
    present |= {"statistics"} if leaf.statistics else frozenset()
    if present not in _FORMS[leaf.kind]:
        yield f"has {', '.join(sorted(present)) or 'nothing'}, which says too little or too much of its kind"
    if leaf.length is not None and leaf.length < 0:
        yield "has a length below zero"
    if leaf.dtype is not None and not _TYPE.fullmatch(leaf.dtype):
        yield f"has a type that numpy has not: {leaf.dtype[:80]!a}"
    if any(length < 0 for length in leaf.shape or ()) or len(leaf.shape or ()) > _MOST_DIMENSIONS:
        yield "has a shape that no array has"
    elif leaf.values is not None and (problem := _problem_of_values(leaf, leaf.values)):
        yield problem
    yield from (fault for one in leaf.statistics if (fault := _problem_of_statistics(one)) is not None)


_ARRAY = frozenset({"dtype", "shape", "digest"})
_UNLOADED = frozenset({"why"})
_FORMS: Mapping[str, tuple[frozenset[str], ...]] = {
    "num": (frozenset({"dtype", "shape", "values"}), _ARRAY, _ARRAY | {"statistics"}, _UNLOADED),
    "pixels": (_ARRAY, _UNLOADED),
    "text": (frozenset({"text"}), frozenset({"digest", "length"}), _UNLOADED),
    "volatile": (frozenset({"text"}), frozenset({"digest", "length"}), _UNLOADED),
    "opaque": (frozenset({"digest"}), _UNLOADED),
    "unreadable": (_UNLOADED, frozenset({"why", "digest"})),
}


def _problem_of_values(leaf: LeafPrint, values: tuple[Value, ...]) -> str | None:
    """Say why the values are not just what an array of this type and shape holds."""
    dtype = leaf.dtype or ""
    if dtype not in PACKED:
        return f"has values of a type that is not kept whole: {dtype!a}"
    if len(values) > 2 * WHOLE_NUMBERS:
        return f"has more than {WHOLE_NUMBERS} values"
    if len(values) != math.prod(leaf.shape or ()) * (2 if dtype.startswith("<c") else 1):
        return f"has {len(values)} values for its shape {leaf.shape}"
    form = struct.Struct("<" + PACKED[dtype])
    wanted: Any = bool if dtype == "|b1" else float if dtype[1] in "fc" else int
    for value in values:
        number = float(value) if wanted is float and value in INFINITE and isinstance(value, str) else value
        if type(number) is not wanted or not _fits(form, number):
            return f"has a value that is none of {dtype}: {str(value)[:80]!a}"
    return None


def _fits(form: struct.Struct, number: Value) -> bool:
    try:
        (again,) = form.unpack(form.pack(number))
    except (struct.error, OverflowError):
        return False
    return bool(again == number or (again != again and number != number))  # noqa: PLR0124  (NaN)


def _problem_of_statistics(one: Statistics) -> str | None:
    if one.n < 0 or one.nan < 0 or one.infinite < 0 or one.nan + one.infinite > one.n:
        return "has statistics with a count that cannot be"
    for number in (one.sum, one.min, one.max):
        if number is not None and not _NUMBER.fullmatch(number):
            return f"has statistics with what is no number: {number[:80]!a}"
    return None
