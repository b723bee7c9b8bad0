"""Facts and a policy to verdicts: leaf by leaf, file by file, over all results. Nothing is read that facts tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from heapq import nsmallest
from typing import Any

import numpy as np

from preserve.comparators import choosing
from preserve.comparators.choosing import Obstructed
from preserve.comparators.comparing import Difference, FileFacts
from preserve.comparators.fingerprint import NOT_KEPT
from preserve.comparators.globs import matcher
from preserve.comparators.numbers import Array, NumberFacts, count_beyond, same_type
from preserve.comparators.statistics import Tested, Untestable, holm, outcome
from preserve.documents.comparison import Judged, passes, worst
from preserve.documents.fingerprint import Statistics
from preserve.documents.policy import Pixels, Policy, Rule, Statistical
from preserve.errors import UserError

MOST_ROWS = 1000  # differing leaves that are listed for a file; all are counted
BADNESS = ("uncomparable", "different", "compatible", "tolerated", "equivalent", "excluded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A result's facts, and the policy by which it is to be judged.

    ``declared`` is the name of the policy's entry under ``results:`` (the result itself, or a folder that holds it).
    """

    path: str
    declared: str
    facts: FileFacts
    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One leaf's verdict; ``beyond`` counts numbers that the rule does not cover."""

    difference: Difference
    verdict: str
    rule: Rule | None = None
    why: str = ""
    beyond: int | None = None
    tested: Tested | None = None
    p_holm: float | None = None


def judge(compared: Sequence[Compared]) -> tuple[Judged, ...]:
    """Judge results together: the correction for many statistical tests is over all of them.

    Raises:
        UserError: a rule matches no leaf, or is no pattern.
    """
    rows = [_rows(one) for one in compared]
    refuse_idle_rules(compared)
    family = [row for of_file in rows for row in of_file if row.tested is not None]
    equal = sum(_equal_under_test(one) for one in compared)  # tests as well, that came out with p = 1
    adjusted = holm([row.tested.p for row in family if row.tested is not None] + [1.0] * equal)
    p_of = {id(row): p for row, p in zip(family, adjusted, strict=False)}
    return tuple(
        _judged(one, [_decided(row, p_of.get(id(row))) for row in of_file])
        for one, of_file in zip(compared, rows, strict=True)
    )


def refuse_idle_rules(compared: Sequence[Compared]) -> None:
    """See that each rule matches a leaf of one of the files that it is for, as far as these could be read.

    Raises:
        UserError: it does not.
    """
    for declared in dict.fromkeys(one.declared for one in compared):
        group = [one for one in compared if one.declared == declared]
        if not all(one.facts.read for one in group):
            continue
        paths = [path for one in group for path in one.facts.paths]
        for rule in group[0].policy.rules:
            if not any(map(matcher(rule.match), paths)):
                shown = ", ".join(paths[:8]) + (", …" if len(paths) > 8 else "")
                raise UserError(
                    f"result {declared}: the rule with match: {rule.match!r} matches nothing in it",
                    hint=f"its leaves: {shown or 'none'}",
                )


def _rows(one: Compared) -> list[_Row]:
    rules = [(matcher(rule.match), rule) for rule in one.policy.rules]
    return [_row(difference, _first(rules, difference.path), one.policy) for difference in one.facts.differences]


def _first(rules: Sequence[tuple[Callable[[str], bool], Rule]], path: str) -> Rule | None:
    return next((rule for fits, rule in rules if fits(path)), None)


def _equal_under_test(one: Compared) -> int:
    rules = [(matcher(rule.match), rule) for rule in one.policy.rules]
    if not any(rule.statistical for _, rule in rules):
        return 0
    found = (_first(rules, path) for path in one.facts.equal)
    return sum(rule is not None and rule.statistical is not None for rule in found)


def _row(difference: Difference, rule: Rule | None, policy: Policy) -> _Row:
    if rule is not None and rule.exclude:
        return _Row(difference=difference, verdict="excluded", rule=rule)
    if difference.state == "volatile":
        return _Row(difference=difference, verdict="equivalent")
    if difference.state == "unreadable":
        return _Row(difference=difference, verdict="uncomparable", why=difference.why)
    if difference.statistics is not None:  # sums and extremes say that it moved, never that it moved little
        return _Row(difference=difference, verdict="uncomparable", rule=rule, why=_moved(*difference.statistics))
    try:
        return _loosened(difference, rule, policy)
    except Obstructed as obstructed:
        return _Row(difference=difference, verdict="uncomparable", rule=rule, why=obstructed.obstacle.reason)


def _moved(recorded: Sequence[Statistics], found: Sequence[Statistics]) -> str:
    """Say what is known of numbers that are not at hand."""
    moves = [
        f"{f'{one.part}: ' if one.part else ''}{what} {before} was recorded, {after} is found"
        for one, other in zip(recorded, found, strict=True)
        for what, before, after in _values(one, other)
        if before != after
    ]
    return f"{NOT_KEPT}: {', '.join(moves) or 'number, sum, min and max are the same'}"


def _values(one: Statistics, other: Statistics) -> Iterator[tuple[str, Any, Any]]:
    for what, name in (("sum", "sum"), ("min", "min"), ("max", "max"), ("number of NaN", "nan"), ("of ∞", "infinite")):
        yield what, getattr(one, name), getattr(other, name)


def _loosened(difference: Difference, rule: Rule | None, policy: Policy) -> _Row:
    """Judge a leaf that differs by what a rule, or the policy for pixels, lets pass."""
    if difference.kind == "pixels" and difference.state == "changed" and policy.pixels is not None:
        return _judged_pixels(difference, policy.pixels)
    if difference.kind == "num" and rule is not None:
        if rule.statistical is not None and difference.state in ("changed", "unlike"):
            return _judged_by_test(difference, rule, rule.statistical)
        if difference.state == "changed":
            return _judged_by_tolerance(difference, rule)
    return _Row(difference=difference, verdict="different", rule=rule, why=difference.why)


def _judged_by_tolerance(difference: Difference, rule: Rule) -> _Row:
    recorded, found = _loaded(difference)
    beyond = count_beyond(recorded, found, rtol=rule.rtol, atol=rule.atol, ulp=rule.ulp)
    return _Row(difference=difference, verdict="different" if beyond else "tolerated", rule=rule, beyond=beyond)


def _judged_by_test(difference: Difference, rule: Rule, wanted: Statistical) -> _Row:
    """Do the test; whether p is small enough is decided with all tests of the analysis."""
    recorded, found = _loaded(difference)
    if not same_type(recorded.dtype, found.dtype):
        return _Row(difference=difference, verdict="different", rule=rule, why=difference.why)
    try:
        done = outcome(wanted.test, recorded, found)
    except Untestable as error:
        return _Row(difference=difference, verdict="different", rule=rule, why=str(error))
    return _Row(difference=difference, verdict="compatible", rule=rule, tested=done)


def _decided(row: _Row, p: float | None) -> _Row:
    if row.tested is None or row.rule is None or row.rule.statistical is None or p is None:
        return row
    wanted = row.rule.statistical
    if row.tested.yield_shift > wanted.max_yield_shift:
        why = f"the yield is shifted by {row.tested.yield_shift:.3g}, more than {wanted.max_yield_shift:g}"
        return replace(row, verdict="different", p_holm=p, why=why)
    if p < wanted.alpha:
        why = f"{wanted.test}: p = {p:.3g} (after Holm's correction), less than {wanted.alpha:g}"
        return replace(row, verdict="different", p_holm=p, why=why)
    return replace(row, p_holm=p)


def _judged_pixels(difference: Difference, pixels: Pixels) -> _Row:
    recorded, found = _loaded(difference)
    apart = np.abs(recorded.astype(np.int16) - found.astype(np.int16)).max(axis=-1, initial=0)
    beyond = int(np.count_nonzero(apart > pixels.level))
    verdict = "tolerated" if beyond <= pixels.fraction * apart.size else "different"
    why = f"{beyond} of {apart.size} pixels are off by more than {pixels.level} levels"
    return _Row(difference=difference, verdict=verdict, beyond=beyond, why=why)


def _loaded(difference: Difference) -> tuple[Array, Array]:
    assert difference.recorded is not None and difference.found is not None  # noqa: S101  (what is judged by its numbers has both sides)
    both = choosing.load_both(difference.recorded, difference.found)
    assert both is not None  # noqa: S101  (they differ)
    return np.asarray(both[0]), np.asarray(both[1])


def _judged(one: Compared, rows: Sequence[_Row]) -> Judged:
    verdict = _verdict(one.facts, rows)
    required = one.policy.require
    return Judged(
        path=one.path,
        verdict=verdict,
        required=required,
        passed=passes(verdict, required),
        reader=one.facts.reader,
        facts=_facts(one, rows),
    )


def _verdict(facts: FileFacts, rows: Sequence[_Row]) -> str:
    if facts.found is None:
        return "missing"
    if facts.recorded is None:
        return "extra"
    if facts.same_bytes:
        return "identical"
    if facts.obstacle is not None:
        return "uncomparable"
    if not facts.equal and rows and all(row.verdict == "excluded" for row in rows):
        return "excluded"
    return worst([row.verdict for row in rows if row.verdict != "excluded"], least="equivalent")


def _facts(one: Compared, rows: Sequence[_Row]) -> dict[str, Any]:
    """Give what the document says of a result: both files, the leaves that differ, what was not compared."""
    facts = one.facts
    pins = {"recorded": facts.recorded, "found": facts.found}
    document: dict[str, Any] = {
        name: {"sha256": pin.sha256, "size": pin.size} for name, pin in pins.items() if pin is not None
    }
    if one.policy.because is not None:
        document["because"] = one.policy.because
    if facts.obstacle is not None:
        document["obstacle"] = {"reason": facts.obstacle.reason, "hint": facts.obstacle.hint}
    if facts.fingerprints:
        document["fingerprints"] = _in_json(facts.fingerprints)
    if facts.read:
        shown = nsmallest(MOST_ROWS, (row for row in rows if row.difference.state != "volatile"), key=_order)
        document["leaves"] = _counts(facts, rows)
        document["differences"] = [_row_document(row) for row in shown]
        document["coverage"] = _coverage(facts, rows)
    return document


def _counts(facts: FileFacts, rows: Sequence[_Row]) -> dict[str, int]:
    counts = {"all": len(facts.equal) + len(rows), "equal": len(facts.equal)}
    for row in rows:
        kind = "volatile" if row.difference.state == "volatile" else row.verdict
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def _coverage(facts: FileFacts, rows: Sequence[_Row]) -> dict[str, Any]:
    """Say what was not compared, or compared only as bytes."""
    volatile = [row.difference for row in rows if row.difference.state == "volatile"]
    return {
        "excluded": [
            {"path": row.difference.path, "because": row.rule.because}
            for row in rows[:MOST_ROWS]
            if row.verdict == "excluded" and row.rule is not None
        ],
        "volatile": [
            {"path": one.path, "recorded": (one.texts or ("", ""))[0], "found": (one.texts or ("", ""))[1]}
            for one in volatile[:MOST_ROWS]
        ],
        "opaque": list(facts.opaque[:MOST_ROWS]),
        "unreadable": [
            {"path": row.difference.path, "why": row.why} for row in rows[:MOST_ROWS] if row.verdict == "uncomparable"
        ],
    }


def _order(row: _Row) -> tuple[int, int, float, str]:
    numbers = row.difference.numbers
    size = float(numbers.max_rel or 0) if numbers is not None else 0.0
    return BADNESS.index(row.verdict), 0 if numbers is None or numbers.broken else 1, -size, row.difference.path


def _row_document(row: _Row) -> dict[str, Any]:
    one = row.difference
    document: dict[str, Any] = {"path": one.path, "kind": one.kind, "state": one.state, "verdict": row.verdict}
    if row.why:
        document["why"] = row.why
    if row.rule is not None:
        document["rule"] = row.rule.match
        document["because"] = row.rule.because
    if row.beyond is not None:
        document["beyond"] = row.beyond
    if row.tested is not None:
        document["test"] = _in_json({**asdict(row.tested), "p_holm": row.p_holm})
    if one.numbers is not None:
        document["numbers"] = _numbers(one.numbers)
    if one.texts is not None:
        document["recorded"], document["found"] = one.texts
    if one.statistics is not None:
        recorded, found = ([asdict(part) for part in side] for side in one.statistics)
        document["statistics"] = {"recorded": recorded, "found": found}
    return document


def _numbers(facts: NumberFacts) -> dict[str, Any]:
    document: dict[str, Any] = _in_json(asdict(facts))
    return document


def _in_json(value: Any) -> Any:
    """Give a value as JSON can have it: what is not finite as a text (inf, -inf, nan), what is no number as text."""
    if isinstance(value, Mapping):
        return {str(key): _in_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_in_json(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
