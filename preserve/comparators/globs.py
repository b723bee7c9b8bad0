"""Which leaves a rule names: globs on leaf paths (docs/reference/comparison.md)."""

from __future__ import annotations

import re
from collections.abc import Callable

from preserve.documents.paths import compile_pattern, is_pattern
from preserve.errors import UserError


def matcher(pattern: str) -> Callable[[str], bool]:
    """Give what says whether a leaf path fits ``pattern``.

    ``*``, ``?`` and ``[…]`` stay within a part between slashes; ``**`` stands for any number of parts. A slash at
    the beginning of either does not count. A path that is the pattern letter by letter fits too.

    Raises:
        UserError: it is no pattern.
    """
    wanted = pattern.removeprefix("/")
    if not is_pattern(wanted):
        return lambda path: path.removeprefix("/") == wanted
    try:
        expression = compile_pattern(wanted)
    except re.error as error:
        raise UserError(
            f"match: {pattern!r} is no pattern: {error}", hint="write [[] for a [ that stands there"
        ) from error
    return lambda path: path == pattern or expression.fullmatch(path.removeprefix("/")) is not None
