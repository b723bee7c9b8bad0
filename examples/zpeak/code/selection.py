"""Select one Z → μμ candidate per event.

The tree lists every event several times: once per pair of muons and, for each pair, once per way of measuring the two
momenta. "G" is a global muon (tracker and muon chambers together), "T" the tracker's measurement of it or of a muon
that has no other: the same two muons appear as GG, GT (twice) and TT. Only GG is kept, so that no pair counts twice.

The columns pt1 and pt2 always hold the tracker's value, also where px, py, pz, E are the global fit's. Therefore pT, η
and the mass are computed here from the four-vectors.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import uproot
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Columns = dict[str, NDArray[np.generic]]

GEOMETRY = 1.2  # |η| where the barrel muon chambers of CMS end
ACCEPTANCE = 2.4  # |η| where the muon chambers end


@dataclass(frozen=True, kw_only=True)
class Muon:
    """One muon per row: momentum components and energy in GeV, charge in units of e."""

    px: Array
    py: Array
    pz: Array
    energy: Array
    charge: NDArray[np.int64]

    @property
    def pt(self) -> Array:
        """Transverse momentum, GeV."""
        return np.hypot(self.px, self.py)

    @property
    def eta(self) -> Array:
        """Pseudorapidity."""
        return np.arcsinh(self.pz / self.pt)


def read_tree(path: Path) -> Columns:
    """Read all columns of the tree ``events``."""
    with uproot.open(path) as file:
        return dict(file["events"].arrays(library="np"))


def muon(columns: Columns, number: int) -> Muon:
    """Give the first or second muon of every row."""
    px, py, pz, energy = (columns[f"{name}{number}"].astype(np.float64) for name in ("px", "py", "pz", "E"))
    return Muon(px=px, py=py, pz=pz, energy=energy, charge=columns[f"Q{number}"].astype(np.int64))


def invariant_mass(one: Muon, two: Muon) -> Array:
    """Give the mass of each pair, GeV."""
    energy = one.energy + two.energy
    px, py, pz = one.px + two.px, one.py + two.py, one.pz + two.pz
    return np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0.0))


def category(one: Muon, two: Muon) -> NDArray[np.str_]:
    """Say which parts of the detector measured the pair: the resolution is best with both muons in the barrel."""
    forward = (np.abs(one.eta) > GEOMETRY).astype(int) + (np.abs(two.eta) > GEOMETRY).astype(int)
    return np.array(["barrel-barrel", "barrel-endcap", "endcap-endcap"])[forward]


def hardest_per_event(columns: Columns, kept: Mask, hardness: Array) -> Mask:
    """Keep, of each event's pairs, the one with the largest ``hardness`` (the first of equals).

    It is not the one nearest to the Z: that would make a peak of anything.
    """
    best: dict[tuple[int, int], int] = {}
    for row in np.flatnonzero(kept):
        event = (int(columns["Run"][row]), int(columns["Event"][row]))
        if event not in best or hardness[row] > hardness[best[event]]:
            best[event] = int(row)
    chosen = np.zeros_like(kept)
    chosen[list(best.values())] = True
    return chosen


def select(columns: Columns, minimum_pt: float) -> tuple[dict[str, NDArray[np.generic]], list[dict[str, object]]]:
    """Apply the cuts one after the other; give the candidates and how many rows and events each cut left."""
    one, two = muon(columns, 1), muon(columns, 2)
    cuts: list[tuple[str, Mask]] = [
        ("both muons global", columns["Type"] == "GG"),
        ("opposite charge", one.charge * two.charge < 0),
        (f"pT > {minimum_pt:g} GeV", (one.pt > minimum_pt) & (two.pt > minimum_pt)),
        (f"|eta| < {ACCEPTANCE:g}", (np.abs(one.eta) < ACCEPTANCE) & (np.abs(two.eta) < ACCEPTANCE)),
    ]
    kept = np.ones(len(one.charge), dtype=bool)
    flow = [_count("rows of the tree", columns, kept)]
    for name, cut in cuts:
        kept = kept & cut
        flow.append(_count(name, columns, kept))
    kept = hardest_per_event(columns, kept, one.pt + two.pt)
    flow.append(_count("one candidate per event", columns, kept))
    candidates = {
        "run": columns["Run"][kept].astype(np.int64),
        "event": columns["Event"][kept].astype(np.int64),
        "mass": invariant_mass(one, two)[kept],
        "category": category(one, two)[kept],
    }
    return candidates, flow


def _count(name: str, columns: Columns, kept: Mask) -> dict[str, object]:
    events = set(zip(columns["Run"][kept].tolist(), columns["Event"][kept].tolist(), strict=True))
    return {"cut": name, "rows": int(kept.sum()), "events": len(events)}


def main() -> None:
    """Read the command line and write the candidates (npz) and the cut flow (JSON)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--min-pt", type=float, required=True, help="smallest transverse momentum of a muon, GeV")
    parser.add_argument("tree", type=Path, help="ROOT file with the tree events")
    parser.add_argument("events", type=Path, help="npz file to write")
    parser.add_argument("cutflow", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    candidates, flow = select(read_tree(arguments.tree), arguments.min_pt)
    np.savez(arguments.events, **candidates)
    arguments.cutflow.write_text(json.dumps(flow, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
