"""The command diff, and how it and replay show a comparison."""

from __future__ import annotations

import argparse
from pathlib import Path

from preserve.cli.printing import folder_of, safe, tell
from preserve.documents.comparison import Comparison
from preserve.errors import UserError
from preserve.operations.folder import Folder
from preserve.renderers.verdicts import verdict_lines


def diff(arguments: argparse.Namespace) -> int:
    """Compare two runs, archives, folders or files."""
    from preserve.operations.diff import diff  # noqa: PLC0415

    comparison = diff(
        Path(arguments.recorded),
        Path(arguments.found),
        _place_of_runs(arguments),
        policy=Path(arguments.policy) if arguments.policy else None,
    )
    if arguments.json:
        tell(comparison.to_json())
    else:
        show_comparison(arguments, comparison, replayed=False)
    return 0 if comparison.passed else 1


def _place_of_runs(arguments: argparse.Namespace) -> Folder:
    """Give the folder whose runs may be compared by their names; archives and files need no analysis around them."""
    try:
        return folder_of(arguments)
    except UserError:
        if arguments.folder is not None:
            raise
        return Folder(root=Path.cwd())


def show_comparison(arguments: argparse.Namespace, comparison: Comparison, *, replayed: bool = True) -> None:
    """Print it for a person: only the verdict with --quiet, all leaves with --verbose."""
    lines = verdict_lines(comparison, all_leaves=arguments.verbose, replayed=replayed)
    print("\n".join(safe(line) for line in (lines[-1:] if arguments.quiet else lines)))
