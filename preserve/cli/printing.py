"""What every command needs to speak: to the user on stderr, to programs on stdout."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from preserve.operations.folder import Folder, find_folder, named_folder
from preserve.operations.places import Settings

# control characters (but for line feed and tab), and those that reorder or hide what stands beside them
_ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def folder_of(arguments: argparse.Namespace) -> Folder:
    """Give the analysis folder that the command line names, or else the one that the user stands in.

    Raises:
        UserError: there is none.
    """
    if arguments.folder is not None:
        return named_folder(Path(arguments.folder).absolute())
    here = Path.cwd()
    folder = find_folder(here)
    if folder.root != here:
        say(arguments, f"in {folder.root}")
    return folder


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Give what the user's session and the command line say of engines and programs."""
    return Settings(
        environment=dict(os.environ),
        engine=getattr(arguments, "engine", None),
        sif=getattr(arguments, "sif", False),
    )


def say(arguments: argparse.Namespace, text: str) -> None:
    """Tell the user something, unless they want quiet."""
    if not arguments.quiet:
        print(safe(text), file=sys.stderr, flush=True)


def tell(document: dict[str, Any]) -> None:
    """Print one JSON document for another program."""
    print(json.dumps(document, indent=2, sort_keys=True))


def safe(text: str) -> str:
    """Make text of unknown origin harmless on a terminal: what would act on it is shown as an escape."""
    return _ACTIVE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)


def shown_bytes(size: int) -> str:
    """Give a size for people: ``12 B``, ``3.4 MB`` (powers of 1000)."""
    amount, units = float(size), ("B", "kB", "MB", "GB", "TB")
    for unit in units[:-1]:
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} {units[-1]}"
