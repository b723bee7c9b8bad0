"""argv to one operation to text or JSON to an exit code. The only room that prints or exits."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

from preserve.cli.arguments import parser
from preserve.errors import PreserveError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code (docs/reference/exit-codes.md)."""
    arguments = parser().parse_args(argv)
    gc.set_threshold(50_000, 20, 20)  # imports make no garbage: Snakemake's takes an eighth less time
    from preserve.cli import commands  # noqa: PLC0415  (--help must not wait for it)

    try:
        return commands.run_command(arguments)
    except PreserveError as error:
        print(f"preserve: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"    {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("preserve: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        print(f"preserve: {error.strerror or error}: {error.filename or ''}".rstrip(": "), file=sys.stderr)
        return 3
