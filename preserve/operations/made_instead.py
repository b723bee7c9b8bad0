"""What a step made in place of a product that is missing: often a name is misspelt, in preserve.yaml or in the step."""

from __future__ import annotations

from collections.abc import Iterable

from preserve.documents.counted import some
from preserve.documents.faults import nearest

SHOWN = 3  # names
LONGEST = 120  # characters of a name


def made_instead(missing: str, found: Iterable[str]) -> str:
    """Say which files a step left where its products belong, and which of them has nearly the name of ``missing``.

    Names are a stranger's: what does not print, or is not UTF-8, is shown as an escape.
    """
    names = sorted(shown(name) for name in found)
    if not names:
        return "it wrote no other file there"
    near = nearest(missing, names)
    if near is None:
        return f"it made {some(names, SHOWN)}"
    others = [name for name in names if name != near]
    besides = f", and {some(others, SHOWN)}" if others else ""
    return f"it made {near} (is one of the two names misspelt?){besides}"


def shown(name: str) -> str:
    """A file's name as it can be printed and stored, whatever its bytes are; ``é`` stays, ``ESC`` becomes ``\\x1b``."""
    text = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    text = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
