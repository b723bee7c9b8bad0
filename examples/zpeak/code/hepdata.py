"""Write the result as HEPData wants it: submission.yaml and one data file per table.

The YAML is written by hand: JSON strings and plain numbers are YAML as well, and the image needs no YAML package.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

REACTION = "P P --> Z0 < MU+ MU- > X"


def submission(fit: dict[str, Any], answer: dict[str, Any]) -> dict[str, str]:
    """Give the files by name."""
    return {
        "submission.yaml": _submission(answer),
        "spectrum.yaml": _spectrum(fit["table"]),
        "z_boson.yaml": _parameters(answer),
    }


def _submission(answer: dict[str, Any]) -> str:
    about = (
        f"Mass and width of the Z boson from {answer['candidates']} dimuon events that CMS recorded in 2010 "
        "at 7 TeV (example analysis on public data, not a CMS publication)."
    )
    spectrum = _table("Dimuon mass", "spectrum.yaml", "Observed and fitted candidates per bin of the dimuon mass.", "N")
    parameters = _table("Z boson", "z_boson.yaml", "Fitted mass and width of the Z boson.", "M")
    return "".join((f"---\ncomment: {json.dumps(about)}\n", spectrum, parameters))


def _table(name: str, file: str, description: str, measured: str) -> str:
    words = {"reactions": [REACTION], "observables": [measured], "cmenergies": [7000.0], "phrases": ["Z production"]}
    lines = [
        "---",
        f"name: {json.dumps(name)}",
        f"description: {json.dumps(description)}",
        "keywords:",
        *(f"- {{name: {key}, values: {json.dumps(values)}}}" for key, values in words.items()),
        f"data_file: {file}",
    ]
    return "\n".join(lines) + "\n"


def _spectrum(table: dict[str, list[float]]) -> str:
    edges = table["edges"]
    bins = [f"  - {{low: {low:g}, high: {high:g}}}" for low, high in pairwise(edges)]
    observed = [f"  - {{value: {count:g}, errors: [{_poisson(count)}]}}" for count in table["observed"]]
    expected = [f"  - {{value: {mean:.2f}}}" for mean in table["expected"]]
    return "\n".join(
        (
            "independent_variables:",
            "- header: {name: 'M(MU+ MU-)', units: GEV}",
            "  values:",
            *bins,
            "dependent_variables:",
            "- header: {name: Observed candidates}",
            "  values:",
            *observed,
            "- header: {name: Fitted candidates}",
            "  values:",
            *expected,
            "",
        )
    )


def _poisson(count: float) -> str:
    """The square root; for no candidate at all HEPData wants an error that is not zero: one event upwards."""
    if count == 0:
        return "{asymerror: {minus: 0.0, plus: 1.0}, label: stat}"
    return f"{{symerror: {math.sqrt(count):.3f}, label: stat}}"


def _parameters(answer: dict[str, Any]) -> str:
    scale = answer["mass_error_scale"]
    rows = (
        ("Mass", answer["mass"], _asymmetric(answer, "mass"), f", {{symerror: {scale:.2f}, label: 'sys,scale'}}"),
        ("Width", answer["width"], _asymmetric(answer, "width"), ""),
    )
    return "\n".join(
        (
            "independent_variables:",
            "- header: {name: Quantity}",
            "  values:",
            *(f"  - {{value: {name}}}" for name, *_ in rows),
            "dependent_variables:",
            "- header: {name: Value, units: GEV}",
            "  values:",
            *(f"  - {{value: {value:.2f}, errors: [{error}{more}]}}" for _, value, error, more in rows),
            "",
        )
    )


def _asymmetric(answer: dict[str, Any], name: str) -> str:
    minus, plus = answer[f"{name}_error_minus"], answer[f"{name}_error_plus"]
    return f"{{asymerror: {{minus: {minus:.2f}, plus: {plus:.2f}}}, label: stat}}"
