"""The outcome of comparing two sets of results: verdicts, and the document that ``--json`` prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA = "preserve/comparison/1"
ORDER = ("identical", "equivalent", "tolerated", "compatible", "different")  # the worst wins, to the right
OUTSIDE = ("excluded", "uncomparable", "extra", "missing")  # not on that scale; these are worse than any on it
REQUIRABLE = ("identical", "equivalent", "tolerated", "compatible", "advisory")
DEFAULT = "equivalent"
RECAST = "recast"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One result: ``verdict`` is what was found, ``required`` what the author asks for, ``passed`` whether that holds.

    ``reader`` names what looked at the file; ``facts`` are numbers and digests that stand whatever is required.
    """

    path: str
    verdict: str
    required: str
    passed: bool
    reader: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All results. ``recast``: something was replaced on purpose, so that this is no test of reproduction."""

    results: tuple[Judged, ...]
    recast: bool = False

    @property
    def passed(self) -> bool:
        """Whether every result is as good as its author asks."""
        return all(result.passed for result in self.results)

    @property
    def verdict(self) -> str:
        """The worst verdict of a result that counts; ``recast`` where something was replaced."""
        if self.recast:
            return RECAST
        counting = [r.verdict for r in self.results if r.required != "advisory"] or [r.verdict for r in self.results]
        return max(counting, key=(*ORDER, *OUTSIDE).index, default="uncomparable")

    def to_json(self) -> dict[str, Any]:
        """Give the document that ``--json`` prints."""
        rows = [
            {
                "path": r.path,
                "verdict": r.verdict,
                "required": r.required,
                "passed": r.passed,
                "reader": r.reader,
                "facts": dict(r.facts),
            }
            for r in self.results
        ]
        return {"schema": SCHEMA, "passed": self.passed, "verdict": self.verdict, "results": rows}


def required(rule: str | None) -> str:
    """What a result's rule (its canonical JSON in the plan; ``None``: no rule) asks for."""
    return DEFAULT if rule is None else str(json.loads(rule).get("require", DEFAULT))


def passes(verdict: str, wanted: str) -> bool:
    """Whether a verdict is as good as what is asked for; *uncomparable*, *missing* and *extra* never are."""
    if wanted == "advisory" or verdict == "excluded":
        return True
    return verdict in ORDER and ORDER.index(verdict) <= ORDER.index(wanted)
