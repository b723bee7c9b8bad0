"""A comparison as text for a terminal: results and their leaves, the worst first; then where differences come from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from preserve.documents.comparison import Change, Comparison, Judged, badness
from preserve.documents.counted import counted, some

LEAVES = 8  # leaves shown of a result
CHANGES = 20
SHOWN = 60  # characters of a text
SYMBOLS = {True: "ok", False: "NOT OK"}
REPLAYED = {True: "reproduced", False: "NOT reproduced"}
COMPARED = {True: "as required", False: "NOT as required"}


def verdict_lines(comparison: Comparison, *, all_leaves: bool = False, replayed: bool = True) -> list[str]:
    """Give the lines: each result, what differs in it, and the verdict over all; ``replayed``: one is of a replay."""
    results = sorted(comparison.results, key=_worst_first)
    width = max((len(result.path) for result in results), default=0)
    lines = []
    for result in results:
        lines += [
            _result(result, width, judged=not comparison.recast),
            *_details(result, None if all_leaves else LEAVES),
        ]
    if any(result.verdict != "identical" for result in results):
        lines += explanation_lines(comparison)
    return [line.replace("\n", "\\n") for line in (*lines, summary(comparison, replayed=replayed))]


def summary(comparison: Comparison, *, replayed: bool = True) -> str:
    """Give the last line."""
    if comparison.recast:
        return "verdict: recast (something was replaced: this says nothing about reproduction)"
    judgement = (REPLAYED if replayed else COMPARED)[comparison.passed]
    return f"verdict: {comparison.verdict}: {judgement}"


def explanation_lines(comparison: Comparison) -> list[str]:
    """Say in which steps differences begin, and what is not the same about the two executions."""
    lines = [f"differences begin in: {', '.join(comparison.begins_in)}"] if comparison.begins_in else []
    lines += [f"{c.path} moves in the same way under {c.variation} ({c.setting})" for c in comparison.causes]
    if comparison.changes:
        lines.append("what differs between the two executions:")
        lines += [f"    {_change(change)}" for change in comparison.changes[:CHANGES]]
    if (more := len(comparison.changes) - CHANGES) > 0:
        lines.append(f"    and {more} more (--json has them)")
    return lines


def _worst_first(result: Judged) -> tuple[bool, int, str]:
    return result.passed, -badness(result.verdict), result.path


def _result(result: Judged, width: int, *, judged: bool) -> str:
    judgement = f"required: {result.required}" + (f"; {SYMBOLS[result.passed]}" if judged else "")
    return f"  {result.path:{width}}  {result.verdict:12} ({judgement}; read as {result.reader})"


def _details(result: Judged, most: int | None) -> Iterator[str]:
    facts = result.facts
    if obstacle := facts.get("obstacle"):
        yield f"      {_short(obstacle['reason'], 200)}"
        if obstacle["hint"]:
            yield f"      {obstacle['hint']}"
    for side, known in facts.get("fingerprints", {}).items():
        yield f"      the {side} file is not at hand: judged by its fingerprint{_other_versions(known)}"
    if facts.get("because") and result.verdict != "identical":
        yield f"      because: {facts['because']}"
    rows = facts.get("differences", [])
    shown = rows[:most] if most else rows
    width = max((len(row["path"]) for row in shown), default=0)
    for row in shown:
        yield f"      {row['path']:{width}}  {row['verdict']:12} {_row(row)}".rstrip()
        if row.get("because"):
            yield f"      {'':{width}}  {'':12} because: {row['because']}"
    counts = facts.get("leaves", {})
    different = counts.get("all", 0) - counts.get("equal", 0) - counts.get("volatile", 0)
    if different > len(shown):
        yield f"      and {counted(different - len(shown), 'more leaf', 'more leaves')}"
    yield from _not_compared(facts.get("coverage", {}))


def _other_versions(known: Mapping[str, Any]) -> str:
    """Say what it was taken with, where that is not what reads files here."""
    before = known["versions"]
    other = [f"{name} {before.get(name, 'none')}, here {here}" for name, here in known["versions_here"].items()]
    return f" (taken with {'; '.join(other)})" if other else ""


def _not_compared(coverage: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    if volatile := coverage.get("volatile"):
        yield f"      metadata that do not count differ: {', '.join(one['path'] for one in volatile[:4])}"
    if opaque := coverage.get("opaque"):
        yield f"      compared as bytes only: {', '.join(opaque[:4])}" + (", …" if len(opaque) > 4 else "")


def _row(row: Mapping[str, Any]) -> str:
    if tested := row.get("test"):
        text = f"p = {_number(tested['p_holm'])}, yield off by {_number(tested['yield_shift'])}"
        return f"{text}; {row['why']}" if row.get("why") else text
    if numbers := row.get("numbers"):
        beyond = f"{row['beyond']} beyond the rule" if row.get("beyond") and not row.get("why") else ""
        return "; ".join(part for part in (beyond, row.get("why"), _numbers(numbers)) if part)
    if row.get("why"):
        return str(row["why"])
    return f"{_quoted(row.get('recorded', ''))} was recorded, {_quoted(row.get('found', ''))} is found"


def _numbers(facts: Mapping[str, Any]) -> str:
    parts = [f"{facts['n_diff']} of {facts['n']}"]
    units = {"max_abs": "off by at most {}", "max_rel": "relatively {}", "max_ulp": "{} ulp"}
    parts += [text.format(_number(facts[key])) for key, text in units.items() if facts[key] is not None]
    if facts["broken"]:
        parts.append(f"{facts['broken']} with NaN or infinity on one side")
    if facts["worst"]:
        spot = facts["worst"][0]
        at = f" at {spot['at']}" if spot["at"] else ""
        parts.append(f"worst{at}: {_value(spot['recorded'])} was recorded, {_value(spot['found'])} is found")
    return ", ".join(parts)


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else str(value)


def _value(value: Any) -> str:
    return repr(value) if isinstance(value, int | float) else _short(str(value), SHOWN)


def _quoted(text: str) -> str:
    return json.dumps(_short(text, SHOWN), ensure_ascii=False)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _change(change: Change) -> str:
    where = f" ({some(change.steps, 4)})" if change.steps else ""
    return f"{change.what}: {_short(change.recorded, 200)} → {_short(change.found, 200)}{where}"
