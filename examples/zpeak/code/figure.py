"""Draw the mass distribution with the fit, and the pulls below it. The same numbers give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

mpl.use("Agg")
from matplotlib import pyplot as plt  # the backend comes first, or matplotlib looks for a display
from matplotlib.axes import Axes

Array = NDArray[np.float64]

MERGED = 2  # fitted bins drawn as one
NOTHING = {"png": {"Software": None}, "pdf": {"Creator": None, "Producer": None, "CreationDate": None}}
STYLE = {
    "axes.linewidth": 0.8,
    "font.size": 9,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "xtick.direction": "in",
    "xtick.top": True,
    "ytick.direction": "in",
    "ytick.right": True,
}


def draw(fit: dict[str, Any], answer: dict[str, Any], folder: Path) -> None:
    """Write mass.png and mass.pdf, without dates or versions in them."""
    observed, expected = (_merge(np.array(fit["table"][name])) for name in ("observed", "expected"))
    edges = np.array(fit["table"]["edges"])[::MERGED]
    with mpl.rc_context(STYLE):
        canvas, (spectrum, pulls) = plt.subplots(
            2, 1, figsize=(5.2, 4.8), sharex=True, height_ratios=(3, 1), gridspec_kw={"hspace": 0.06}
        )
        _draw_spectrum(spectrum, edges, observed, fit["curve"])
        _write_answer(spectrum, answer)
        _draw_pulls(pulls, edges, (observed - expected) / np.sqrt(expected))
        canvas.align_ylabels()
        canvas.subplots_adjust(left=0.12, right=0.97, top=0.97, bottom=0.1)
        for kind, metadata in NOTHING.items():
            canvas.savefig(folder / f"mass.{kind}", dpi=200, metadata=metadata)
        plt.close(canvas)


def _merge(contents: Array) -> Array:
    return contents.reshape(-1, MERGED).sum(axis=1)


def _draw_spectrum(axes: Axes, edges: Array, observed: Array, curve: dict[str, list[float]]) -> None:
    bin_width = edges[1] - edges[0]
    centres, filled = (edges[1:] + edges[:-1]) / 2, observed > 0
    axes.plot(curve["mass"], np.array(curve["total"]) * bin_width, color="#c1272d", label="Fit", zorder=2)
    axes.fill_between(
        curve["mass"], np.array(curve["background"]) * bin_width, color="#0f6fb5", alpha=0.35, lw=0, label="Background"
    )
    axes.errorbar(
        centres[filled], observed[filled], np.sqrt(observed[filled]), fmt="ko", ms=3, lw=0.9, label="CMS 2010", zorder=3
    )
    axes.set_ylabel(f"Candidates / ({bin_width:g} GeV)")
    axes.set_ylim(0, 1.2 * float((observed + np.sqrt(observed)).max()))
    axes.legend(loc="upper right")


def _write_answer(axes: Axes, answer: dict[str, Any]) -> None:
    lines = (
        rf"$Z \to \mu^+\mu^-$, $\sqrt{{s}} = 7$ TeV, {answer['candidates']} events",
        rf"$M = {answer['mass']:.2f} \pm {answer['mass_error']:.2f}"
        rf" \pm {answer['mass_error_scale']:.2f}\,(\mathrm{{scale}})$ GeV",
        rf"$\Gamma = {answer['width']:.2f} \pm {answer['width_error']:.2f}$ GeV",
        rf"$\chi^2/\mathrm{{ndf}} = {answer['chi2']:.0f}/{answer['ndf']}$, $p = {answer['p_value']:.2f}$",
    )
    axes.text(0.03, 0.96, "\n".join(lines), transform=axes.transAxes, va="top", linespacing=1.5)


def _draw_pulls(axes: Axes, edges: Array, pulls: Array) -> None:
    axes.stairs(pulls, edges, fill=True, color="#7f7f7f")
    axes.axhline(0, color="k", lw=0.8)
    for level in (-2, 2):
        axes.axhline(level, color="k", lw=0.5, ls=":")
    axes.set_ylim(-4.5, 4.5)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylabel("Pull")
    axes.set_xlabel(r"Dimuon mass $m_{\mu\mu}$ [GeV]")
