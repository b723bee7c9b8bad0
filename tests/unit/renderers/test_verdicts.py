"""A comparison as a person reads it: the worst first, numbers, reasons, what to do, where it may come from."""

from __future__ import annotations

from typing import Any

from preserve.documents.comparison import Cause, Change, Comparison, Judged
from preserve.renderers.verdicts import CHANGES, LEAVES, verdict_lines

NUMBERS = {
    "n": 10,
    "n_diff": 3,
    "max_abs": 0.5,
    "max_rel": "inf",
    "max_ulp": None,
    "broken": 1,
    "worst": [{"at": [2], "recorded": 1.0, "found": "nan"}],
}


def result(path: str, verdict: str, *, passed: bool = False, **facts: Any) -> Judged:
    return Judged(path=path, verdict=verdict, required="tolerated", passed=passed, reader="json", facts=facts)


def row(path: str, verdict: str = "different", **more: Any) -> dict[str, Any]:
    return {"path": path, "kind": "num", "state": "changed", "verdict": verdict, **more}


def text(*results: Judged, **more: Any) -> str:
    return "\n".join(verdict_lines(Comparison(results=results, **more)))


def test_the_worst_result_comes_first_and_those_that_pass_last() -> None:
    lines = verdict_lines(
        Comparison(
            results=(
                result("a", "identical", passed=True),
                result("b", "tolerated"),
                result("c", "missing"),
                result("d", "different", passed=True),
            )
        )
    )
    assert [line.split()[0] for line in lines] == ["c", "b", "d", "a", "verdict:"]


def test_numbers_with_their_rule() -> None:
    shown = text(result("a", "different", differences=[row("/m", beyond=2, numbers=NUMBERS, because="rounding")]))
    assert (
        "/m  different    2 beyond the rule; 3 of 10, off by at most 0.5, relatively inf, 1 with NaN or infinity on "
        "one side, worst at [2]: 1.0 was recorded, nan is found" in shown
    )
    assert "because: rounding" in shown
    assert shown.endswith("verdict: different: NOT reproduced")


def test_a_statistical_test() -> None:
    tested = {"p_holm": 0.0213, "yield_shift": 0.001}
    shown = text(result("a", "compatible", differences=[row("/h", "compatible", test=tested, numbers=NUMBERS)]))
    assert "/h  compatible   p = 0.0213, yield off by 0.001" in shown


def test_what_cures_an_obstacle() -> None:
    obstacle = {"reason": "ROOT files need uproot", "hint": "pip install 'hep-preserve[root]'"}
    shown = text(result("a.root", "uncomparable", obstacle=obstacle))
    assert "ROOT files need uproot\n      pip install 'hep-preserve[root]'" in shown


def test_what_was_not_compared() -> None:
    coverage = {"volatile": [{"path": "date"}], "opaque": ["a", "b", "c", "d", "e"]}
    shown = text(result("a", "equivalent", passed=True, coverage=coverage))
    assert "metadata that do not count differ: date" in shown
    assert "compared as bytes only: a, b, c, d, …" in shown


def test_where_it_may_come_from() -> None:
    change = Change(steps=("a", "b", "c", "d", "e"), what="CPU", recorded="x" * 500, found="y")
    cause = Cause(path="r", variation="blas-kernel", setting="OPENBLAS_CORETYPE=Haswell")
    shown = text(
        result("r", "different"), changes=(change,) * (CHANGES + 2), begins_in=("fit",), causes=(cause,)
    ).splitlines()
    assert "differences begin in: fit" in shown
    assert "r moves in the same way under blas-kernel (OPENBLAS_CORETYPE=Haswell)" in shown
    assert f"    CPU: {'x' * 199}… → y (a, b, c, d and 1 more)" in shown
    assert "    and 2 more (--json has them)" in shown
    assert "CPU" not in text(result("r", "identical", passed=True), changes=(change,))


def test_many_leaves_are_counted_and_all_are_shown_when_asked_for() -> None:
    rows = [row(f"/{n}", why="other") for n in range(LEAVES + 3)]
    comparison = Comparison(results=(result("a", "different", differences=rows, leaves={"all": 50, "equal": 39}),))
    assert "      and 3 more leaves" in verdict_lines(comparison)
    assert not any("more leaves" in line for line in verdict_lines(comparison, all_leaves=True))


def test_a_recast_says_nothing_about_reproduction() -> None:
    assert text(result("a", "different"), recast=True).splitlines()[-1].startswith("verdict: recast")


def test_a_line_stays_a_line() -> None:
    shown = verdict_lines(Comparison(results=(result("a\nverdict: identical", "different"),)))
    assert len(shown) == 2
