"""The tests' probabilities, against scipy 1.17.1 (stats.chi2.sf, special.kolmogorov, chi2_contingency, ks_2samp)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from preserve.comparators.statistics import Untestable, chi2, chi2_tail, holm, kolmogorov_tail, ks, outcome

CHI2 = [  # stats.chi2.sf(x, n)
    (0.5, 1, 0.47950012218695337),
    (3.84, 1, 0.05004352124870519),
    (10, 10, 0.44049328506521257),
    (2.5, 10, 0.9908757207816047),
    (250, 200, 0.009379131668826098),
    (0.001, 3, 0.9999915920809419),
    (700, 500, 7.728992111216604e-09),
    (80, 3, 3.0692774861724164e-17),
    (1500, 1000, 1.0454640385980825e-22),
]
KOLMOGOROV = [  # special.kolmogorov(x)
    (0.1, 1.0),
    (0.3, 0.9999906941986655),
    (0.5, 0.9639452436648751),
    (0.8276, 0.49995841656354456),
    (1.0, 0.26999967167735456),
    (1.36, 0.049485876755377876),
    (2.0, 0.0006709252557796953),
    (3.0, 3.045995948942526e-08),
]


@pytest.mark.parametrize(("statistic", "ndf", "p"), CHI2)
def test_chi2_tail(statistic: float, ndf: int, p: float) -> None:
    assert chi2_tail(statistic, ndf) == pytest.approx(p, rel=1e-9)


@pytest.mark.parametrize(("statistic", "p"), KOLMOGOROV)
def test_kolmogorov_tail(statistic: float, p: float) -> None:
    assert kolmogorov_tail(statistic) == pytest.approx(p, rel=1e-9)


def test_chi2_of_two_histograms() -> None:
    recorded, found = np.array([20, 35, 60, 80, 55, 30, 18]), np.array([25, 30, 66, 70, 60, 35, 12])
    done = chi2(recorded, found)  # stats.chi2_contingency([recorded, found], correction=False)
    assert (done.statistic, done.p) == pytest.approx((3.694558581515104, 0.7179300105313027), rel=1e-12)
    assert done.ndf == 6
    assert done.yield_shift == 0


def test_bins_of_few_entries_are_joined() -> None:
    joined = chi2(np.array([30, 3, 3, 40, 1]), np.array([28, 2, 3, 44, 0]))
    assert joined.ndf == 2
    assert joined.p == chi2(np.array([30, 6, 41]), np.array([28, 5, 44])).p


def uniform(count: int, start: int, factor: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Numbers between 0 and 1 that every library makes the same."""
    values = np.sin((np.arange(count) + start) * factor) * 43758.5453
    return values - np.floor(values)


def test_ks_of_two_samples() -> None:
    index = np.arange(150)
    other = np.sin((index + 1000) * 78.233) * 12543.123
    other = (other - np.floor(other)) ** 1.3
    one = uniform(200, 0, 12.9898)
    done = ks(one, other)  # stats.ks_2samp(one, other, method="exact"): 0.1, 0.3387
    assert done.statistic == pytest.approx(0.1)
    assert done.p == pytest.approx(0.3387, rel=0.02)
    assert done.yield_shift == 0.25
    assert ks(one, other * 0.8).p == pytest.approx(0.000573, rel=0.05)  # method="asymp"


def test_a_lost_half_percent_is_not_seen_by_a_test_but_by_the_yield() -> None:
    recorded = np.full(50, 10_000)
    done = chi2(recorded, recorded * 995 // 1000)
    assert done.p > 0.999
    assert done.yield_shift == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("test", "recorded", "found", "why"),
    [
        ("chi2", [100, 100], [100, 100, 1], "same bins"),
        ("chi2", [100, -1], [100, 100], "negative"),
        ("chi2", [3, 3], [4, 4], "two bins"),
        ("chi2", [0, 0], [500, 500], "two bins"),
        ("chi2", [math.nan, 1], [100, 100], "finite"),
        ("ks", [], [1.0], "entries"),
        ("ks", ["a"], ["b"], "real"),
        ("anderson", [1.0], [1.0], "no test"),
    ],
)
def test_what_cannot_be_tested(test: str, recorded: list[float], found: list[float], why: str) -> None:
    with pytest.raises(Untestable, match=why):
        outcome(test, np.array(recorded), np.array(found))


def test_holm() -> None:
    # Holm (1979), as in R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()
