"""Take keys, texts, numbers and lists out of a YAML tree, and complain about what is not what it should be."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from preserve.documents.faults import Faults, Place
from preserve.documents.workflow import Scalar
from preserve.documents.yaml12 import BrokenNode, ListNode, MapNode, Node, NotAScalar, ScalarNode, resolve


def entries(node: Node | None, what: str, faults: Faults, *, hint: str | None = None) -> dict[str, Node]:
    """Entries of a mapping whose keys the author chooses; ``what`` names it in the fault (``images``)."""
    return {key.text: value for key, value in keyed(node, what, faults, hint=hint)}


def keyed(
    node: Node | None, what: str, faults: Faults, *, hint: str | None = None
) -> tuple[tuple[ScalarNode, Node], ...]:
    """Entries of a mapping with the nodes of their keys."""
    if isinstance(node, MapNode):
        return node.entries
    if node is not None and not isinstance(node, BrokenNode):
        faults.add(node, f"{what} must be a mapping (key: value), found {kind(node)}", hint)
    return ()


def record(
    node: Node, what: str, faults: Faults, *, known: Collection[str], required: Collection[str] = ()
) -> Mapping[str, Node]:
    """Entries of a mapping whose keys are fixed; unknown and missing ones are complained about."""
    found: dict[str, Node] = {}
    for key, value in keyed(node, what, faults, hint=f"its keys are: {', '.join(known)}"):
        if key.text in known:
            found[key.text] = value
        else:
            hint = faults.suggest(key.text, known, f"the keys of {what} are: {', '.join(known)}")
            faults.add(key, f'unknown key "{key.text}" in {what}', hint)
    if isinstance(node, MapNode):
        for key_name in required:
            if key_name not in found:
                faults.add(node, f'{what}: the key "{key_name}" is missing', f"add {key_name}: …")
    return found


def items(node: Node | None, what: str, faults: Faults) -> tuple[Node, ...]:
    """Items of a list."""
    if isinstance(node, ListNode):
        return node.items
    if node is not None and not isinstance(node, BrokenNode):
        hint = f"write [{node.text}]" if isinstance(node, ScalarNode) and _short(node) else "write a list: [a, b]"
        faults.add(node, f"{what} must be a list, found {kind(node)}", hint)
    return ()


def scalar(node: Node, what: str, faults: Faults) -> Scalar | None:
    """Value of a scalar; ``None`` if there is none, which is complained about."""
    if isinstance(node, BrokenNode):
        return None
    if not isinstance(node, ScalarNode):
        faults.add(node, f"{what} must be a single value, found {kind(node)}", "write one text, number, true or false")
        return None
    try:
        value = resolve(node)
    except NotAScalar as error:
        faults.add(node, f"{what}: {error}", "write a finite number, or a text in quotes")
        return None
    if value is None:
        faults.add(node, f"{what} has no value", 'write one; an empty text is ""')
    return value


def text(node: Node | None, what: str, faults: Faults) -> str | None:
    """Give a text that is not empty; a number or ``true`` that stands for one must be put in quotes."""
    if node is None:
        return None
    value = scalar(node, what, faults)
    if value is None or not isinstance(node, ScalarNode):
        return None
    if not isinstance(value, str):
        faults.add(node, f"{what} must be a text, and {node.text} is {kind(node)}", f'put it in quotes: "{node.text}"')
        return None
    if not value.strip():
        faults.add(node, f"{what} is empty", "write something, or leave the key out")
        return None
    return value


def line(node: Node | None, what: str, faults: Faults) -> str | None:
    """Give a text of one line."""
    value = text(node, what, faults)
    if value is not None and node is not None and not value.strip("\n").isprintable():
        faults.add(node, f"{what} must be one line of printable text", "remove line breaks and tabs")
        return None
    return value.strip() if value else None


def flag(node: Node | None, what: str, faults: Faults) -> bool:
    """``true`` or ``false``; absent means ``false``."""
    if node is None:
        return False
    value = scalar(node, what, faults)
    if value is not None and not isinstance(value, bool):
        faults.add(
            node,
            f"{what} must be true or false, found {kind(node)}",
            "write true or false: in YAML 1.2, yes and no are texts",
        )
    return value is True


def integer(node: Node | None, what: str, faults: Faults, *, least: int) -> int | None:
    """Whole number of at least ``least``."""
    value = None if node is None else scalar(node, what, faults)
    if node is None or value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        faults.add(node, f"{what} must be a whole number, {least} or more", "write it without quotes and unit")
        return None
    return value


def number(node: Node | None, what: str, faults: Faults) -> float | None:
    """Give a number that is not negative."""
    value = None if node is None else scalar(node, what, faults)
    if node is None or value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0:
        faults.add(node, f"{what} must be a number, 0 or more", "write it without quotes: 1.0e-6")
        return None
    return float(value)


def chosen(node: Node | None, what: str, faults: Faults, choices: Collection[str]) -> str | None:
    """One of ``choices``."""
    value = text(node, what, faults)
    if value is not None and value not in choices and node is not None:
        hint = faults.suggest(value, choices, f"it is one of: {', '.join(choices)}")
        faults.add(node, f'{what}: "{value}" is unknown', hint)
        return None
    return value


def kind(node: Place) -> str:
    """What a node is, in words."""
    if isinstance(node, ScalarNode):
        return _kind_of_scalar(node)
    names = {MapNode: "a mapping", ListNode: "a list"}
    return next((name for sort, name in names.items() if isinstance(node, sort)), "something refused")


def _kind_of_scalar(node: ScalarNode) -> str:
    try:
        value = resolve(node)
    except NotAScalar:
        return "no finite number"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a boolean"
    return "a text" if isinstance(value, str) else "a number"


def _short(node: ScalarNode) -> bool:
    return not node.style and 0 < len(node.text) < 40
