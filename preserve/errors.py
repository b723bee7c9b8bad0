"""Errors that reach a person: one base class, one subclass per exit code."""

from __future__ import annotations

from dataclasses import dataclass


class PreserveError(Exception):
    """Something a person has to know: what is wrong with which thing, and (``hint``) what to do about it.

    ``exit_code`` is the command's exit code (docs/reference/exit-codes.md).
    """

    exit_code = 3

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UserError(PreserveError):
    """The user's file or command line is wrong; nothing was written (exit code 2)."""

    exit_code = 2


class MachineError(PreserveError):
    """This machine cannot do it: engine missing, refused or too old, disk full (exit code 3)."""

    exit_code = 3


class StepFailed(PreserveError):
    """A step of the analysis failed (exit code 4)."""

    exit_code = 4


class DigestMismatch(PreserveError):
    """Bytes are not what their digest says (exit code 5)."""

    exit_code = 5


class Interrupted(PreserveError):
    """The user stopped the run; containers are gone and the run can be resumed (exit code 130)."""

    exit_code = 130


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Fault:
    """One thing wrong with a document. ``line`` and ``column`` count from 1; ``hint`` says what would be right."""

    file: str
    line: int
    column: int
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        """Give ``file:line:column: message (hint)``, the form editors jump to."""
        hint = f"\n    {self.hint}" if self.hint else ""
        return f"{self.file}:{self.line}:{self.column}: {self.message}{hint}"


class DocumentError(UserError):
    """A document with faults: all of them, in the order of the file."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.faults = tuple(sorted(set(faults), key=lambda f: (f.file, f.line, f.column, f.message)))
        super().__init__("\n".join(str(fault) for fault in self.faults))
