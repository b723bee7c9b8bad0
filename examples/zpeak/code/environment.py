"""Write down what the numbers depend on: interpreter, C library, packages and the linear-algebra library of numpy."""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import distributions
from pathlib import Path

import numpy as np


def describe() -> dict[str, object]:
    """Give versions only: nothing of the machine, so that two machines give the same file."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "blas": {"name": blas["name"], "version": blas["version"]},
        "libc": " ".join(platform.libc_ver()),
        "packages": {item.metadata["Name"].lower(): item.version for item in distributions()},
        "python": platform.python_version(),
    }


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    arguments.output.write_text(json.dumps(describe(), indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
