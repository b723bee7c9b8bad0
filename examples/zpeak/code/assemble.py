"""Assemble the answer: the numbers (JSON), the figure (PNG and PDF) and the tables for HEPData (YAML)."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from figure import draw
from hepdata import submission

SCALE = 0.002  # CMS knows the muons' momentum scale in 2010 to 0.2 % (JINST 7 (2012) P10002); it moves the mass alike


def numbers(fit: dict[str, Any], cutflow: list[dict[str, Any]], world: dict[str, float]) -> dict[str, Any]:
    """Give the results: masses and widths in GeV, differences from the world average in standard deviations."""
    mass = fit["fixed-width"]["parameters"]["mass"]
    width = fit["resolution-known"]["parameters"]["width"]
    scale = SCALE * mass["value"]
    total = math.hypot(mass["error"], scale, world["mass_error"])
    return {
        "candidates": cutflow[-1]["rows"],
        "chi2": fit["fixed-width"]["goodness"]["chi2"],
        "mass": mass["value"],
        "mass_error": mass["error"],
        "mass_error_minus": mass["minus"],
        "mass_error_plus": mass["plus"],
        "mass_error_scale": scale,
        "mass_from_world_average": (mass["value"] - world["mass"]) / total,
        "ndf": fit["fixed-width"]["goodness"]["ndf"],
        "p_value": fit["fixed-width"]["goodness"]["p_value"],
        "signal": _sum(fit, "signal"),
        "unit": "GeV",
        "width": width["value"],
        "width_error": width["error"],
        "width_error_minus": width["minus"],
        "width_error_plus": width["plus"],
        "width_from_world_average": (width["value"] - world["width"])
        / math.hypot(width["error"], world["width_error"]),
    }


def _sum(fit: dict[str, Any], kind: str) -> float:
    parameters = fit["fixed-width"]["parameters"]
    return sum(parameters[name]["value"] for name in sorted(parameters) if name.startswith(f"{kind}["))


def main() -> None:
    """Read the command line and write all results into one folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, what in (("mass", "mass"), ("mass-error", "mass's error"), ("width", "width"), ("width-error", "error")):
        parser.add_argument(f"--world-{name}", type=float, required=True, help=f"world average: {what}, GeV")
    parser.add_argument("fit", type=Path, help="JSON file of fit.py")
    parser.add_argument("cutflow", type=Path, help="JSON file of selection.py")
    parser.add_argument("results", type=Path, help="folder to write into")
    arguments = parser.parse_args()
    world = {
        "mass": arguments.world_mass,
        "mass_error": arguments.world_mass_error,
        "width": arguments.world_width,
        "width_error": arguments.world_width_error,
    }
    fit, cutflow = json.loads(arguments.fit.read_text()), json.loads(arguments.cutflow.read_text())
    answer = numbers(fit, cutflow, world)
    (arguments.results / "mass.json").write_text(json.dumps(answer, indent=2, sort_keys=True) + "\n")
    draw(fit, answer, arguments.results)
    (arguments.results / "hepdata").mkdir(exist_ok=True)
    for name, text in submission(fit, answer).items():
        (arguments.results / "hepdata" / name).write_text(text)


if __name__ == "__main__":
    main()
