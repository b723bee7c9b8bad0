"""Fit the Z boson's mass and width to the histograms of all categories at once.

An extended binned likelihood: each category has its own resolution, signal yield and background yield; mass, width and
the slope of the background are common. Natural width and resolution both widen the peak and can hardly be told apart
in so few events. So two fits are made, each of which is told one of them:

fixed-width         Γ is the world average, the resolutions float. It gives the mass.
resolution-known    Γ floats, the barrel resolution is constrained to what CMS published. It gives the width.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lineshape
import numpy as np
from iminuit import Minuit
from numpy.typing import NDArray
from scipy.stats import chi2

Array = NDArray[np.float64]

COMMON = ("mass", "width", "slope")
FEWEST_EXPECTED = 5.0  # events per merged bin below which χ² is no χ²
CURVE_STEP = 0.1  # GeV


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts per bin of one category; edges in GeV."""

    category: str
    edges: Array
    counts: Array


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """A Gaussian constraint of one parameter: value and standard deviation."""

    parameter: str
    value: float
    error: float

    def penalty(self, value: float) -> float:
        """Give minus two times the logarithm of the constraint's likelihood."""
        return ((value - self.value) / self.error) ** 2


def read_histogram(path: Path) -> Histogram:
    """Read what histogram.py wrote."""
    value = json.loads(path.read_text())
    return Histogram(category=value["category"], edges=np.array(value["edges"]), counts=np.array(value["counts"]))


class Likelihood:
    """Minus two times the log likelihood ratio to the saturated description, a function of all parameters."""

    errordef = Minuit.LEAST_SQUARES

    def __init__(self, histograms: Sequence[Histogram], constraints: Sequence[Constraint] = ()) -> None:
        self.histograms, self.constraints = histograms, constraints
        own = [f"{name}[{each.category}]" for each in histograms for name in ("sigma", "signal", "background")]
        self.names = (*COMMON, *own)

    def parts(self, values: Sequence[float], index: int, edges: Array) -> tuple[Array, Array]:
        """Give the expected signal and background events per bin of the category with this index."""
        mass, width, slope = values[:3]
        sigma, signal, background = values[3 + 3 * index : 6 + 3 * index]
        return signal * lineshape.signal(edges, mass, width, sigma), background * lineshape.background(edges, slope)

    def expected(self, values: Sequence[float], index: int) -> Array:
        """Give the expected events per bin of the category with this index."""
        return np.add(*self.parts(values, index, self.histograms[index].edges))

    def __call__(self, values: Sequence[float]) -> float:
        """Give the value to be minimised."""
        terms = (
            poisson_deviance(each.counts, self.expected(values, index)) for index, each in enumerate(self.histograms)
        )
        named = dict(zip(self.names, values, strict=True))
        return float(sum(terms) + sum(each.penalty(named[each.parameter]) for each in self.constraints))


def poisson_deviance(counts: Array, expected: Array) -> float:
    """Give 2 Σ (ν − n + n ln(n/ν)) (S. Baker and R. Cousins, Nucl. Instrum. Meth. 221 (1984) 437)."""
    expected = np.maximum(expected, 1e-12)  # a bin may expect next to nothing, but never exactly nothing
    ratio = np.where(counts > 0, counts, 1) / np.where(counts > 0, expected, 1)
    return float(2 * np.sum(expected - counts + counts * np.log(ratio)))


def minimise(likelihood: Likelihood, start: dict[str, float], *, fixed: Sequence[str] = ()) -> Minuit:
    """Find the minimum, then the covariance (HESSE) and the asymmetric errors of what floats (MINOS)."""
    minuit = Minuit(likelihood, [start[name] for name in likelihood.names], name=likelihood.names)
    minuit.strategy = 2
    for name in likelihood.names:
        minuit.fixed[name] = name in fixed
        if name.startswith(("signal", "background")):
            minuit.limits[name] = (0, None)
        elif name.startswith("sigma") or name == "width":
            minuit.limits[name] = (0.05, 20)
    minuit.migrad()
    if not minuit.valid:
        raise SystemExit(f"the fit found no minimum:\n{minuit.fmin}")
    minuit.hesse()
    minuit.minos(*(name for name in ("mass", "width") if name not in fixed))
    return minuit


def start_values(histograms: Sequence[Histogram], width: float) -> dict[str, float]:
    """Start from the highest bin and from nine events of ten being signal."""
    counts = np.sum([each.counts for each in histograms], axis=0)
    edges = histograms[0].edges
    peak = float(edges[:-1][counts.argmax()] + edges[1:][counts.argmax()]) / 2
    start = {"mass": peak, "width": width, "slope": -0.02}
    for each in histograms:
        total = float(each.counts.sum())
        start[f"sigma[{each.category}]"] = 1.5
        start[f"signal[{each.category}]"], start[f"background[{each.category}]"] = 0.9 * total, 0.1 * total
    return start


def merge_sparse(counts: Array, expected: Array) -> tuple[Array, Array]:
    """Merge neighbouring bins until each expects enough events for a χ²; what is left over joins the last."""
    merged: list[list[float]] = [[0.0, 0.0]]
    for number, mean in zip(counts, expected, strict=True):
        if merged[-1][1] >= FEWEST_EXPECTED:
            merged.append([0.0, 0.0])
        merged[-1][0] += number
        merged[-1][1] += mean
    if len(merged) > 1 and merged[-1][1] < FEWEST_EXPECTED:
        number, mean = merged.pop()
        merged[-1][0] += number
        merged[-1][1] += mean
    table = np.array(merged)
    return table[:, 0], table[:, 1]


def goodness(likelihood: Likelihood, minuit: Minuit) -> dict[str, float | int]:
    """Give Pearson's χ² over merged bins, its degrees of freedom and its p-value."""
    total, bins = 0.0, 0
    for index, each in enumerate(likelihood.histograms):
        counts, expected = merge_sparse(each.counts, likelihood.expected(list(minuit.values), index))
        total += float(np.sum((counts - expected) ** 2 / expected))
        bins += len(counts)
    freedom = bins - minuit.nfit + len(likelihood.constraints)
    return {"chi2": total, "ndf": freedom, "p_value": float(chi2.sf(total, freedom))}


def report(likelihood: Likelihood, minuit: Minuit) -> dict[str, Any]:
    """Give values, HESSE and MINOS errors (GeV, GeV, 1/GeV, events), correlations and goodness of fit."""
    parameters: dict[str, dict[str, Any]] = {}
    for name in likelihood.names:
        fixed = bool(minuit.fixed[name])
        parameters[name] = {
            "value": minuit.values[name],
            "error": 0.0 if fixed else minuit.errors[name],
            "fixed": fixed,
        }
        if name in minuit.merrors:
            parameters[name] |= {"minus": minuit.merrors[name].lower, "plus": minuit.merrors[name].upper}
    floating = [name for name in likelihood.names if not minuit.fixed[name]]
    correlation = minuit.covariance.correlation()
    return {
        "parameters": parameters,
        "correlation": {a: {b: correlation[a, b] for b in floating} for a in floating},
        "minimum": minuit.fval,
        "goodness": goodness(likelihood, minuit),
    }


def curve(likelihood: Likelihood, minuit: Minuit) -> dict[str, list[float]]:
    """Give the fitted sum of all categories, events per GeV, in fine steps."""
    edges = likelihood.histograms[0].edges
    fine = np.linspace(edges[0], edges[-1], round((edges[-1] - edges[0]) / CURVE_STEP) + 1)
    parts = [likelihood.parts(list(minuit.values), index, fine) for index in range(len(likelihood.histograms))]
    steps = np.diff(fine)
    background = np.sum([part[1] for part in parts], axis=0) / steps
    total = np.sum([part[0] for part in parts], axis=0) / steps + background
    return {"mass": ((fine[1:] + fine[:-1]) / 2).tolist(), "total": total.tolist(), "background": background.tolist()}


def table(likelihood: Likelihood, minuit: Minuit) -> dict[str, list[float]]:
    """Give observed and expected events per bin, summed over the categories; edges in GeV."""
    everything = range(len(likelihood.histograms))
    expected = np.sum([likelihood.expected(list(minuit.values), index) for index in everything], axis=0)
    counts = np.sum([each.counts for each in likelihood.histograms], axis=0)
    return {
        "edges": likelihood.histograms[0].edges.tolist(),
        "observed": counts.tolist(),
        "expected": expected.tolist(),
    }


def main() -> None:
    """Read the command line, make both fits and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, required=True, help="world average of the Z width, GeV")
    parser.add_argument("--resolution", type=float, required=True, help="published mass resolution, GeV")
    parser.add_argument("--resolution-error", type=float, required=True, help="its standard deviation, GeV")
    parser.add_argument("--resolution-of", required=True, help="the category whose resolution that is")
    parser.add_argument("output", type=Path, help="JSON file to write")
    parser.add_argument("histograms", type=Path, nargs="+", help="JSON files of histogram.py")
    arguments = parser.parse_args()
    histograms = sorted((read_histogram(path) for path in arguments.histograms), key=lambda each: each.category)
    start = start_values(histograms, arguments.width)

    narrow = Likelihood(histograms)
    fixed_width = minimise(narrow, start, fixed=("width",))
    constrained = f"sigma[{arguments.resolution_of}]"
    if constrained not in narrow.names:
        parser.error(f"--resolution-of {arguments.resolution_of}: no histogram of this category")
    published = Constraint(parameter=constrained, value=arguments.resolution, error=arguments.resolution_error)
    known = Likelihood(histograms, (published,))
    resolution_known = minimise(known, start)
    result = {
        "fixed-width": report(narrow, fixed_width),
        "resolution-known": report(known, resolution_known),
        "curve": curve(narrow, fixed_width),
        "table": table(narrow, fixed_width),
    }
    arguments.output.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
