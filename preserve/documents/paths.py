"""Paths as they may stand in preserve.yaml, and patterns over them.

A path is relative to the folder of preserve.yaml; a folder ends with ``/``. Patterns know ``*``, ``?`` and ``[…]``
within a part, and ``**`` for any number of parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MAX_BYTES = 200  # an archive's paths have at most 240, of which its own folders need some
MAX_DOUBLE_STARS = 3
RESERVED = ("preserve.yaml", "preserve.lock")
OWN, GIT = ".preserve", ".git"  # folders that are not for an analysis' own files; git's nowhere: it obeys what is there

Check = Callable[[str], str | None]

_WILD = re.compile(r"[*?\[]")
_TOKEN = re.compile(r"\[[!^]?\]?[^\]]*\]|\*+|.", re.DOTALL)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def is_pattern(path: str) -> bool:
    """Whether ``path`` has wildcards."""
    return _WILD.search(path) is not None


def literal_prefix(pattern: str) -> str:
    """Give what every match of ``pattern`` begins with."""
    match = _WILD.search(pattern)
    return pattern[: match.start()] if match else pattern


def problem(path: str) -> tuple[str, str] | None:
    """Give what is wrong with a path or pattern and what would be right, or ``None``."""
    if not path:
        return "an empty path", "name a file, or a folder with / at its end"
    if _CONTROL.search(path):
        return f"the path {path!a} contains a control character", "use letters, digits and _.+=@- in names"
    if "\\" in path:
        return f'the path "{path}" contains a backslash', f'write "{path.replace(chr(92), "/")}"'
    if path.startswith(("/", "~")):
        return f'the path "{path}" is absolute', "write it relative to the folder of this file"
    return _problem_of_parts(path) or _problem_of_pattern(path)


def _problem_of_parts(path: str) -> tuple[str, str] | None:
    parts = path.removesuffix("/").split("/")
    if ".." in parts:
        return f'the path "{path}" leaves the folder (..)', "everything that a step uses lies below this file's folder"
    if "." in parts or "" in parts:
        right = "/".join(part for part in parts if part not in (".", ""))
        hint = f'write "{right}{"/" if path.endswith("/") else ""}"' if right else "name a folder below this one"
        return f'the path "{path}" has a part that is empty or "."', hint
    if (folder := closed(path)) is not None:
        return f'the path "{path}" is inside {folder}/', "that folder is not for an analysis' own files"
    if len(path.encode()) > MAX_BYTES:
        return f'the path "{path[:40]}…" has more than {MAX_BYTES} bytes', "use a shorter one"
    return None


def _problem_of_pattern(path: str) -> tuple[str, str] | None:
    if path.count("**") > MAX_DOUBLE_STARS:
        return f'the pattern "{path}" has ** more than {MAX_DOUBLE_STARS} times', "name the folders"
    if any("**" in part and part != "**" for part in path.split("/")):
        return f'in the pattern "{path}", ** is not a part of its own', "write **/ for any number of folders"
    if any(_unclosed(part) for part in path.split("/")):
        return f'the pattern "{path}" has a [ without ]', "close it: [ab] is one of these characters"
    try:
        compile_pattern(path)
    except re.error as error:
        return f'the pattern "{path}" can not be read: {error.msg}', "write a range from low to high: [a-z]"
    return None


def problem_of_product(path: str) -> tuple[str, str] | None:
    """Give what is wrong with the path of an output or result, or ``None``."""
    if found := problem(path):
        return found
    if is_pattern(path):
        return f'"{path}" is a pattern', "name one file, or the folder with / at its end"
    if path in RESERVED:
        return f'"{path}" is preserve\'s own file', "use another name"
    return None


def astray(path: str) -> str | None:
    """Why ``path`` cannot be a file (or, with ``/`` at its end, a folder) of an analysis, whatever its name is."""
    parts = path.removesuffix("/").split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        return f"the path {path!a} does not lead to a place below the analysis folder"
    if (folder := closed(path)) is not None:
        return f"the path {path!a} is inside {folder}/"
    return None


def closed(path: str) -> str | None:
    """Give the part of ``path`` that is a folder of preserve's or of git's, ``None`` where there is none."""
    first, *others = path.removesuffix("/").split("/")
    return next(
        (part for part in (first, *others) if part.casefold() == GIT), first if first.casefold() == OWN else None
    )


def unfit_value(value: str) -> str | None:
    """Why ``value`` can't be put into a path, or ``None``."""
    if is_pattern(value):
        return "it has wildcards, and this is a path"
    if value.endswith("/") or problem(value):
        return "it is not fit for a path"
    return None


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Regular expression for full matches of a pattern; it takes time linear in each part (atomic groups)."""
    parts = pattern.removesuffix("/").split("/")
    pieces = ["(?:[^/]+/)*" if part == "**" else _part(part) + "/" for part in parts[:-1]]
    pieces.append("(?:[^/]+/)*[^/]+" if parts[-1] == "**" else _part(parts[-1]))
    return re.compile("".join(pieces) + ("/" if pattern.endswith("/") else ""), re.DOTALL)


def _part(part: str) -> str:
    pieces = [""]
    for token in _TOKEN.findall(part):
        if token[0] == "*":
            pieces.append("")
        else:
            pieces[-1] += _one(token)
    if len(pieces) == 1:
        return pieces[0]
    return pieces[0] + "".join(f"(?>[^/]*?{piece})" for piece in pieces[1:-1]) + "[^/]*" + pieces[-1]


def _one(sign: str) -> str:
    if sign == "?":
        return "[^/]"
    if len(sign) == 1:
        return re.escape(sign)
    negated = sign[1] in "!^"
    inside = re.sub(r"([\\\[\]^&~|])", r"\\\1", sign[2 if negated else 1 : -1])
    inside = inside.replace("-", r"\-") if "--" in inside else inside
    return f"[{'^/' if negated else ''}{inside}]"


def _unclosed(part: str) -> bool:
    return "[" in _TOKEN.findall(part)
