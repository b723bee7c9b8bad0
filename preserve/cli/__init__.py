"""argv to one operation to text or JSON to an exit code. The only room that prints or exits."""

from __future__ import annotations

import gc
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, TextIO

from preserve.cli.arguments import parse
from preserve.errors import PreserveError


class Unheard:
    """stderr that falls silent once nobody can hear it (a closed terminal or pipe): the run matters more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write; into the void if there is no reader any more."""
        try:
            return self._stream.write(text)
        except OSError:
            self._fall_silent()
            return len(text)

    def flush(self) -> None:
        """Flush; into the void if there is no reader any more."""
        try:
            self._stream.flush()
        except OSError:
            self._fall_silent()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _fall_silent(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # what is buffered goes there too


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code (docs/reference/exit-codes.md)."""
    try:
        arguments = parse(argv)
        sys.stderr = Unheard(sys.stderr)
        gc.set_threshold(50_000, 20, 20)  # imports make no garbage
        return _run_command(arguments)
    except PreserveError as error:
        from preserve.cli.printing import safe  # noqa: PLC0415  (--help must not wait for it)

        print(f"preserve: {safe(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"    {safe(error.hint)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("preserve: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"preserve: {error.strerror or error}: {error.filename or ''}".rstrip(": "), file=sys.stderr)
        return 3


def _run_command(arguments: Namespace) -> int:
    from preserve.scheduler.chain import Scheduler  # noqa: PLC0415

    with Scheduler(os.environ) as scheduler:
        if arguments.command == "run" and not arguments.dry_run:
            scheduler.prepare()  # Snakemake is imported at the same time as what is ours
        from preserve.cli import commands  # noqa: PLC0415

        return commands.run_command(arguments, scheduler)
