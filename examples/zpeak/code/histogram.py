"""Histogram the dimuon mass of one category."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np


def fill(events: Path, category: str, edges: np.ndarray) -> dict[str, object]:
    """Count the candidates of ``category`` per bin; the edges are masses in GeV."""
    with np.load(events) as table:
        masses = table["mass"][table["category"] == category]
    counts, _ = np.histogram(masses, edges)
    return {
        "category": category,
        "counts": counts.tolist(),
        "edges": edges.tolist(),
        "outside": int(len(masses) - counts.sum()),
        "unit": "GeV",
    }


def main() -> None:
    """Read the command line and write the histogram as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--category", required=True)
    parser.add_argument("--low", type=float, required=True, help="lower edge of the mass window, GeV")
    parser.add_argument("--high", type=float, required=True, help="upper edge of the mass window, GeV")
    parser.add_argument("--bins", type=int, required=True, help="number of bins in the window")
    parser.add_argument("events", type=Path, help="npz file with the candidates")
    parser.add_argument("output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    edges = np.linspace(arguments.low, arguments.high, arguments.bins + 1)
    histogram = fill(arguments.events, arguments.category, edges)
    arguments.output.write_text(json.dumps(histogram, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
