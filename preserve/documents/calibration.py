"""Rules for ``results:`` that a probe suggests: ten times the largest movement, and what was measured as the reason."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping

from preserve.documents.probe import Finding, Movement, Probe

MARGIN = 10.0
MOST_RELATIVE = 1e-2  # a number that moves by more of its value gets an absolute tolerance: it is near zero


def proposed_rules(probe: Probe) -> str:
    """Give lines of YAML to put into preserve.yaml; comments name what no tolerance can cover."""
    places = _by_place(probe)
    if not places:
        return "# nothing moves in the results: no rule is needed\n"
    lines = ["results:"]
    for product in dict.fromkeys(product for product, _ in places):
        leaves = {leaf: found for (name, leaf), found in places.items() if name == product}
        lines += _result(product, leaves)
    return "\n".join(lines) + "\n"


def _by_place(probe: Probe) -> dict[tuple[str, str], list[tuple[Finding, Movement]]]:
    found: dict[tuple[str, str], list[tuple[Finding, Movement]]] = {}
    for finding in probe.results:
        for one in finding.movements:
            found.setdefault((one.product, one.leaf), []).append((finding, one))
    return dict(sorted(found.items()))


def _result(product: str, leaves: Mapping[str, list[tuple[Finding, Movement]]]) -> Iterator[str]:
    rules = {leaf: rule for leaf, found in leaves.items() if (rule := _rule(leaf, found)) is not None}
    yield f"  {_quoted(product)}:" + ("" if rules else " {}")
    for leaf in leaves.keys() - rules.keys():
        causes = ", ".join(dict.fromkeys(finding.variation for finding, _ in leaves[leaf]))
        what = _quoted(leaf) if leaf else "the file"
        yield f"    # {what} differs under {causes}: no tolerance covers that; cure the step, or exclude it and say why"
    if rules:
        yield "    require: tolerated"
        yield "    rules:"
    for rule in rules.values():
        yield f"      - {rule}"


def _rule(leaf: str, found: list[tuple[Finding, Movement]]) -> str | None:
    """Give a rule for a leaf; ``None`` where something other than finite numbers moved."""
    if any(one.kind != "numbers" or one.max_abs is None for _, one in found):
        return None
    farthest = max(one.max_abs or 0.0 for _, one in found)
    relative = [one.max_rel for _, one in found]
    spread = f"{farthest:.1e}"
    if all(size is not None and size <= MOST_RELATIVE for size in relative):
        largest = max(size for size in relative if size is not None)
        tolerance, spread = f"rtol: {_rounded(MARGIN * largest)}", f"{largest:.1e} of its value"
    else:
        tolerance = f"atol: {_rounded(MARGIN * farthest)}"
    causes = ", ".join(dict.fromkeys(finding.variation for finding, _ in found))
    reason = _quoted(f"probed: moves by {spread} under {causes}")
    return f"{{match: {_quoted(leaf)}, {tolerance}, because: {reason}}}"


def _rounded(size: float) -> str:
    """Round up to one digit: 4.4e-8 gives 5.0e-08, in a form that YAML 1.2 and 1.1 read as a number."""
    if size <= 0:
        return "0.0"
    power = math.floor(math.log10(size))
    digit = math.ceil(round(size / 10.0**power, 6))
    return f"{float(f'{digit}e{power}'):.1e}"


def _quoted(text: str) -> str:
    """Give a text as a double-quoted YAML scalar, which JSON's form is."""
    return json.dumps(text, ensure_ascii=False)
