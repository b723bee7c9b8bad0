"""Numbers of things as people read them: one place for "1 step, 2 steps" and "and 3 more"."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 job``, ``2 jobs``, ``0 jobs``; ``plural`` where an "s" does not make it."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def some(names: Sequence[str], shown: int) -> str:
    """The first ``shown`` names, and how many there are besides: ``a, b and 3 more``."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def counted_of(number: int, whole: int, noun: str) -> str:
    """A part of a whole, with its verb in the past: ``1 of 6 steps was``, ``6 of 6 steps were``."""
    return f"{number} of {counted(whole, noun)} {'was' if number == 1 else 'were'}"


def all_are(number: int, noun: str) -> str:
    """The whole, with its verb: ``all 7 steps are``, ``the only step is``."""
    return f"the only {noun} is" if number == 1 else f"all {number} {noun}s are"
