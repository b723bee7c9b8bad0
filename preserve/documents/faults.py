"""Collect everything that is wrong with a document, so that a person sees all of it at once."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable
from typing import Protocol

from preserve.errors import DocumentError, Fault

MAX_SUGGESTIONS = 20  # looking for a similar word is slow; nobody reads more of them
MAX_CANDIDATES = 200


class Place(Protocol):
    """Anything that knows where it stands; line and column count from 1."""

    @property
    def line(self) -> int:
        """Line in the file."""

    @property
    def column(self) -> int:
        """Column in the line, in characters."""


class Faults:
    """What is wrong with the document ``file``."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: list[Fault] = []
        self._places: set[tuple[int, int]] = set()
        self._suggestions = MAX_SUGGESTIONS

    def __len__(self) -> int:
        return len(self._found)

    def add(self, place: Place, message: str, hint: str | None = None) -> None:
        """Note one more fault at ``place``."""
        self._places.add((place.line, place.column))
        self._found.append(Fault(file=self.file, line=place.line, column=place.column, message=message, hint=hint))

    def add_first(self, place: Place, message: str, hint: str | None = None) -> None:
        """Note the fault unless ``place`` has one: a step of 10,000 jobs has its fault once, not 10,000 times."""
        if (place.line, place.column) not in self._places:
            self.add(place, message, hint)

    def suggest(self, word: str, candidates: Iterable[str], otherwise: str | None = None) -> str | None:
        """Give the hint "did you mean …?" if a candidate is similar to ``word``, else ``otherwise``."""
        if self._suggestions <= 0:
            return otherwise
        self._suggestions -= 1
        return did_you_mean(word, candidates) or otherwise

    @property
    def found(self) -> tuple[Fault, ...]:
        """All faults noted so far."""
        return tuple(self._found)

    def raise_any(self) -> None:
        """End here if there was any fault.

        Raises:
            DocumentError: all faults, in the order of the file.
        """
        if self._found:
            raise DocumentError(self.found)


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """Give "did you mean …?" for the candidate most similar to ``word``, if one is similar at all."""
    found = nearest(word, candidates)
    return f'did you mean "{found}"?' if found else None


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Give the candidate most similar to ``word``, if one is similar at all."""
    near = [c for c in candidates if abs(len(c) - len(word)) <= max(2, len(word) // 2)]
    if len(near) > MAX_CANDIDATES:
        near = heapq.nlargest(MAX_CANDIDATES, near, key=lambda c: _shared_beginning(word, c))
    found = difflib.get_close_matches(word, near, n=1, cutoff=0.6)
    return found[0] if found else None


def _shared_beginning(one: str, other: str) -> int:
    differing = (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))
