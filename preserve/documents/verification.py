"""What verifying an archive found: faults, completeness, signatures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from preserve.digest import Digest
from preserve.documents.archive import SIGNATURES
from preserve.documents.counted import counted

SCHEMA = "preserve/verification/1"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """One fault: the file of the archive, what is wrong with it, what was expected and what was found."""

    path: str
    problem: str
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        """Give the line for a person."""
        details = "; ".join(
            f"{what} {value}" for what, value in (("expected", self.expected), ("found", self.found)) if value
        )
        return f"{self.path}: {self.problem}" + (f": {details}" if details else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """All findings; ``signed_by`` are the principals of good signatures by allowed signers.

    ``signatures`` counts what is in the archive, checked or not; ``signers_given``: somebody said who is allowed;
    ``left_out`` are the paths of products whose bytes are not inside, though nothing is wrong with that;
    ``archive_id`` is ``None`` where the file is so damaged that it has none.
    """

    archive_id: Digest | None
    completeness: str
    findings: tuple[Finding, ...]
    signed_by: tuple[str, ...] = ()
    signatures: int = 0
    signers_given: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def damaged(self) -> bool:
        """Whether something is wrong with the bytes, and not only that nobody signed whose signature was asked for."""
        return any(finding.path != SIGNATURES for finding in self.findings)

    @property
    def trust(self) -> str:
        """Say how far the archive can be trusted, in words that promise nothing more."""
        if self.damaged:
            return "damaged"
        if self.signed_by:
            return f"intact, signed by {', '.join(self.signed_by)}"
        if not self.signatures:
            return "intact, unsigned"
        count = counted(self.signatures, "signature")
        return f"intact, {count}, none by an allowed signer" if self.signers_given else f"intact, {count} not checked"

    def to_json(self) -> dict[str, Any]:
        """Give the document that ``--json`` prints."""
        return {
            "schema": SCHEMA,
            "intact": self.intact,
            "archive_id": self.archive_id,
            "completeness": self.completeness,
            "left_out": list(self.left_out),
            "signed_by": list(self.signed_by),
            "findings": [asdict(finding) for finding in self.findings],
        }
