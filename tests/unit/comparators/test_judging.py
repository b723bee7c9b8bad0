"""Policies: what a rule loosens, what it does not, which verdict wins, and what may never pass."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import judged, loosened, write

from preserve.comparators.comparing import FileFacts, Sides, compare_files, compare_leaves, sides_of
from preserve.comparators.globs import matcher
from preserve.comparators.judging import Compared, judge
from preserve.comparators.leaves import Leaf, Limits, MissingExtra
from preserve.comparators.readers.json import Json
from preserve.digest import Digest, FilePin
from preserve.documents.comparison import ORDER, Comparison, Judged, passes
from preserve.documents.policy import Pixels, Policy, Rule, Statistical
from preserve.errors import UserError

COUNTS = [400, 900, 1600, 900, 400]
CHI2 = Statistical(test="chi2", alpha=0.01, max_yield_shift=0.02)
KS = Statistical(test="ks", alpha=0.01, max_yield_shift=0.2)


def fit(**changes: Any) -> str:
    return json.dumps({"mass": 91.2, "width": 2.5, "label": "Z", "bins": COUNTS, **changes})


def rows(result: Judged) -> dict[str, str]:
    return {row["path"]: row["verdict"] for row in result.facts.get("differences", ())}


def made(*leaves: Leaf) -> dict[str, Leaf]:
    return {leaf.path: leaf for leaf in leaves}


def leaf(path: str, kind: Any, content: Any, digest: str | None = None) -> Leaf:
    return Leaf(path=path, kind=kind, load=lambda: content, digest=digest)


def judged_leaves(recorded: dict[str, Leaf], found: dict[str, Leaf], policy: Policy | None = None) -> Judged:
    """Judge leaves as if two files with different bytes had them."""
    one, other = (FilePin(sha256=Digest.of(name), size=1) for name in (b"a", b"b"))
    compared = tuple(compare_leaves(recorded, found))
    facts = FileFacts(
        recorded=one,
        found=other,
        differences=tuple(d for d in compared if d.state != "equal"),
        equal=tuple(d.path for d in compared if d.state == "equal"),
        read=True,
    )
    [result] = judge([Compared(path="x", declared="x", facts=facts, policy=policy or Policy())])
    return result


class TestRules:
    def test_only_what_a_rule_matches_is_loosened(self) -> None:
        result = judged("a.json", fit(), fit(mass=91.2001, width=2.5001), loosened("/mass", rtol=1e-3))
        assert rows(result) == {"/mass": "tolerated", "/width": "different"}
        assert not result.passed

    def test_the_first_that_matches_decides(self) -> None:
        strict = Rule(match="/mass", rtol=1e-9, because="measured")
        loose = Rule(match="/*", rtol=1.0, because="whatever")
        for rules, verdict in (((strict, loose), "different"), ((loose, strict), "tolerated")):
            policy = Policy(require="tolerated", rules=rules)
            assert judged("a.json", fit(), fit(mass=91.2001), policy).verdict == verdict

    def test_a_tolerance_is_for_numbers(self) -> None:
        everything = loosened("**", rtol=1.0, atol=1e9, ulp=1 << 62)
        for changes in ({"label": "W"}, {"bins": [1, 2]}, {"mass": "91.2"}, {"mass": float("nan")}, {"new": 1}):
            assert judged("a.json", fit(), fit(**changes), everything).verdict == "different"

    def test_what_is_excluded_is_named_with_the_reason(self) -> None:
        result = judged("a.json", fit(), fit(label="W", new=1), loosened("/[ln]*", exclude=True))
        assert (result.verdict, result.passed) == ("equivalent", True)
        assert [one["path"] for one in result.facts["coverage"]["excluded"]] == ["/label", "/new"]
        assert result.facts["coverage"]["excluded"][0]["because"] == "for the test"

    def test_a_file_of_which_all_is_excluded_was_not_compared(self) -> None:
        result = judged("a.json", "1", "2", loosened("/", exclude=True))
        assert (result.verdict, result.passed) == ("excluded", True)

    @pytest.mark.parametrize("found", [fit(mass=91.3), fit()])
    def test_a_rule_that_matches_nothing_is_an_error(self, found: str) -> None:
        with pytest.raises(UserError, match="'/mas' matches nothing") as error:
            judged("a.json", fit(), found, loosened("/mas", rtol=1.0))
        assert error.value.hint is not None
        assert "/mass" in error.value.hint

    def test_a_rule_of_a_folder_may_match_in_any_of_its_files(self) -> None:
        policy = loosened("/mass", rtol=1e-3)
        facts = [FileFacts(recorded=None, found=None, equal=(path,), read=True) for path in ("/mass", "/width")]
        pin = FilePin(sha256=Digest.of(b""), size=0)
        same = [Compared(path=str(n), declared="plots/", policy=policy, facts=one) for n, one in enumerate(facts)]
        judge(same)
        with pytest.raises(UserError, match="plots/"):
            judge(same[1:])
        unread = FileFacts(recorded=pin, found=None)
        judge([*same[1:], Compared(path="2", declared="plots/", policy=policy, facts=unread)])

    def test_a_broken_pattern_is_an_error(self) -> None:
        with pytest.raises(UserError, match="is no pattern"):
            judged("a.json", fit(), fit(mass=1), loosened("/[z-a]", rtol=1.0))

    def test_judged_again_with_another_policy(self) -> None:
        for rtol, verdict in ((1e-9, "different"), (1e-3, "tolerated")):
            assert judged("a.json", fit(), fit(mass=91.2001), loosened("/mass", rtol=rtol)).verdict == verdict


class TestGlobs:
    @pytest.mark.parametrize(
        ("pattern", "path", "fits"),
        [
            ("/mass", "/mass", True),
            ("mass", "/mass", True),
            ("/mass", "mass", True),
            ("/m*", "/mass", True),
            ("/*", "/fit/mass", False),
            ("/**", "/fit/mass", True),
            ("**", "/fit/mass", True),
            ("fit/**/pull", "fit/a/b/pull", True),
            ("toys/*", "toys/h1:values", True),
            ("h[0-9]:values", "h7:values", True),
            ("h[0]", "h[0]", True),
            ("h[0]", "h0", True),
            ("/MASS", "/mass", False),
            ("mas", "/mass", False),
        ],
    )
    def test_match(self, pattern: str, path: str, fits: bool) -> None:
        assert matcher(pattern)(path) is fits


class TestVerdicts:
    def test_the_worst_leaf_wins(self) -> None:
        rules = (Rule(match="/mass", rtol=1.0, because="a"), Rule(match="/bins", statistical=CHI2, because="b"))
        policy = Policy(require="compatible", rules=rules)
        other = [n + 7 for n in COUNTS]
        assert judged("a.json", fit(), fit(mass=91.3), policy).verdict == "tolerated"
        assert judged("a.json", fit(), fit(mass=91.3, bins=other), policy).verdict == "compatible"
        assert judged("a.json", fit(), fit(mass=91.3, bins=other, label="W"), policy).verdict == "different"

    def test_only_one_file(self) -> None:
        pin = FilePin(sha256=Digest.of(b""), size=0)
        for sides, verdict in (
            (Sides(name="a", recorded=pin, found=None), "missing"),
            (Sides(name="a", recorded=None, found=pin), "extra"),
        ):
            facts = compare_files(sides, Limits())
            [result] = judge([Compared(path="a", declared="a", facts=facts, policy=Policy(require="compatible"))])
            assert (result.verdict, result.passed) == (verdict, False)

    def test_bytes_that_are_not_at_hand(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a", "1")
        known = FilePin(sha256=Digest.of(b"2"), size=1)
        sides = Sides(name="a", recorded=known, found=sides_of("a", None, file).found, found_file=file)
        [result] = judge(
            [
                Compared(
                    path="a", declared="a", facts=compare_files(sides, Limits()), policy=Policy(require="compatible")
                )
            ]
        )
        assert (result.verdict, result.passed) == ("uncomparable", False)
        assert "digest only" in result.facts["obstacle"]["reason"]

    def test_a_missing_library_is_named_with_its_cure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def leaves(self: Json, file: Path, limits: Limits) -> Any:
            raise MissingExtra("JSON needs a library: pip install 'hep-preserve[json]'")

        monkeypatch.setattr(Json, "leaves", leaves)
        result = judged("a.json", "1", "2", Policy(require="compatible"))
        assert (result.verdict, result.passed) == ("uncomparable", False)
        assert result.facts["obstacle"]["hint"] == "pip install 'hep-preserve[json]'"

    @pytest.mark.parametrize("verdict", ["uncomparable", "missing", "extra"])
    def test_what_never_passes(self, verdict: str) -> None:
        assert [wanted for wanted in ORDER if passes(verdict, wanted)] == []

    def test_what_is_excluded_does_not_outweigh_a_difference(self) -> None:
        results = tuple(
            Judged(path=verdict, verdict=verdict, required="equivalent", passed=False, reader="x")
            for verdict in ("excluded", "different")
        )
        assert Comparison(results=results).verdict == "different"
        assert Comparison(results=results[:1]).verdict == "excluded"
        assert Comparison(results=()).verdict == "uncomparable"


class TestLeaves:
    @pytest.mark.parametrize(
        ("recorded", "found", "verdict"),
        [
            (leaf("x", "volatile", "2020"), leaf("x", "volatile", "2021"), "equivalent"),
            (leaf("x", "volatile", "2020"), leaf("y", "volatile", "2021"), "equivalent"),
            (leaf("x", "volatile", "2020"), leaf("x", "text", "2020"), "different"),
            (leaf("x", "opaque", b"1"), leaf("x", "opaque", b"1"), "equivalent"),
            (leaf("x", "opaque", b"1"), leaf("x", "opaque", b"2"), "different"),
            (leaf("x", "opaque", b"1"), leaf("x", "opaque", str(Digest.of(b"1"))), "equivalent"),
            (leaf("x", "opaque", b"1", "d1"), leaf("x", "opaque", b"1", "d2"), "different"),
            (leaf("x", "unreadable", "why"), leaf("x", "unreadable", "why"), "uncomparable"),
            (leaf("x", "unreadable", "why", "d"), leaf("x", "unreadable", "why", "d"), "equivalent"),
            (leaf("x", "unreadable", "why"), leaf("x", "num", np.zeros(1)), "uncomparable"),
            (leaf("x", "num", np.zeros(1), "d"), leaf("x", "num", 1 / np.ones(1), "d"), "equivalent"),
            (leaf("x", "num", np.zeros(1)), leaf("y", "num", np.zeros(1)), "different"),
        ],
    )
    def test_kinds(self, recorded: Leaf, found: Leaf, verdict: str) -> None:
        assert judged_leaves(made(recorded), made(found)).verdict == verdict

    def test_a_leaf_that_fails_to_load_is_uncomparable(self) -> None:
        def load() -> Any:
            raise KeyError("no such basket")

        broken = Leaf(path="x", kind="num", load=load)
        result = judged_leaves(made(broken), made(broken), loosened("x", rtol=1.0))
        assert result.verdict == "uncomparable"
        assert "no such basket" in result.facts["coverage"]["unreadable"][0]["why"]

    def test_digests_spare_loading(self) -> None:
        def load() -> Any:
            raise AssertionError("loaded")

        same = made(Leaf(path="x", kind="num", load=load, digest="d"))
        assert judged_leaves(same, same).verdict == "equivalent"

    @pytest.mark.parametrize(
        ("level", "fraction", "verdict"), [(8, 0.02, "tolerated"), (7, 0.0, "different"), (7, 0.25, "tolerated")]
    )
    def test_pixels(self, level: int, fraction: float, verdict: str) -> None:
        one = np.full((2, 2, 3), 100, dtype=np.uint8)
        other = one.copy()
        other[0, 0, 1] = 108
        policy = Policy(require="tolerated", pixels=Pixels(level=level, fraction=fraction))
        pair = made(leaf("p", "pixels", one)), made(leaf("p", "pixels", other))
        result = judged_leaves(*pair, replace(policy, because="fonts"))
        assert (result.verdict, result.facts["because"]) == (verdict, "fonts")
        assert judged_leaves(*pair).verdict == "different"


class TestStatistics:
    def test_a_compatible_histogram(self) -> None:
        policy = loosened("/bins", "compatible", statistical=CHI2)
        result = judged("a.json", fit(), fit(bins=[420, 880, 1620, 890, 405]), policy)
        assert (result.verdict, result.passed) == ("compatible", True)
        assert result.facts["differences"][0]["test"]["ndf"] == 4

    def test_another_shape_fails(self) -> None:
        policy = loosened("/bins", "compatible", statistical=CHI2)
        result = judged("a.json", fit(), fit(bins=[500, 800, 1600, 900, 400]), policy)
        assert result.verdict == "different"
        assert "after Holm" in result.facts["differences"][0]["why"]

    def test_a_lost_part_fails_whatever_the_test_says(self) -> None:
        policy = loosened("/bins", "compatible", statistical=CHI2)
        result = judged("a.json", fit(), fit(bins=[n * 95 // 100 for n in COUNTS]), policy)
        assert result.facts["differences"][0]["test"]["p"] > 0.99
        assert "yield is shifted by 0.05" in result.facts["differences"][0]["why"]

    def test_samples_may_differ_in_number(self) -> None:
        sample = [((n * 37) % 101) / 101 for n in range(300)]
        policy = loosened("/toys", "compatible", statistical=KS)
        assert judged("a.json", fit(toys=sample), fit(toys=sample[:270]), policy).verdict == "compatible"
        assert judged("a.json", fit(toys=sample), fit(toys=sample[:200]), policy).verdict == "different"
        assert judged("a.json", fit(toys=sample), fit(toys=[x / 2 for x in sample]), policy).verdict == "different"
        assert judged("a.json", fit(toys=sample), fit(toys="none"), policy).verdict == "different"

    def test_holm_is_over_all_results(self, tmp_path: Path) -> None:
        """p = 0.002 alone fails at 0.01; it does not among ten tests, most of which come out equal."""
        policy = loosened("/bins", "compatible", statistical=CHI2)
        pairs = [
            (
                write(tmp_path / f"{n}" / "a.json", fit()),
                write(tmp_path / f"{n}" / "b.json", fit(bins=[500, 800, 1600, 900, 400] if n == 0 else COUNTS, x=n)),
            )
            for n in range(10)
        ]
        compared = [
            Compared(
                path=str(n),
                declared=str(n),
                policy=policy,
                facts=compare_files(sides_of("a.json", *pair), Limits(), read_equal=True),
            )
            for n, pair in enumerate(pairs)
        ]
        alone, together = judge(compared[:1])[0], judge(compared)[0]
        tests = [row["test"] for result in (alone, together) for row in result.facts["differences"] if "test" in row]
        assert 0.001 < tests[0]["p"] < 0.01
        assert [one["p_holm"] for one in tests] == pytest.approx([tests[0]["p"], 10 * tests[0]["p"]])
        assert [rows(result)["/bins"] for result in (alone, together)] == ["different", "compatible"]


class TestFacts:
    def test_they_are_json_whatever_the_numbers(self) -> None:
        values = [float("nan"), float("inf"), 0.0, 1 << 70, None, True]
        result = judged("a.json", fit(x=values, y=[0.0, 1.0]), fit(x=values[::-1], y=[1.0, float("inf")]))
        assert json.loads(json.dumps(result.facts, allow_nan=False)) == result.facts
        [numbers] = [row["numbers"] for row in result.facts["differences"] if row["path"] == "/y"]
        assert (numbers["max_rel"], numbers["sum_found"]) == ("inf", "inf")

    def test_the_worst_come_first(self) -> None:
        found = fit(mass=91.3, width=5.0, label="W", bins=[float("nan"), *COUNTS[1:]])
        listed = judged("a.json", fit(), found, loosened("/width", rtol=9.0)).facts["differences"]
        assert [row["path"] for row in listed] == ["/bins", "/label", "/mass", "/width"]

    def test_coverage_says_what_was_not_compared(self) -> None:
        recorded = made(leaf("date", "volatile", "2020"), leaf("blob", "opaque", b"1"), leaf("n", "num", np.zeros(2)))
        found = made(leaf("date", "volatile", "2021"), leaf("blob", "opaque", b"1"), leaf("n", "num", np.ones(2)))
        result = judged_leaves(recorded, found, loosened("n", exclude=True))
        assert result.verdict == "equivalent"
        assert result.facts["leaves"] == {"all": 3, "equal": 1, "excluded": 1, "volatile": 1}
        assert result.facts["coverage"]["volatile"] == [{"path": "date", "recorded": "2020", "found": "2021"}]
        assert [one["path"] for one in result.facts["coverage"]["excluded"]] == ["n"]


class TestLimits:
    @pytest.mark.parametrize(
        ("name", "content", "limits"),
        [
            ("a.json", "[1" + " " * 1000, Limits(bytes=1000)),
            ("a.json", json.dumps([[n] for n in "abcdef"]), Limits(leaves=5)),
            ("a.txt", "line\n" * 10, Limits(leaves=5)),
            ("a.json", "[" * 8 + '"x"' + "]" * 8, Limits(depth=5)),
        ],
    )
    def test_too_much_is_uncomparable(self, name: str, content: str, limits: Limits) -> None:
        result = judged(name, content, content + " ", limits=limits)
        assert (result.verdict, result.passed) == ("uncomparable", False)
        assert result.facts["obstacle"]["reason"]

    def test_the_same_bytes_need_no_reading(self) -> None:
        assert judged("a.json", "[" * 8, "[" * 8, limits=Limits(bytes=1)).verdict == "identical"


KEYS = st.sampled_from(["a", "b", "c", "d/e", "~"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(TREES)
def test_anything_equals_itself_written_otherwise(tree: Any) -> None:
    assert judged("a.json", json.dumps(tree), json.dumps(tree, indent=1) + " ").verdict == "equivalent"


@settings(deadline=None, max_examples=60)
@given(TREES, TREES)
def test_facts_are_symmetric(one: Any, other: Any) -> None:
    texts = [json.dumps(tree) for tree in (one, other)]
    there, back = judged("a.json", *texts), judged("a.json", *texts[::-1])
    assert there.verdict == back.verdict
    assert rows(there) == rows(back)


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(KEYS, st.floats(-1e3, 1e3), min_size=2),
    st.dictionaries(KEYS, st.floats(-1e3, 1e3), min_size=2),
    st.floats(0, 2),
)
def test_a_rule_loosens_only_what_it_matches(one: dict[str, float], other: dict[str, float], rtol: float) -> None:
    both = {**one, "x": 1.0}, {**other, "x": 2.0}
    strict = judged("a.json", *map(json.dumps, both))
    loose = judged("a.json", *map(json.dumps, both), loosened("/x", rtol=rtol))
    before, after = rows(strict), rows(loose)
    assert {path: v for path, v in before.items() if path != "/x"} == {p: v for p, v in after.items() if p != "/x"}
    assert after["/x"] == ("tolerated" if rtol >= 1 else "different")
