"""How a value is written into a script for sh, so that it stays one inert word; ``quoting`` says where it stands.

Where that can't be told, only a value that is plain in every context is accepted.
"""

from __future__ import annotations

import re

from preserve.documents.quoting import ESCAPED, Spot

_PLAIN = re.compile(r"[A-Za-z0-9_./+=:,@%-]*")
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./+:@%-]+")
_KEYWORDS = frozenset(
    [
        "if",
        "then",
        "else",
        "elif",
        "fi",
        "do",
        "done",
        "case",
        "esac",
        "while",
        "until",
        "for",
        "in",
        "function",
        "select",
        "time",
        "coproc",
    ]
)


class Unfit(ValueError):
    """A value that can't be written at its place; the text says why."""


def write(value: str, spot: Spot) -> str:
    """Write ``value`` as sh source that is this value, as (part of) one word, at ``spot``.

    Raises:
        Unfit: it can't be done there.
    """
    match spot.kind:
        case "bare":
            plain = spot.may_be_plain and _PLAIN_WORD.fullmatch(value) and value not in _KEYWORDS
            return value if plain else "'" + value.replace("'", "'\\''") + "'"
        case "single":
            return value.replace("'", "'\\''")
        case "double":
            return ('""' if spot.after_name else "") + re.sub(r'([\\"$`])', r"\\\1", value)
        case "comment":
            if not value.isprintable():
                raise Unfit("it has more than one line, and this is a comment")
            return value
        case _:
            return _write_unsure(value, spot)


def write_list(values: tuple[str, ...], spot: Spot) -> str:
    """Write each of ``values`` as a word of its own.

    Raises:
        Unfit: the place is inside quotes, or part of a word.
    """
    if spot.kind != "bare":
        raise Unfit(f"it is a list, and this is {spot.reason}")
    if not spot.alone:
        raise Unfit("it is a list, and this is a part of a word")
    return " ".join(write(value, spot) for value in values)


def _write_unsure(value: str, spot: Spot) -> str:
    if spot.reason == ESCAPED or spot.after_name:
        raise Unfit(f"it stands {ESCAPED if spot.reason == ESCAPED else 'directly after a $name'}")
    if not _PLAIN.fullmatch(value):
        raise Unfit(f"this is {spot.reason}, where only letters, digits and _./+=:,@%- are safe")
    if spot.delimiter is not None and (value in spot.delimiter if value else spot.bare_line):
        raise Unfit("it could end the here-document")
    return value
