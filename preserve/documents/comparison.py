"""The outcome of comparing two sets of results: verdicts, and the document that ``--json`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA = "preserve/comparison/1"
ORDER = ("identical", "equivalent", "tolerated", "compatible", "different")  # the worst wins, to the right
VERDICTS = ("excluded", *ORDER, "uncomparable", "extra", "missing")  # excluded says nothing; the last three never pass
RECAST = "recast"


def worst(verdicts: Iterable[str], *, least: str) -> str:
    """Give the worst of some verdicts; ``least`` where there is none worse."""
    return max((*verdicts, least), key=badness)


def badness(verdict: str) -> int:
    """Rank a verdict: the larger, the worse."""
    return VERDICTS.index(verdict)


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
class Change:
    """What is not the same about two executions: of ``steps``, ``what`` (``engine``, ``CPU``), and both values."""

    steps: tuple[str, ...]
    what: str
    recorded: str
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A variation that, by the archived probe, moves the result ``path`` in the same way (preserve probe)."""

    path: str
    variation: str
    setting: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All results; and where a difference may come from.

    ``recast``: something was replaced on purpose, so that this is no test of reproduction. ``changes``: what else
    differs between the two executions; ``begins_in``: the steps that read the same files and made others;
    ``causes``: what an archived probe knows to move a result like this.
    """

    results: tuple[Judged, ...]
    recast: bool = False
    changes: tuple[Change, ...] = ()
    begins_in: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()

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
        return worst(counting, least="excluded") if counting else "uncomparable"

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
        return {
            "schema": SCHEMA,
            "passed": self.passed,
            "verdict": self.verdict,
            "results": rows,
            "changes": [
                {"steps": list(c.steps), "what": c.what, "recorded": c.recorded, "found": c.found} for c in self.changes
            ],
            "begins_in": list(self.begins_in),
            "causes": [{"path": c.path, "variation": c.variation, "setting": c.setting} for c in self.causes],
        }


def passes(verdict: str, wanted: str) -> bool:
    """Whether a verdict is as good as what is asked for; *uncomparable*, *missing* and *extra* never are."""
    if wanted == "advisory" or verdict == "excluded":
        return True
    return verdict in ORDER and ORDER.index(verdict) <= ORDER.index(wanted)
