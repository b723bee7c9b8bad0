"""Mutations: what is changed in a file, and the verdict that it must get. Files by the libraries that write them."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import pickle
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pairs import Content, judged, leaves, write

from preserve.comparators.leaves import Limits

EQUIVALENT, DIFFERENT, IDENTICAL, UNCOMPARABLE = "equivalent", "different", "identical", "uncomparable"

FIT: dict[str, Any] = {
    "mass": 91.1876,
    "errors": {"stat": 0.0021, "syst": None},
    "bins": [1, 2.5, 3, 9007199254740993],
    "matrix": [[1.0, 0.5], [0.5, 1.0]],
    "names": ["barrel", "endcap"],
    "converged": True,
    "events": 9007199254740993,
}

Mutation = Callable[[dict[str, Any]], Any]


def put(path: str, value: Any) -> Mutation:
    """Set what stands at a path."""

    def mutate(tree: dict[str, Any]) -> None:
        *folders, last = path.split("/")
        place: Any = tree
        for part in folders:
            place = place[int(part) if part.isdigit() else part]
        place[int(last) if last.isdigit() else last] = value

    return mutate


def rename(tree: dict[str, Any]) -> None:
    tree["m"] = tree.pop("mass")


def reorder(tree: dict[str, Any]) -> dict[str, Any]:
    return dict(reversed(tree.items()))


TREES: dict[str, tuple[Mutation, str]] = {
    "nothing": (lambda tree: None, IDENTICAL),
    "order of keys": (reorder, EQUIVALENT),
    "a number's last digit": (put("mass", 91.18760000000002), DIFFERENT),
    "a whole number for the same with a point": (put("matrix/0/0", 1), EQUIVALENT),
    "one bin": (put("bins/1", 2.6), DIFFERENT),
    "an integer above 2**53": (put("events", 9007199254740992), DIFFERENT),
    "an integer above 2**53 in a list with fractions": (put("bins/3", 9007199254740992), DIFFERENT),
    "an element of a matrix": (put("matrix/1/0", 0.25), DIFFERENT),
    "a matrix with another shape": (put("matrix", [1.0, 0.5, 0.5, 1.0]), DIFFERENT),
    "NaN for a number": (put("bins/0", float("nan")), DIFFERENT),
    "a text": (put("names/1", "forward"), DIFFERENT),
    "order of texts": (put("names", ["endcap", "barrel"]), DIFFERENT),
    "a number as text": (put("mass", "91.1876"), DIFFERENT),
    "a boolean as number": (put("converged", 1), DIFFERENT),
    "null as text": (put("errors/syst", "null"), DIFFERENT),
    "null as nothing": (lambda tree: tree["errors"].pop("syst"), DIFFERENT),
    "a key renamed": (rename, DIFFERENT),
    "a key added": (put("new", {}), DIFFERENT),
    "an empty list for an empty mapping": (put("errors", []), DIFFERENT),
}


def write_json(tree: Any, **options: Any) -> bytes:
    return json.dumps(tree, **options).encode()


def write_yaml(tree: Any, **options: Any) -> bytes:
    return yaml.safe_dump(tree, sort_keys=False, **options).encode()


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize(("ending", "write"), [("json", write_json), ("yaml", write_yaml)])
def test_trees(ending: str, write: Callable[[Any], bytes], name: str) -> None:
    mutate, verdict = TREES[name]
    tree = json.loads(json.dumps(FIT))
    replaced = mutate(tree)
    result = judged(f"fit.{ending}", write(FIT), write(replaced if isinstance(replaced, dict) else tree))
    assert (result.verdict, result.passed) == (verdict, verdict in (IDENTICAL, EQUIVALENT))


@pytest.mark.parametrize(
    ("recorded", "found", "verdict"),
    [
        ('{"a": 1, "a": 2}', '{"a": 2, "a": 1}', DIFFERENT),  # a key that comes twice hides nothing
        ('{"a": 1, "a": 2}', '{"a": 2}', DIFFERENT),
        ('{"a/b": 1}', '{"a": {"b": 1}}', DIFFERENT),
        ('{"a~1b": 1}', '{"a/b": 1}', DIFFERENT),
        ('{"": 1}', '{" ": 1}', DIFFERENT),
        ('{"a": [0.0]}', '{"a":[-0.0]}', EQUIVALENT),
        ('{"a": [NaN, Infinity]}', '{"a":[NaN,Infinity]}', EQUIVALENT),
        ('{"a": [NaN, Infinity]}', '{"a":[NaN,-Infinity]}', DIFFERENT),
        ('{"a": 123456789012345678901234567890}', '{"a": 123456789012345678901234567891}', DIFFERENT),
        ("[[1, 2], [3]]", "[[1], [2, 3]]", DIFFERENT),
        ("[[], [1]]", "[[1], []]", DIFFERENT),
        ("[[]]", "[]", DIFFERENT),
        ("[1]", "1", DIFFERENT),
        ('"Z"', '"\\u005a"', EQUIVALENT),
        ("1.10", "1.1", EQUIVALENT),
        ("{", "{ ", UNCOMPARABLE),
        ("1" * 5000, "2" * 5000, UNCOMPARABLE),
        ("[" * 200 + "]" * 200, "[" * 201 + "]" * 201, UNCOMPARABLE),
        ("[" * 100_000, "[" * 100_001, UNCOMPARABLE),
    ],
)
def test_json_by_hand(recorded: str, found: str, verdict: str) -> None:
    assert judged("a.json", recorded, found).verdict == verdict


@pytest.mark.parametrize(
    ("recorded", "found", "verdict"),
    [
        ("a: 1e-05\n", "a: 0.00001 # the same\n", EQUIVALENT),
        ("a: &x [1, 2]\nb: *x\n", "a: [1, 2]\nb: [1, 2]\n", EQUIVALENT),
        ("a: &x [1, 2]\nb: *x\n", "a: &x [1, 2]\nb: [1, 3]\n", DIFFERENT),
        ("a: .nan\n", "a: .NaN\n", EQUIVALENT),
        ("a: .inf\n", "a: -.inf\n", DIFFERENT),
        ("a: '1'\n", "a: 1\n", DIFFERENT),
        ("a: no\n", "a: false\n", DIFFERENT),  # YAML 1.2: no is a text
        ("a: !!python/object:os.system x\n", "a: x\n", DIFFERENT),
        ("a: !!python/object/apply:os.system [x]\n", "a: [x]\n", DIFFERENT),
        ("a: 1\n---\nb: 2\n", "a: 1\n---\nb: 3\n", DIFFERENT),
        ("a: 1\n---\nb: 2\n", "---\na: 1\n---\nb:   2\n", EQUIVALENT),
        ("a: 1\na: 2\n", "a: 2\na: 1\n", DIFFERENT),
        ("a: [1\n", "a: [2\n", UNCOMPARABLE),
        ("? [a]\n: 1\n", "? [b]\n: 1\n", UNCOMPARABLE),
        ("a: *x\n", "a: *y\n", UNCOMPARABLE),
    ],
)
def test_yaml_by_hand(recorded: str, found: str, verdict: str) -> None:
    assert judged("a.yaml", recorded, found).verdict == verdict


def test_aliases_that_multiply_are_no_bomb() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    text = "\n".join(lines)
    assert judged("a.yaml", text, text + "\n").verdict == UNCOMPARABLE


TABLE = [["x", "y", "label"], ["1", "2.5", "a b"], ["2", "-1e-3", 'with "quotes", and comma']]


def table(delimiter: str = ",", **cells: str) -> str:
    rows = [list(row) for row in TABLE]
    for place, text in cells.items():
        rows[int(place[1])][int(place[2])] = text
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (table(), IDENTICAL),
        (table(";"), EQUIVALENT),
        (table(_10="1.0"), EQUIVALENT),
        (table().replace("\r\n", "\n"), EQUIVALENT),
        (table(_21="-0.001"), EQUIVALENT),
        (table(_21="-0.0010000000000000002"), DIFFERENT),
        (table(_21="nan"), DIFFERENT),
        (table(_22="other"), DIFFERENT),
        (table(_10="01"), DIFFERENT),
        (table(_00="z"), DIFFERENT),
        (table() + "3,4,c\r\n", DIFFERENT),
        ("# from a run\r\n" + table(), DIFFERENT),
        (table() + "3,4\r\n", DIFFERENT),
        ("\r\n".join(",".join(row[::-1]) for row in [["x", "y", "l"], ["1", "2", "3"]]), DIFFERENT),
    ],
)
def test_tables(found: str, verdict: str) -> None:
    assert judged("points.csv", table(), found).verdict == verdict


def test_columns_have_the_names_of_the_header() -> None:
    assert set(leaves("points.csv", table())) == {"columns", "x", "y", "label"}
    assert set(leaves("points.dat", "1 2\n3 4\n")) == {"columns", "1", "2"}
    assert set(leaves("twice.csv", "x,x\n1,2\n")) == {"columns", "x", "x#2"}


@pytest.mark.parametrize(
    ("recorded", "found", "verdict"),
    [
        ("91.1880\n", "91.188\n", EQUIVALENT),
        ("91.188\n", "91.187\n", DIFFERENT),
        ("1 2\n\n3 4\n", "1 2\n3 4\n\n", DIFFERENT),  # blank lines part the blocks of a plot
        ("1.0D+01 2\n", "10  2\n", EQUIVALENT),
        ("mass is 91\nfine\n", "mass is 91\nfine \n", DIFFERENT),
        ("a\n", "a", DIFFERENT),
        ("ä\n", "a\u0308\n", DIFFERENT),
        ("ä", "ä".encode("latin-1").decode("latin-1").encode("utf-16").decode("latin-1"), DIFFERENT),
    ],
)
def test_text(recorded: str, found: str, verdict: str) -> None:
    assert judged("mass.txt", recorded, found).verdict == verdict


def test_a_line_can_be_named() -> None:
    assert judged("log.txt", "date: 1\nfine\n", "date: 2\nfine\n").facts["differences"][0]["path"] == "line 1"


def test_text_that_ends_as_something_else() -> None:
    start = b"text\n" * 20_000
    assert judged("log", start + b"\xff\x01", start + b"\xff\x02").verdict == DIFFERENT


ARRAY = np.linspace(0, 1, 20).reshape(4, 5)
EVENTS = np.array([(1, 2.5), (2, 3.5)], dtype=[("run", "<i8"), ("pt", "<f8")])


def npy(values: Any, **options: Any) -> Content:
    return lambda path: np.save(path, values, **options)


def changed(values: np.ndarray[Any, Any], at: Any, value: Any) -> np.ndarray[Any, Any]:
    copy = values.copy()
    copy[at] = value
    return copy


def with_nan(row: int) -> np.ndarray[Any, Any]:
    return changed(ARRAY, (row, 0), np.nan)


@pytest.mark.parametrize(
    ("recorded", "found", "verdict"),
    [
        (ARRAY, ARRAY.copy(), IDENTICAL),
        (ARRAY, np.asfortranarray(ARRAY), EQUIVALENT),
        (ARRAY, ARRAY.astype(">f8"), EQUIVALENT),
        (ARRAY, changed(ARRAY, (3, 4), np.nextafter(1.0, 0)), DIFFERENT),
        (with_nan(0), np.asfortranarray(with_nan(0)), EQUIVALENT),
        (with_nan(0), with_nan(1), DIFFERENT),
        (ARRAY, ARRAY.astype("f4"), DIFFERENT),
        (ARRAY, ARRAY.reshape(5, 4), DIFFERENT),
        (ARRAY, ARRAY[::-1], DIFFERENT),
        (ARRAY, ARRAY[:3], DIFFERENT),
        (np.arange(3, dtype="u8"), np.arange(3, dtype="i8"), DIFFERENT),
        (np.array([1 << 53]), np.array([(1 << 53) + 1]), DIFFERENT),
        (EVENTS, EVENTS.astype([("run", ">i8"), ("pt", "<f8")]), EQUIVALENT),
        (EVENTS, changed(EVENTS, 0, (1, 2.6)), DIFFERENT),
        (EVENTS, EVENTS[::-1], DIFFERENT),
        (EVENTS, EVENTS.astype([("run", "<i8"), ("eta", "<f8")]), DIFFERENT),
        (np.array(["a", "b"]), np.array(["a", "c"]), DIFFERENT),
        (np.array(1.0), np.array([1.0]), DIFFERENT),
        (np.zeros((0, 3)), np.zeros((0, 4)), DIFFERENT),
        (np.array([{}], dtype=object), np.array([[]], dtype=object), DIFFERENT),
    ],
)
def test_arrays(recorded: Any, found: Any, verdict: str) -> None:
    assert judged("a.npy", npy(recorded), npy(found)).verdict == verdict


def npz(arrays: Mapping[str, Any], *, packed: bool = False) -> Content:
    return lambda path: (np.savez_compressed if packed else np.savez)(path, **arrays)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (npz({"x": ARRAY, "events": EVENTS}), IDENTICAL),
        (npz({"x": ARRAY, "events": EVENTS}, packed=True), EQUIVALENT),
        (npz({"events": EVENTS, "x": ARRAY}), EQUIVALENT),
        (npz({"x": changed(ARRAY, (0, 0), 1e-300), "events": EVENTS}), DIFFERENT),
        (npz({"x": ARRAY, "events": changed(EVENTS, 1, (3, 3.5))}), DIFFERENT),
        (npz({"y": ARRAY, "events": EVENTS}), DIFFERENT),
        (npz({"x": ARRAY}), DIFFERENT),
        (npz({"x": ARRAY, "events": EVENTS, "z": np.zeros(0)}), DIFFERENT),
    ],
)
def test_sets_of_arrays(found: Content, verdict: str) -> None:
    assert judged("a.npz", npz({"x": ARRAY, "events": EVENTS}), found).verdict == verdict


class Bomb:
    """Unpickling it would end the tests."""

    def __reduce__(self) -> Any:
        return (exit, (77,))


def test_pickles_are_never_loaded() -> None:
    objects = np.array([Bomb()], dtype=object)
    for name, content in (
        ("a.npy", npy(objects)),
        ("a.npz", npz({"x": objects, "y": ARRAY})),
        ("a.pkl", pickle.dumps(Bomb())),
    ):
        kinds = {leaf.path: leaf.kind for leaf in leaves(name, content).values()}
        assert "opaque" in kinds.values()
        assert judged(name, content, lambda path: path.write_bytes(pickle.dumps([1]))).verdict == DIFFERENT


def test_a_large_array_is_mapped() -> None:
    values = np.zeros((3 << 20, 1))
    assert judged("a.npy", npy(values), npy(changed(values, -1, 1))).facts["differences"][0]["numbers"]["n_diff"] == 1


@pytest.mark.parametrize("cut", [3, 9, 40, 127, 130])
def test_broken_arrays(cut: int) -> None:
    stream = io.BytesIO()
    np.save(stream, ARRAY)
    whole = stream.getvalue()
    assert judged("a.npy", whole, whole[:cut]).verdict in (DIFFERENT, UNCOMPARABLE)
    assert judged("a.npy", whole[:cut], whole[: cut - 1] + b"x").verdict in (DIFFERENT, UNCOMPARABLE)
    assert judged("a.npy", whole, whole + b"more").verdict == DIFFERENT


Members = Mapping[str, bytes]
MEMBERS: Members = {"fit/mass.json": b'{"mass": 91.2}', "notes.txt": b"fine\n", "b.bin": b"\0\1"}


def zipped(members: Members = MEMBERS, *, year: int = 2020, method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0)), data, method)
    return stream.getvalue()


def tarred(members: Members = MEMBERS, *, time: int = 1, mode: int = 0o644, **also: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(data), time, mode
            archive.addfile(info, io.BytesIO(data))
        for name, target in also.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return stream.getvalue()


def without(name: str) -> Members:
    return {key: value for key, value in MEMBERS.items() if key != name}


ANOTHER_NUMBER = {**MEMBERS, "fit/mass.json": b'{"mass": 91.3}'}
OTHER_SPACE = {**MEMBERS, "fit/mass.json": b'{"mass":91.2}'}


@pytest.mark.parametrize("write", [zipped, tarred])
@pytest.mark.parametrize(
    ("members", "verdict"),
    [
        (MEMBERS, IDENTICAL),
        (dict(reversed(MEMBERS.items())), EQUIVALENT),
        (OTHER_SPACE, EQUIVALENT),
        (ANOTHER_NUMBER, DIFFERENT),
        (without("b.bin"), DIFFERENT),
        ({**MEMBERS, "new": b""}, DIFFERENT),
        ({**MEMBERS, "new/": b""}, DIFFERENT),
        ({**MEMBERS, "b.bin": b"\0\2"}, DIFFERENT),
        ({**without("notes.txt"), "other.txt": b"fine\n"}, DIFFERENT),
    ],
)
def test_members(write: Callable[[Members], bytes], members: Members, verdict: str) -> None:
    assert judged("all.bundle", write(MEMBERS), write(members)).verdict == verdict


@pytest.mark.parametrize(
    ("name", "recorded", "found", "verdict"),
    [
        ("a.zip", zipped(), zipped(year=2021), EQUIVALENT),
        ("a.zip", zipped(), zipped(method=zipfile.ZIP_DEFLATED), EQUIVALENT),
        ("a.tar", tarred(), tarred(time=2), EQUIVALENT),
        ("a.tar", tarred(), tarred(mode=0o755), DIFFERENT),
        ("a.tar", tarred(link="here"), tarred(link="there"), DIFFERENT),
        ("a.json.gz", gzip.compress(b"[1,2]", mtime=1), gzip.compress(b"[1, 2]", mtime=2), EQUIVALENT),
        ("a.json.gz", gzip.compress(b"[1,2]", mtime=1), gzip.compress(b"[1,3]", mtime=1), DIFFERENT),
        ("a.csv.bz2", bz2.compress(b"x,y\n1,2\n"), bz2.compress(b"x,y\n1,2.0\n"), EQUIVALENT),
        ("a.csv.bz2", bz2.compress(b"x,y\n1,2\n"), bz2.compress(b"x,y\n1,3\n"), DIFFERENT),
        ("a.xz", lzma.compress(b"some text\n"), lzma.compress(b"some text\n", preset=0), EQUIVALENT),
        ("a.xz", lzma.compress(b"some text\n"), lzma.compress(b"some text"), DIFFERENT),
        ("a.gz", gzip.compress(b"text", mtime=1), bz2.compress(b"text"), DIFFERENT),
        ("a.tar.gz", gzip.compress(tarred(), mtime=1), gzip.compress(tarred(time=3), mtime=2), EQUIVALENT),
        ("a.tgz", gzip.compress(tarred(), mtime=1), gzip.compress(tarred(ANOTHER_NUMBER), mtime=1), DIFFERENT),
        ("a.zip", zipped({"x.zip": zipped()}), zipped({"x.zip": zipped(year=2021)}), EQUIVALENT),
        ("a.zip", zipped({"x.zip": zipped()}), zipped({"x.zip": zipped(ANOTHER_NUMBER)}), DIFFERENT),
        ("a.zip", zipped({"a.json": b"{"}, year=2020), zipped({"a.json": b"{"}, year=2021), EQUIVALENT),
        ("a.zip", zipped({"a.json": b"{"}), zipped({"a.json": b"{{"}), UNCOMPARABLE),
        ("a.zip", zipped()[:-30], zipped(year=2021)[:-30], UNCOMPARABLE),
        ("a.gz", gzip.compress(b"text" * 99)[:-9], gzip.compress(b"text" * 98)[:-9], UNCOMPARABLE),
    ],
)
def test_containers(name: str, recorded: bytes, found: bytes, verdict: str) -> None:
    assert judged(name, recorded, found).verdict == verdict


@pytest.mark.parametrize(
    ("name", "content", "limits"),
    [
        ("a.gz", gzip.compress(b"0" * 10_000), Limits(ratio=10)),
        ("a.gz", gzip.compress(b"0" * 10_000), Limits(bytes=9_999)),
        ("a.zip", zipped({"x": b"0" * 10_000}, method=zipfile.ZIP_DEFLATED), Limits(ratio=10)),
        ("a.zip", zipped({"x": b"0" * 6_000, "y": b"0" * 6_000}), Limits(bytes=10_000)),
        ("a.zip", zipped({str(n): b"" for n in range(11)}), Limits(members=10)),
        ("a.tar", tarred({str(n): b"" for n in range(11)}), Limits(members=10)),
        ("a.tar", tarred({"x": b"0" * 10_000}), Limits(bytes=9_999)),
        ("a.zip", zipped({"x.zip": zipped({"y.zip": zipped()})}), Limits(depth=1)),
        ("a.zip", zipped({"x.zip": zipped({str(n): b"" for n in range(9)}), "y": b""}), Limits(members=10)),
        ("a.npz", npz({"x": np.zeros(10_000)}, packed=True), Limits(ratio=10)),
        ("a.npy", npy(np.zeros(10_000)), Limits(bytes=9_999)),
    ],
)
def test_bombs(name: str, content: Content, limits: Limits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    written = write(tmp_path / "one" / name, content).read_bytes()
    result = judged(name, written, written + b"\0", limits=limits)
    assert result.verdict == UNCOMPARABLE
    assert not list(tmp_path.glob("preserve-compare-*"))


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.txt"])
def test_values_that_would_fill_the_memory(name: str) -> None:
    content = "[" + "[],\n" * 10_000_001
    assert "values" in judged(name, content, content + " ").facts["obstacle"]["reason"]


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }",
        b"{'descr': '|V99999999999', 'fortran_order': False, 'shape': (1,), }",
        b"{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }",
        b"__import__('os').abort()",
    ],
)
def test_headers_that_lie(header: bytes) -> None:
    whole = b"\x93NUMPY\x01\x00\x76\x00" + header.ljust(117) + b"\n" + b"12345678"
    assert judged("a.npy", whole, whole + b"9").verdict in (UNCOMPARABLE, DIFFERENT)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["a.json", "a.yaml", "a.csv", "a.npy", "a.npz", "a.zip", "a.tar", "a.json.gz"]), st.data())
def test_a_damaged_file_gets_a_verdict(name: str, data: st.DataObject) -> None:
    whole = DAMAGEABLE[name]
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    result = judged(name, whole, damaged)
    assert result.passed == (result.verdict in (IDENTICAL, EQUIVALENT))


DAMAGEABLE: dict[str, bytes] = {
    "a.json": write_json(FIT),
    "a.yaml": write_yaml(FIT),
    "a.csv": table().encode(),
    "a.zip": zipped(),
    "a.tar": tarred(),
    "a.json.gz": gzip.compress(write_json(FIT)),
}
for _name, _write in (("a.npy", npy(EVENTS)), ("a.npz", npz({"x": ARRAY, "events": EVENTS}))):
    with tempfile.TemporaryDirectory() as _scratch:
        DAMAGEABLE[_name] = write(Path(_scratch) / _name, _write).read_bytes()


def test_a_member_can_be_named() -> None:
    [row] = judged("a.zip", zipped(), zipped(ANOTHER_NUMBER)).facts["differences"]
    assert (row["path"], row["numbers"]["worst"][0]["found"]) == ("fit/mass.json!/mass", 91.3)


def test_names_that_lead_elsewhere_stay_names(tmp_path: Path) -> None:
    evil = {"../../evil": b"1\n", "/etc/evil": b"2\n"}
    result = judged("a.zip", zipped(evil), zipped(evil, year=2021))
    assert result.verdict == EQUIVALENT
    assert list(tmp_path.parent.parent.glob("evil")) == []


def test_scratch_folders_go_with_the_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = leaves("a.tgz", gzip.compress(tarred()))
    assert found["notes.txt!line 1"].load() == "fine"
    assert list(tmp_path.glob("preserve-compare-*"))
    found.clear()
    assert not list(tmp_path.glob("preserve-compare-*"))
