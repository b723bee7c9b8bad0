"""Two files written and judged, as replay and diff do it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from preserve.comparators.choosing import choose, read_leaves
from preserve.comparators.comparing import compare_files, sides_of
from preserve.comparators.judging import Compared, judge
from preserve.comparators.leaves import Leaf, Limits
from preserve.documents.comparison import Judged
from preserve.documents.policy import Policy, Rule

Content = bytes | str | Callable[[Path], Any]


def judged(
    name: str, recorded: Content, found: Content, policy: Policy | None = None, limits: Limits | None = None
) -> Judged:
    """Judge one pair of files called ``name``."""
    policy = policy or Policy()
    with tempfile.TemporaryDirectory() as scratch:
        files = [write(Path(scratch) / side / name, content) for side, content in (("a", recorded), ("b", found))]
        facts = compare_files(sides_of(name, *files), limits or Limits(), read_equal=bool(policy.rules))
        [result] = judge([Compared(path=name, declared=name, facts=facts, policy=policy)])
    return result


def write(path: Path, content: Content) -> Path:
    """Write a file, or let ``content`` do it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def leaves(name: str, content: Content, limits: Limits | None = None) -> dict[str, Leaf]:
    """All leaves of a file; what needs it later is loaded from memory or not at all."""
    with tempfile.TemporaryDirectory() as scratch:
        file = write(Path(scratch) / name, content)
        return read_leaves(choose(file, name), file, limits or Limits())


def loosened(match: str, require: str = "tolerated", **looser: Any) -> Policy:
    """A policy of one rule."""
    return Policy(require=require, rules=(Rule(match=match, because="for the test", **looser),))
