"""A fingerprint stands in for a file: what it keeps, what it says, and that it never lets more pass than the bytes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import uproot
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pairs import Content, judged, loosened, write

from preserve.comparators import contents, fingerprint, trial
from preserve.comparators.comparing import Sides, compare_files
from preserve.comparators.fingerprint import take
from preserve.comparators.judging import Compared, judge
from preserve.comparators.leaves import Limits
from preserve.comparators.numbers import number_facts
from preserve.digest import hash_file
from preserve.documents.comparison import Judged, badness
from preserve.documents.fingerprint import MAX_BYTES, Fingerprint, LeafPrint, read_fingerprint
from preserve.documents.policy import Pixels, Policy, Rule, Statistical

LARGE = 20_000  # more numbers than a fingerprint keeps whole


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


def taken(place: Path, name: str, content: Content, limits: Limits | None = None) -> Fingerprint:
    """The fingerprint of a file, written and read again."""
    file = write(place / "taken" / name, content)
    return read_fingerprint(take(file, name, hash_file(file), limits or Limits()).to_bytes(), "it")


def by_print(
    place: Path, name: str, recorded: Content, found: Content, policy: Policy | None = None, both: bool = False
) -> Judged:
    """Judge with the recorded file's fingerprint (``both``: and the found one's) in place of its bytes."""
    policy = policy or Policy()
    known = taken(place, name, recorded)
    file = write(place / "found" / name, found)
    other = take(file, name, hash_file(file), Limits())
    sides = Sides(
        name=name,
        recorded=hash_file(place / "taken" / name),
        found=hash_file(file),
        found_file=None if both else file,
        recorded_print=known,
        found_print=other,
    )
    facts = compare_files(sides, Limits(), read_equal=bool(policy.rules))
    [result] = judge([Compared(path=name, declared=name, facts=facts, policy=policy)])
    return result


def rows(result: Judged) -> dict[str, Mapping[str, Any]]:
    return {row["path"]: row for row in result.facts["differences"]}


def numbers(values: Any) -> Callable[[Path], None]:
    def content(file: Path) -> None:
        with file.open("wb") as stream:
            np.save(stream, np.asarray(values), allow_pickle=False)

    return content


def hdf5(**arrays: Any) -> Callable[[Path], None]:
    def content(file: Path) -> None:
        with h5py.File(file, "w", track_order=False) as opened:
            for name, values in arrays.items():
                opened.create_dataset(name, data=values, track_times=False)

    return content


def root(counts: Any, **branches: Any) -> Callable[[Path], None]:
    def content(file: Path) -> None:
        with uproot.recreate(file) as opened:
            opened["h"] = (np.asarray(counts, dtype=float), np.linspace(60.0, 120.0, len(counts) + 1))
            if branches:
                opened["tree"] = {name: np.asarray(values) for name, values in branches.items()}

    return content


MASSES = np.random.default_rng(7).normal(91.2, 2.5, LARGE)
COUNTS = np.arange(60.0)


class TestWhatIsKept:
    def test_small_leaves_are_whole_and_large_ones_have_digest_and_statistics(self, place: Path) -> None:
        content = json.dumps({"mass": 91.25, "events": [1, 2, 3], "title": "Z", "all": MASSES.tolist()})
        found = taken(place, "fit.json", content)
        assert [leaf.path for leaf in found.leaves] == ["/all", "/events", "/mass", "/title"]
        large, events, mass, title = found.leaves
        assert (mass.values, mass.shape, mass.dtype) == ((91.25,), (), "<f8")
        assert (events.values, title.text) == ((1.0, 2.0, 3.0), "Z")
        assert large.values is None
        [known] = large.statistics
        assert known.n == LARGE
        assert float(known.sum or 0) == math.fsum(MASSES)
        assert (float(known.min or 0), float(known.max or 0)) == (MASSES.min(), MASSES.max())

    def test_a_histogram_of_root_is_whole_and_a_branch_is_not(self, place: Path) -> None:
        found = {leaf.path: leaf for leaf in taken(place, "h.root", root(COUNTS, px=MASSES)).leaves}
        assert found["h:values"].values == (0.0, *COUNTS, 0.0)
        assert found["h:x.edges"].values is not None
        assert found["tree/px"].values is None
        assert found["tree/px"].statistics[0].n == LARGE

    @pytest.mark.parametrize(
        "values",
        [
            np.array([True, False]),
            np.array([-128, 127], dtype="i1"),
            np.array([0, 2**64 - 1], dtype=">u8"),
            np.array([-(2**63)], dtype="i8"),
            np.array([0.1, math.nan, -math.inf, -0.0], dtype="f2"),
            np.array([[0.1, 1e-45], [3.4e38, math.inf]], dtype=">f4"),
            np.array([5e-324, 1.7e308]),
            np.array([1 + 2j, complex(math.nan, -math.inf)], dtype="c8"),
            np.array(3 - 1j),
            np.zeros((0, 3)),
        ],
    )
    def test_whole_numbers_come_back_as_they_were(self, place: Path, values: np.ndarray[Any, Any]) -> None:
        [leaf] = fingerprint.stand_ins(taken(place, "a.npy", numbers(values))).values()
        again = leaf.load()
        assert (again.shape, again.dtype) == (values.shape, values.dtype.newbyteorder("="))
        assert number_facts(values, again).n_diff == 0

    def test_one_that_cannot_be_read_says_why(self, place: Path) -> None:
        found = taken(place, "a.json", '{"mass": ')
        assert found.leaves == ()
        assert "not readable as JSON" in (found.obstacle or "")
        assert found.missing is None

    def test_the_missing_library_is_named(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = write(place / "a.root", root(COUNTS))
        monkeypatch.setitem(sys.modules, "uproot", None)
        token = trial._inside.set(True)  # the other process would find it
        try:
            found = take(file, "a.root", hash_file(file), Limits())
        finally:
            trial._inside.reset(token)
        assert (found.missing, found.leaves) == ("uproot", ())
        assert "pip install" in (found.obstacle or "")

    def test_types_that_are_not_numbers_are_known_by_their_digest(self, place: Path) -> None:
        for values in (np.array(["a", "bc"]), np.array([b"a"]), np.array(["2026-01-01"], dtype="M8[D]")):
            [leaf] = taken(place, "a.npy", numbers(values)).leaves
            assert leaf.digest is not None
            assert (leaf.values, leaf.statistics) == (None, ())

    def test_two_processes_write_the_same_bytes(self, place: Path) -> None:
        file = write(place / "h.root", root(COUNTS, px=MASSES, n=np.arange(LARGE)))
        code = (
            "import sys; from pathlib import Path; from preserve.comparators.fingerprint import take;"
            "from preserve.comparators.leaves import Limits; from preserve.digest import hash_file;"
            "p = Path(sys.argv[1]); sys.stdout.buffer.write(take(p, p.name, hash_file(p), Limits()).to_bytes())"
        )
        here = take(file, file.name, hash_file(file), Limits()).to_bytes()
        for extra in ({}, {"NPY_DISABLE_CPU_FEATURES": "AVX2 AVX512F", "PYTHONHASHSEED": "1"}):
            there = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code, str(file)], check=True, capture_output=True, env=extra
            )
            assert there.stdout == here

    def test_it_is_taken_by_another_process(self, place: Path) -> None:
        file = write(place / "h.root", root(COUNTS, px=MASSES))
        pin = hash_file(file)
        assert trial.fingerprint("h.root", file, pin, Limits()) == take(file, "h.root", pin, Limits()).to_bytes()


class TestBounds:
    def test_what_does_not_fit_is_said(self, place: Path) -> None:
        found = taken(place, "a.txt", "\n".join(many_lines()))
        assert len(found.to_bytes()) <= MAX_BYTES
        assert found.rest is not None
        assert found.rest.leaves + len(found.leaves) == 90_000

    def test_whole_leaves_give_way_the_largest_first(self) -> None:
        short = [
            LeafPrint(path=str(n), kind="num", dtype="<f8", shape=(10,), digest=contents_digest(n)) for n in (1, 2)
        ]
        whole = [replace(one, digest=None, values=(0.5,) * size) for one, size in zip(short, (10, 40), strict=True)]
        both = [fingerprint._Taken(short=one, whole=other) for one, other in zip(short, whole, strict=True)]
        leaves, shortened, rest = fingerprint.fitted(both, room=sum(len(one.line()) + 8 for one in short) + 1)
        assert ([leaf.whole for leaf in leaves], shortened, rest) == ([True, False], 1, None)
        leaves, shortened, rest = fingerprint.fitted(both, room=10_000)
        assert ([leaf.whole for leaf in leaves], shortened, rest) == ([True, True], 0, None)
        leaves, shortened, rest = fingerprint.fitted(both, room=len(short[0].line()) + 8)
        assert ([leaf.path for leaf in leaves], rest and rest.leaves) == (["1"], 1)

    def test_leaves_that_are_not_listed_are_equal_together_or_not_at_all(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fingerprint, "_ROOM", 30_000)
        lines = many_lines()[:1000]
        recorded = "\n".join(lines)
        same = by_print(place, "a.dat", recorded + "\n", recorded + "\n", loosened("line 1", atol=1))
        assert same.verdict == "identical"
        first = by_print(place, "a.dat", recorded, "\n".join(["other", *lines[1:]]))
        assert (first.verdict, rows(first).keys()) == ("different", {"line 1"})
        last = by_print(place, "a.dat", recorded, "\n".join([*lines[:-3], "other", *lines[-2:]]))
        assert (last.verdict, last.passed) == ("uncomparable", False)
        assert "no room" in last.facts["obstacle"]["reason"]


def many_lines() -> list[str]:
    """More text than a fingerprint has room for, and no table."""
    return [f"line number {n}" + " of many" * (n % 3) + "-" * 90 for n in range(90_000)]


def contents_digest(value: Any) -> Any:
    return contents.content_digest("num", np.asarray(value))


class TestStandingIn:
    """In place of the recorded file's bytes."""

    def test_the_same_bytes_are_identical_and_rules_are_checked(self, place: Path) -> None:
        content = json.dumps({"mass": 91.25})
        assert by_print(place, "a.json", content, content, loosened("/mass", rtol=1e-6)).verdict == "identical"

    def test_equal_leaves_are_equivalent(self, place: Path) -> None:
        masses = MASSES.tolist()
        spaced = by_print(place, "a.json", json.dumps({"m": masses}), json.dumps({"m": masses}, indent=1))
        assert spaced.verdict == "equivalent"
        again = by_print(place, "h.root", root(COUNTS, px=MASSES), root(COUNTS, px=MASSES))
        assert (again.verdict, again.reader) == ("equivalent", "root")
        assert "recorded" in again.facts["fingerprints"]

    def test_whole_leaves_are_compared_by_numbers(self, place: Path) -> None:
        moved = COUNTS * (1 + 1e-9)
        rule = loosened("h:values", rtol=1e-8)
        result = by_print(place, "h.root", root(COUNTS, px=MASSES), root(moved, px=MASSES), rule)
        row = rows(result)["h:values"]
        assert row["verdict"] == "tolerated"
        assert row["numbers"]["max_rel"] == pytest.approx(1e-9, rel=1e-3)

    def test_a_tolerance_that_is_passed_is_different(self, place: Path) -> None:
        result = by_print(place, "a.json", '{"m": 91.2}', '{"m": 91.3}', loosened("/m", rtol=1e-6))
        assert (result.verdict, rows(result)["/m"]["beyond"]) == ("different", 1)

    def test_a_histogram_is_tested(self, place: Path) -> None:
        counts, other = COUNTS + 100, COUNTS + 100
        other[3] += 8
        wanted = Statistical(test="chi2", alpha=0.01, max_yield_shift=0.01)
        policy = Policy(require="compatible", rules=(Rule(match="h:*", statistical=wanted, because="a seed"),))
        result = by_print(place, "h.root", root(counts), root(other), policy)
        assert rows(result)["h:values"]["verdict"] == "compatible"

    @pytest.mark.parametrize(
        "rule", [None, {"rtol": 1.0}, {"statistical": Statistical(test="ks", alpha=0.01, max_yield_shift=1.0)}]
    )
    @pytest.mark.parametrize("both", [False, True])
    def test_statistics_alone_never_let_pass(self, place: Path, rule: dict[str, Any] | None, both: bool) -> None:
        moved = MASSES.copy()
        moved[5] *= 1 + 1e-15
        policy = loosened("**", "compatible", **rule) if rule else Policy(require="compatible")
        result = by_print(place, "a.npy", numbers(MASSES), numbers(moved), policy, both)
        assert (result.verdict, result.passed) == ("uncomparable", False)
        [row] = result.facts["differences"]
        assert row["state"] == "changed"
        assert row["statistics"]["recorded"][0]["sum"] == repr(math.fsum(MASSES))
        assert row["statistics"]["found"][0]["sum"] == repr(math.fsum(moved))
        assert "only a digest and statistics were kept" in row["why"]

    def test_what_moved_is_told(self, place: Path) -> None:
        moved = MASSES.copy()
        moved[MASSES.argmax()] = math.nan
        [row] = by_print(place, "a.npy", numbers(MASSES), numbers(moved)).facts["differences"]
        assert f"max {float(MASSES.max())} was recorded, {float(np.nanmax(moved))} is found" in row["why"]
        assert "number of NaN 0 was recorded, 1 is found" in row["why"]

    def test_an_excluded_leaf_is_excluded(self, place: Path) -> None:
        policy = Policy(rules=(Rule(match="b", exclude=True, because="for the test"),))
        recorded, found = hdf5(a=[1.0], b=MASSES), hdf5(a=[1.0], b=MASSES + 1)
        result = by_print(place, "a.h5", recorded, found, policy)
        assert (result.verdict, result.passed) == ("equivalent", True)

    def test_types_shapes_texts_and_readers_that_differ_are_different(self, place: Path) -> None:
        for found in (numbers(MASSES.astype("f4")), numbers(MASSES.reshape(2, -1))):
            assert by_print(place, "a.npy", numbers(MASSES), found, loosened("**", rtol=1)).verdict == "different"
        long = "words " * 500
        assert by_print(place, "a.json", json.dumps([long]), json.dumps([long + "!"])).verdict == "different"
        assert by_print(place, "a.json", json.dumps([long]), numbers(COUNTS)).verdict == "different"
        assert by_print(place, "a.json", "[null]", "[[]]").verdict == "different"

    def test_missing_and_new_leaves_are_different(self, place: Path) -> None:
        for one, other in (('{"a": 1}', '{"a": 1, "b": 2}'), ('{"a": 1, "b": 2}', '{"a": 1}')):
            assert by_print(place, "a.json", one, other).verdict == "different"

    def test_metadata_do_not_count(self, place: Path) -> None:
        result = by_print(place, "h.root", root(COUNTS), root(COUNTS))
        assert {one["path"] for one in result.facts["coverage"]["volatile"]} >= {"file"}

    def test_figures_known_by_their_digest(self, place: Path) -> None:
        pillow = pytest.importorskip("PIL.Image", reason="the images extra belongs to the tests")
        one = pillow.new("RGB", (40, 30), (10, 20, 30))
        other = pillow.new("RGB", (40, 30), (10, 20, 31))
        recorded, found = (lambda file, image=image: image.save(file, "PNG") for image in (one, other))
        again = by_print(place, "a.png", recorded, lambda file: one.save(file, "PNG", compress_level=1))
        assert again.verdict == "equivalent"
        assert by_print(place, "a.png", recorded, found).verdict == "different"
        loose = Policy(require="tolerated", pixels=Pixels(level=8, fraction=1.0))
        assert by_print(place, "a.png", recorded, found, loose).verdict == "uncomparable"

    def test_one_without_leaves_judges_nothing(self, place: Path) -> None:
        result = by_print(place, "a.json", "{broken", '{"a": 1}')
        assert result.verdict == "uncomparable"
        assert "not readable as JSON" in result.facts["obstacle"]["reason"]

    @given(
        recorded=npst.arrays(st.sampled_from(["f8", "f4", "i8", "u1", "?"]), npst.array_shapes(max_side=4)),
        found=npst.arrays(st.sampled_from(["f8", "f4", "i8", "u1", "?"]), npst.array_shapes(max_side=4)),
        near=st.booleans(),
        whole=st.booleans(),
        rtol=st.sampled_from([0.0, 1e-6, 1.0]),
    )
    @settings(max_examples=60, deadline=None)
    def test_never_a_weaker_verdict_than_with_the_bytes(
        self, tmp_path_factory: pytest.TempPathFactory, recorded: Any, found: Any, near: bool, whole: bool, rtol: float
    ) -> None:
        place = tmp_path_factory.mktemp("pair")
        if near:
            found = recorded.copy()
            if found.size and found.dtype.kind in "fiu":
                with np.errstate(all="ignore"):
                    found.reshape(-1)[0] += found.dtype.type(1)
        if not whole:  # too many to be kept
            recorded, found = (np.resize(one, (LARGE, *one.shape)) for one in (recorded, found))
        policy = loosened("array", rtol=rtol)
        by_bytes = judged("a.npy", numbers(recorded), numbers(found), policy)
        result = by_print(place, "a.npy", numbers(recorded), numbers(found), policy)
        assert badness(result.verdict) >= badness(by_bytes.verdict)
        if whole or by_bytes.verdict in ("identical", "equivalent"):
            assert result.verdict == by_bytes.verdict


class TestExactness:
    @given(npst.arrays("f8", st.integers(1, 40), elements=st.floats(allow_nan=False, allow_infinity=False)))
    @settings(max_examples=300, deadline=None)
    def test_sums_are_those_of_fsum(self, values: np.ndarray[Any, Any]) -> None:
        total = contents.ExactSum()
        total.add(values)
        try:
            assert total.value() == math.fsum(values)
        except OverflowError:  # which fsum raises half-way already
            assert abs(total.value()) > 1e300 or math.isfinite(total.value())

    def test_sums_do_not_depend_on_the_order(self) -> None:
        values = np.random.default_rng(3).normal(size=300_000) * 10.0 ** np.random.default_rng(4).integers(
            -20, 20, 300_000
        )
        [one], [other] = contents.statistics(values), contents.statistics(values[::-1])
        assert one == other
        assert one.sum == repr(math.fsum(values))

    def test_sums_of_integers_are_exact(self) -> None:
        [known] = contents.statistics(np.full(70_000, 2**64 - 1, dtype="u8"))
        assert known.sum == str(70_000 * (2**64 - 1))
        [known] = contents.statistics(np.full(3, -(2**63), dtype="i8"))
        assert (known.sum, known.min) == (str(-3 * 2**63), str(-(2**63)))

    def test_a_sum_beyond_all_doubles_is_infinite(self) -> None:
        [known] = contents.statistics(np.full(10, -1.7e308))
        assert (known.sum, known.infinite) == ("-inf", 0)

    @pytest.mark.parametrize("kind", ["f2", "f4", "f8", "g", "c8", "c16"])
    def test_digests_know_values_only(self, kind: str) -> None:
        plain = np.array([0.0, math.nan, 1.5], dtype=kind)
        signed = np.array([-0.0, -math.nan, 1.5], dtype=kind)
        assert contents_digest(plain) == contents_digest(signed)
        assert contents_digest(plain) == contents_digest(plain.astype(plain.dtype.newbyteorder(">")))
        assert contents_digest(plain) != contents_digest(plain[:2])
        assert contents_digest(plain) != contents_digest(plain.reshape(3, 1))

    def test_padding_is_no_content(self) -> None:
        packed, aligned = ([("a", "i1"), ("b", "f8")], False), ([("a", "i1"), ("b", "f8")], True)
        arrays = [np.full(3, 7, dtype=np.dtype(fields, align=align)) for fields, align in (packed, aligned)]
        arrays[1].view("u1").reshape(3, -1)[:, 1:8] = 99
        assert contents_digest(arrays[0]) == contents_digest(arrays[1])
