"""The shapes of the fit: a relativistic Breit–Wigner seen with Gaussian resolution, and an exponential background.

Masses, widths and resolutions are in GeV. Every function returns an array; a shape is the expected share of events
per bin and sums to one over the bins, so that a yield means "events inside the mass window".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import wofz

Array = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)  # bins are narrower than the peak: four points are exact to 1e-9


def density(masses: Array, mass: float, width: float, sigma: float) -> Array:
    """Give the convolution of a relativistic Breit–Wigner with a Gaussian of standard deviation ``sigma``.

    The Breit–Wigner is 2m / ((m² − M²)² + (m² Γ/M)²), with the energy-dependent width in which the Particle Data
    Group quotes M and Γ. It has simple poles at ±a and ±a*, with a² = M² / (1 − iΓ/M), and a Gaussian average of a
    simple pole is a Faddeeva function: the convolution is exact and needs no integral.
    """
    pole = mass / np.sqrt(1 - 1j * width / mass)
    scale = np.sqrt(2.0) * sigma
    near = wofz((masses - np.conj(pole)) / scale).real
    far = wofz((masses + pole) / scale).real
    return np.asarray((near - far) / (sigma * np.sqrt(2 * np.pi)))


def signal(edges: Array, mass: float, width: float, sigma: float) -> Array:
    """Give the share of Z bosons per bin."""
    half = np.diff(edges)[:, None] / 2
    points = edges[:-1, None] + half * (1 + _NODES)
    contents = np.sum(half * _WEIGHTS * density(points, mass, width, sigma), axis=1)
    return np.asarray(contents / contents.sum())


def background(edges: Array, slope: float) -> Array:
    """Give the share per bin of an exponential exp(slope · m); ``slope`` is in 1/GeV and may be zero."""
    contents = np.exp(slope * (edges[:-1] - edges[0])) * _relative_expm1(slope * np.diff(edges)) * np.diff(edges)
    return np.asarray(contents / contents.sum())


def _relative_expm1(x: Array) -> Array:
    """(exp(x) − 1) / x, which is one at zero."""
    return np.where(np.abs(x) < 1e-12, 1.0, np.expm1(x) / np.where(x == 0, 1.0, x))
