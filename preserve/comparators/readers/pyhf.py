"""pyhf workspaces: statistical models as JSON, where the order of channels, samples and modifiers says nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preserve.comparators.leaves import Leaf, Limits, TooMuch, Unreadable
from preserve.comparators.making import document, kept, number, read_text, text

_BY_NAME = ("channels", "samples", "observations", "measurements", "parameters")
_EXACT = 1 << 53  # the largest whole number below which every one is exactly a double


class Pyhf:
    """Numbers by the names that lead to them: ``channels/SR/samples/Z/modifiers/lumi[normsys]/data/hi``."""

    name = "pyhf"

    def sniff(self, head: bytes, name: str) -> int:
        """Sure if the words of a workspace are near its beginning."""
        words = (b'"channels"', b'"samples"')
        return 93 if head.lstrip().startswith(b"{") and all(word in head for word in words) else 0

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the leaves of a workspace (or of any other JSON, whose lists then keep their order).

        Raises:
            TooMuch: a limit was passed.
            Unreadable: it is not JSON, or says something twice.
        """
        return kept(_flat("", _parsed(read_text(file, limits)), limits.depth), limits)


def _parsed(content: str) -> Any:
    try:
        return json.loads(content, object_pairs_hook=_object)
    except RecursionError as error:
        raise TooMuch("nested too deeply") from error
    except ValueError as error:
        raise Unreadable(f"is not JSON: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Unreadable("an object of this JSON has a name twice")
    return made


def _flat(path: str, value: Any, depth: int) -> Iterator[Leaf]:
    if depth < 0:
        raise TooMuch(f"nested too deeply at {path[:80]}")
    if isinstance(value, dict):
        if not value:
            yield document(path, value)
        for name, inner in value.items():
            yield from _flat(f"{path}/{_escaped(name)}" if path else _escaped(name), inner, depth - 1)
    elif isinstance(value, list):
        yield from _list(path, value, depth)
    elif _is_number(value):
        yield number(path, float(value))
    else:
        yield document(path, value)


def _list(path: str, value: list[Any], depth: int) -> Iterator[Leaf]:
    last = path.rpartition("/")[2]
    if value and all(_is_number(one) for one in value):
        yield number(path, [float(one) for one in value])
        return
    yield text(f"{path}:length", str(len(value)))
    named = last in (*_BY_NAME, "modifiers") and all(isinstance(one, dict) and "name" in one for one in value)
    for place, one in enumerate(value):
        key = _key(one, with_type=last == "modifiers") if named else f"[{place}]"
        yield from _flat(f"{path}/{key}", one, depth - 1)


def _key(value: dict[str, Any], *, with_type: bool) -> str:
    name = _escaped(str(value["name"]))
    return f"{name}[{value.get('type')}]" if with_type else name


def _escaped(name: str) -> str:
    """A name that holds no separator, as in JSON pointers (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _is_number(value: Any) -> bool:
    """Whether a double says it exactly: longer whole numbers are texts."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) < _EXACT
