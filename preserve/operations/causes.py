"""Which variations of a probe move results in the same way as they moved here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from preserve.documents.comparison import Cause, Judged
from preserve.documents.probe import Movement, Probe, explanations

MOST = 3  # variations named for a result: the closest


def causes(results: Sequence[Judged], probe: Probe | None) -> tuple[Cause, ...]:
    """Give, for each result that moved, the variations that moved it alike; what every run holds fixed is none."""
    if probe is None:
        return ()
    return tuple(cause for result in results for cause in _of_result(result, probe))


def _of_result(result: Judged, probe: Probe) -> Iterator[Cause]:
    moved = [_movement(result.path, row) for row in result.facts.get("differences", ())]
    alike = [finding for finding in explanations(probe, result.path, moved) if not finding.held]
    for finding in alike[:MOST]:
        yield Cause(path=result.path, variation=finding.variation, setting=finding.setting)


def _movement(path: str, row: Mapping[str, Any]) -> Movement:
    numbers = row.get("numbers")
    if numbers is None or numbers["broken"]:
        kind = row["state"] if row["state"] in ("missing", "extra") else "content"
        return Movement(product=path, leaf=row["path"], kind=kind)
    return Movement(
        product=path,
        leaf=row["path"],
        kind="numbers",
        max_abs=_finite(numbers["max_abs"]),
        max_rel=_finite(numbers["max_rel"]),
    )


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None  # what is not finite stands there as a text
