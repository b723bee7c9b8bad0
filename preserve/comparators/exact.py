"""Byte by byte: the comparator that accepts every file."""

from __future__ import annotations

from preserve.documents.comparison import Judged, passes
from preserve.documents.record import Artifact


class Exact:
    """*identical* or *different* by digest; *missing* and *extra* where there is only one file."""

    name = "bytes"

    def accepts(self, path: str) -> bool:
        """Accept any file."""
        return True

    def compare(self, path: str, recorded: Artifact | None, found: Artifact | None, required: str) -> Judged:
        """Compare what was recorded with what was found; ``None``: there is none."""
        verdict = _verdict(recorded, found)
        sides = {"recorded": recorded, "found": found}
        facts = {name: {"sha256": file.sha256, "size": file.size} for name, file in sides.items() if file is not None}
        return Judged(
            path=path,
            verdict=verdict,
            required=required,
            passed=passes(verdict, required),
            reader=self.name,
            facts=facts,
        )


def _verdict(recorded: Artifact | None, found: Artifact | None) -> str:
    if found is None:
        return "missing"
    if recorded is None:
        return "extra"
    return "identical" if recorded.sha256 == found.sha256 else "different"
