"""Compare two products: one file per kind of reader."""

from __future__ import annotations

from preserve.comparators.exact import Exact
from preserve.interfaces import Comparator

BUILT_IN: tuple[Comparator, ...] = (Exact(),)  # the first that accepts a file compares it
