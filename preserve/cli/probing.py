"""The command probe: what was found as a table, as JSON, or as rules to paste under results:."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from preserve.cli.printing import folder_of, safe, say, settings_of, tell
from preserve.cli.progress import Lines
from preserve.documents.counted import counted

if TYPE_CHECKING:
    from preserve.documents.probe import Finding, Movement, Probe, ProbedStep

SHOWN = 3  # movements of a finding that the table shows


def probe(arguments: argparse.Namespace) -> int:
    """Probe steps of the last run."""
    from preserve.documents.calibration import proposed_rules  # noqa: PLC0415
    from preserve.operations.probe import probe  # noqa: PLC0415

    with Lines(quiet=arguments.quiet) as progress:
        found, steps = probe(
            folder_of(arguments),
            settings_of(arguments),
            tuple(arguments.steps),
            progress=progress,
            say=lambda text: say(arguments, text),
        )
    if arguments.json:
        tell(json.loads(found.to_bytes()))
    elif arguments.calibrate:
        print(safe(proposed_rules(found)), end="")
    else:
        print("\n".join(safe(line) for line in _lines(found, steps)))
    return 1 if any(step.findings for step in steps) else 0


def _lines(found: Probe, steps: tuple[ProbedStep, ...]) -> list[str]:
    width = max(len(step.step) for step in steps)
    lines = [line for step in steps for line in _step_lines(step, width)]
    names = {finding.variation for step in steps for finding in step.findings}
    if results := [finding for finding in found.results if finding.variation in names]:
        lines.append("what that does to the results")
        lines += [line for finding in results for line in _finding_lines(finding, 2)]
    lines += _untried_lines(steps)
    moving = [step.step for step in steps if step.findings]
    steady = f"reproducible: nothing moved in {counted(len(steps), 'step')}"
    lines.append(f"not reproducible: {', '.join(moving)}" if moving else steady)
    return lines


def _step_lines(step: ProbedStep, width: int) -> list[str]:
    packets = counted(step.network_attempts or 0, "packet")
    calls = f", tried to reach the network ({packets})" if step.network_attempts else ""
    state = "MOVES" if step.findings else "steady"
    runs = f"{counted(step.runs, 'run')}, {counted(len(step.tried), 'variation')}"
    lines = [f"{step.step:{width}}  {state}  ({runs}{calls})"]
    return lines + [line for finding in step.findings for line in _finding_lines(finding, 4)]


def _finding_lines(finding: Finding, indent: int) -> list[str]:
    notes = [note for note, holds in (("the same in every run of preserve", finding.held),) if holds]
    if not finding.confirmed:
        notes.append("once, not the second time")
    aside = f" [{'; '.join(notes)}]" if notes else ""
    head = f"{'':{indent}}{finding.variation}: {finding.setting}{aside}"
    if finding.failure is not None:
        return [head, f"{'':{indent}}    fails: {finding.failure}"]
    shown = [f"{'':{indent}}    {_movement(one)}" for one in finding.movements[:SHOWN]]
    more = len(finding.movements) + finding.more - len(shown)
    return [head, *shown, *([f"{'':{indent}}    and {more} more"] if more else [])]


def _movement(one: Movement) -> str:
    place = f"{one.product}:{one.leaf}" if one.leaf else one.product
    if one.kind != "numbers":
        return f"{place} {'differs' if one.kind == 'content' else f'is {one.kind}'}"
    relative = f" ({one.max_rel:.1e} of its value)" if one.max_rel is not None else ""
    return f"{place} moves by {one.max_abs:.1e}{relative}" if one.max_abs is not None else f"{place} moves"


def _untried_lines(probed: tuple[ProbedStep, ...]) -> list[str]:
    """Give what could not be tried, each reason once, with the steps when it does not concern all."""
    steps: dict[tuple[str, str], list[str]] = {}
    for step in probed:
        for one in step.untried:
            steps.setdefault((one.variation, one.reason), []).append(step.step)
    return [
        f"not tried: {variation}: {reason}" + ("" if len(names) == len(probed) else f" ({', '.join(names)})")
        for (variation, reason), names in steps.items()
    ]
