"""How a result is to be judged: the rules under ``results:``, read from the plan (docs/reference/preserve-yaml.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from preserve.documents import jsonform
from preserve.documents.faults import Faults
from preserve.documents.rules import read_results
from preserve.documents.yaml12 import MapNode, decode, read_tree
from preserve.errors import UserError

DEFAULT_REQUIRE = "equivalent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistical:
    """A test that two sets of entries are of one distribution.

    ``alpha``: probability of a false alarm over the whole analysis (Holm); ``max_yield_shift``: largest relative
    change of the sum that is allowed whatever the test says.
    """

    test: str
    alpha: float
    max_yield_shift: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    r"""What is looser than exact for the leaves that ``match`` (a glob on leaf paths) names, and why.

    A number passes if it is off by at most max(``atol``, ``rtol`` · abs(recorded)), or by at most ``ulp`` units in the
    last place; ``exclude``: not compared at all.
    """

    match: str
    rtol: float = 0.0
    atol: float = 0.0
    ulp: int = 0
    statistical: Statistical | None = None
    exclude: bool = False
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """How far two images may differ: levels (0 to 255) that do not count, and the fraction of pixels that may."""

    level: int
    fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All that a result is judged by. ``command`` is a dumper to run in the step's own image."""

    require: str = DEFAULT_REQUIRE
    rules: tuple[Rule, ...] = ()
    pixels: Pixels | None = None
    command: tuple[str, ...] = ()
    because: str | None = None


def read_policy(rule: str | None) -> Policy:
    """Read a result's rule as the plan has it (canonical JSON); ``None``: nothing was declared.

    Raises:
        UserError: it is not of that form.
    """
    if rule is None:
        return Policy()
    value = jsonform.load(rule.encode(), "the rule of a result")
    try:
        return Policy(
            require=str(value.get("require", DEFAULT_REQUIRE)),
            rules=tuple(_rule(one) for one in value.get("rules", ())),
            pixels=Pixels(**value["pixels"]) if "pixels" in value else None,
            command=tuple(str(part) for part in value.get("command", ())),
            because=value.get("because"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the rule of a result cannot be read: {error}") from error


def read_policies(data: bytes, file: str) -> dict[str, Policy]:
    """Read a file of the form of ``results:`` in preserve.yaml (with or without that key), by result.

    Raises:
        DocumentError: all that is wrong with it.
    """
    faults = Faults(file)
    tree = read_tree(decode(data, faults), faults)
    if isinstance(tree, MapNode) and [key.text for key, _ in tree.entries] == ["results"]:
        tree = tree.entries[0][1]
    found = read_results(tree, faults)
    faults.raise_any()
    return {path: read_policy(rule.text) for path, rule in found.items()}


def _rule(value: dict[str, Any]) -> Rule:
    statistical = value.get("statistical")
    return Rule(
        match=str(value["match"]),
        rtol=float(value.get("rtol", 0)),
        atol=float(value.get("atol", 0)),
        ulp=int(value.get("ulp", 0)),
        statistical=Statistical(**statistical) if statistical is not None else None,
        exclude=bool(value.get("exclude", False)),
        because=str(value["because"]),
    )
