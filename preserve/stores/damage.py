"""What is wrong with an archive, as an exception: the finding that ``verify`` lists ends what only reads."""

from __future__ import annotations

from preserve.documents.verification import Finding
from preserve.errors import DigestMismatch

HINT = "get the archive again from where it came from; preserve verify lists all that is wrong"


class Damaged(DigestMismatch):
    """An archive, or a file in it, is not what it must be; ``finding`` says which, what was expected and found."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding), hint=HINT)
        self.finding = finding


def fault(path: str, problem: str, expected: object = "", found: object = "") -> Finding:
    """Give a finding about the file ``path``, whose name may be a stranger's: what a terminal obeys is escaped."""
    shown = path if path.isascii() and path.isprintable() else ascii(path)
    return Finding(path=shown, problem=problem, expected=str(expected), found=str(found))


def damaged(path: str, problem: str, expected: object = "", found: object = "") -> Damaged:
    """Give the exception for a fault of the archive's file ``path``."""
    return Damaged(fault(path, problem, expected, found))
