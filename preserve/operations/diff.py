"""preserve diff: are two runs, archives, folders or files the same in what counts, and if not, what differs?"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from preserve.documents.changes import beginnings, changed_plan, changes
from preserve.documents.comparison import Change, Comparison
from preserve.documents.policy import Policy, read_policies
from preserve.errors import UserError
from preserve.operations.causes import causes
from preserve.operations.dumping import without_dumpers
from preserve.operations.folder import Folder
from preserve.operations.judged import Pair, declared_policy, judged
from preserve.operations.sides import Side, open_side


def diff(recorded: Path, found: Path, folder: Folder, *, policy: Path | None = None) -> Comparison:
    """Compare two things result by result; of plain folders, file by file. Nothing is run.

    The rules are those of the recorded side's plan (of the found one's, if only that has one); what the file
    ``policy`` says of a result takes their place. ``folder`` is where runs are looked for by name.

    Raises:
        UserError: there is no such thing; the policy is faulty, names no result, or a rule of it matches nothing.
        DigestMismatch: an archive is damaged.
    """
    replaced = _policies(policy)
    with ExitStack() as stack:
        one, other = open_side(recorded, folder, stack), open_side(found, folder, stack)
        pairs = _with_policies(_pairs(one, other), replaced)
        results = judged([without_dumpers(pair) for pair in pairs])
    return Comparison(
        results=results,
        changes=_changes(one, other),
        begins_in=beginnings(one.records, other.records),
        causes=causes(results, one.probe or other.probe),
    )


def _changes(one: Side, other: Side) -> tuple[Change, ...]:
    start = changed_plan(one.plan, other.plan) if one.plan and other.plan else ()
    return start + (changes(one.records, other.records) if one.records and other.records else ())


def _policies(file: Path | None) -> Mapping[str, Policy]:
    if file is None:
        return {}
    try:
        return read_policies(file.read_bytes(), str(file))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error


def _pairs(recorded: Side, found: Side) -> list[Pair]:
    """Pair files by path; of two plain files, whatever they are called."""
    if recorded.plan is None and found.plan is None and len(recorded.files) == len(found.files) == 1:
        found = replace(found, files=dict(zip(recorded.files, found.files.values(), strict=True)))
    plan = recorded.plan or found.plan
    pairs = []
    for path in _paths(recorded, found):
        declared, policy = declared_policy(plan, path) if plan is not None else (path, Policy())
        one, other = recorded.files.get(path), found.files.get(path)
        pairs.append(Pair(path=path, declared=declared, policy=policy, recorded=one, found=other))
    return pairs


def _paths(recorded: Side, found: Side) -> list[str]:
    """All files; but where only one side has a plan, its results: the folder beside it may hold anything."""
    sides = [side for side in (recorded, found) if side.plan is not None] or [recorded, found]
    return sorted({path for side in sides for path in side.files})


def _with_policies(pairs: list[Pair], policies: Mapping[str, Policy]) -> list[Pair]:
    judged_by: dict[str, str] = {}
    for name in policies:
        named = [p.path for p in pairs if p.path == name or (name.endswith("/") and p.path.startswith(name))]
        if not named:
            shown = ", ".join(pair.path for pair in pairs[:8])
            raise UserError(f"the policy names {name}, which is not compared", hint=f"compared: {shown or 'nothing'}")
        judged_by |= {path: name for path in named if path == name or path not in judged_by}
    return [
        replace(pair, declared=judged_by[pair.path], policy=policies[judged_by[pair.path]])
        if pair.path in judged_by
        else pair
        for pair in pairs
    ]
