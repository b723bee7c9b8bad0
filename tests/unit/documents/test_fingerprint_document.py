"""Fingerprints as files: one form, read strictly, whatever somebody wrote into them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_archive import artifact, contents

from preserve.digest import Digest
from preserve.documents.archive import contents_of, name_fault
from preserve.documents.fingerprint import (
    MAX_BYTES,
    MOST_WORDS,
    WHOLE_NUMBERS,
    WHOLE_TEXT,
    Fingerprint,
    LeafPrint,
    Rest,
    Statistics,
    read_fingerprint,
)
from preserve.errors import UserError

A, B = Digest.of(b"a"), Digest.of(b"b")
KNOWN = Statistics(n=20_000, nan=1, sum="12.5", min="-1e-05", max="2.5e+300")
FULL = Fingerprint(
    sha256=A,
    size=7,
    reader="root",
    versions={"preserve": "1", "numpy": "2.4.6", "uproot": "5.7.1"},
    shortened=1,
    rest=Rest(leaves=3, digest=B),
    leaves=(
        LeafPrint(path="", kind="unreadable", why="is no tree"),
        LeafPrint(path="a:bytes", kind="opaque", digest=B),
        LeafPrint(path="a:title", kind="text", text='m_{Z} "Ü"\n'),
        LeafPrint(path="b", kind="num", dtype="<f8", shape=(), values=(91.2,)),
        LeafPrint(path="c", kind="num", dtype="<f4", shape=(2, 2), values=(0.5, "nan", "-inf", -0.0)),
        LeafPrint(path="d", kind="num", dtype="<u8", shape=(1,), values=(2**63 - 1,)),
        LeafPrint(path="e", kind="num", dtype="|b1", shape=(2,), values=(True, False)),
        LeafPrint(path="f", kind="num", dtype="<c16", shape=(1,), values=(1.0, 2.0)),
        LeafPrint(path="g", kind="num", dtype="<f8", shape=(20_000,), digest=B, statistics=(KNOWN,)),
        LeafPrint(path="h", kind="num", dtype="<U5", shape=(3,), digest=B),
        LeafPrint(path="i", kind="pixels", dtype="|u1", shape=(40, 30, 3), digest=B),
        LeafPrint(path="j", kind="volatile", digest=B, length=900),
        LeafPrint(path="k", kind="text", why="needs more memory than there is"),
        LeafPrint(path="l", kind="num", dtype="<f8", shape=(0, 3), values=()),
    ),
)


def changed(edit: Callable[[Any], None]) -> bytes:
    """The full one after somebody edited it, in the form that fingerprints have as far as that goes."""
    value = json.loads(FULL.to_bytes())
    edit(value)
    leaves = value.pop("leaves")
    lines = [f"  {json.dumps(key)}: {dumped(value[key])},\n" for key in sorted(value)]
    inner = ",\n".join("    " + dumped(leaf, separators=(",", ":")) for leaf in leaves)
    return ("{\n" + "".join(lines) + f'  "leaves": [\n{inner}\n  ]\n' + "}\n").encode()


def dumped(value: Any, **options: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, **options)


def leaf(number: int, **new: Any) -> Callable[[Any], None]:
    """Edit a leaf: ``None`` takes a key away."""

    def edit(value: Any) -> None:
        value["leaves"][number] |= new
        for key in [key for key, one in new.items() if one is None]:
            del value["leaves"][number][key]

    return edit


def test_what_is_written_is_read() -> None:
    assert read_fingerprint(FULL.to_bytes(), "it") == FULL
    assert changed(lambda value: None) == FULL.to_bytes()
    bare = Fingerprint(sha256=A, size=0, reader="bytes", obstacle="uproot is not installed", missing="uproot")
    assert read_fingerprint(bare.to_bytes(), "it") == bare


def test_each_leaf_has_a_line_of_its_own() -> None:
    lines = FULL.to_bytes().decode().splitlines()
    assert '    {"dtype":"<f8","kind":"num","path":"b","shape":[],"values":[91.2]},' in lines
    assert len(lines) == 2 + 10 + len(FULL.leaves) + 1


def test_large_whole_numbers_of_64_bits() -> None:
    data = changed(leaf(5, values=[2**64 - 1]))
    assert read_fingerprint(data, "it").leaves[5].values == (2**64 - 1,)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda value: value.update(size=-1), "cannot be"),
        (lambda value: value.update(size=True), "size is not what it must be"),
        (lambda value: value.update(size=10**400), "size is not what it must be"),
        (lambda value: value.update(reader=5), "reader is not what it must be"),
        (lambda value: value.update(sha256="sha256:x"), "is not a digest"),
        (lambda value: value.update(schema="preserve/fingerprint/2"), "its schema is"),
        (lambda value: value.update(more=1), "unexpected keyword"),
        (lambda value: value.pop("rest"), "damaged"),
        (lambda value: value.update(rest={"leaves": 0, "digest": A}), "cannot be"),
        (lambda value: value.update(rest={"leaves": 1}), "damaged"),
        (lambda value: value.update(obstacle="because"), "could not be read"),
        (lambda value: value.update(leaves=[5]), "damaged"),
        (lambda value: value.update(versions={"numpy": 2}), "versions is not what it must be"),
        (lambda value: value["leaves"].reverse(), "does not stand in its place"),
        (lambda value: value["leaves"].insert(0, value["leaves"][0]), "does not stand in its place"),
        (leaf(0, kind="code"), "which leaves have not"),
        (leaf(0, why="x" * 5000), "more than 4000 characters"),
        (leaf(0, text="x"), "too little or too much"),
        (leaf(1, digest=None), "too little or too much"),
        (leaf(2, digest=A), "too little or too much"),
        (leaf(3, digest=A), "too little or too much"),
        (leaf(3, values=None), "too little or too much"),
        (leaf(3, values=[]), "has 0 values"),
        (leaf(3, values=[1.0, 2.0]), "has 2 values"),
        (leaf(3, values=["a"]), "none of <f8"),
        (leaf(3, values=[1]), "none of <f8"),
        (leaf(3, values=[True]), "none of <f8"),
        (leaf(3, values=[float("nan")]), "leaves is not what it must be"),
        (leaf(3, values=[10**400]), "leaves is not what it must be"),
        (leaf(3, values=[[1.0]]), "leaves is not what it must be"),
        (leaf(3, dtype="|O", values=["x"]), "not kept whole"),
        (leaf(3, dtype="<f16"), "not kept whole"),
        (leaf(3, dtype="__import__('os')"), "numpy has not"),
        (leaf(3, shape=[-1]), "no array has"),
        (leaf(3, shape=[1] * 65), "no array has"),
        (leaf(3, shape=[2**40, 2**40], values=[]), "has 0 values"),
        (leaf(3, shape=[2 * WHOLE_NUMBERS + 2], values=[0.5] * (2 * WHOLE_NUMBERS + 2)), "values"),
        (leaf(4, values=[0.1, "nan", "-inf", -0.0]), "none of <f4: '0.1'"),
        (leaf(4, values=[1e39, "nan", "-inf", -0.0]), "none of <f4"),
        (leaf(4, values=["NaN", "nan", "-inf", -0.0]), "none of <f4"),
        (leaf(5, values=[2**64]), "none of <u8"),
        (leaf(5, values=[-1]), "none of <u8"),
        (leaf(5, values=["nan"]), "none of <u8"),
        (leaf(6, values=[1, 0]), "none of |b1"),
        (leaf(7, values=[1.0]), "has 1 values"),
        (leaf(8, statistics=[{"n": 5, "nan": 6}]), "a count that cannot be"),
        (leaf(8, statistics=[{"n": -5}]), "a count that cannot be"),
        (leaf(8, statistics=[{"n": 5, "sum": "<b>"}]), "no number"),
        (leaf(8, statistics=[{"n": 5, "sum": 5.0}]), "leaves is not what it must be"),
        (leaf(11, length=-1), "below zero"),
        (leaf(11, length=None), "too little or too much"),
    ],
)
def test_what_no_fingerprint_has_is_refused(edit: Callable[[Any], None], said: str) -> None:
    with pytest.raises(UserError, match=r"^it: ") as refused:
        read_fingerprint(changed(edit), "it")
    assert said in refused.value.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"schema": "preserve/fingerprint/1"}',
        FULL.to_bytes()[:-1],
        FULL.to_bytes() + b" ",
        FULL.to_bytes().replace(b'"leaves": [', b'"leaves":  ['),
        FULL.to_bytes().replace(b"91.2]", b"91.20]"),
        FULL.to_bytes().replace(b'"text":"', b'"text":"\\u0041'),
        FULL.to_bytes().replace(b'"kind":"opaque"', b'"kind":"opaque","kind":"opaque"'),
        FULL.to_bytes().replace(b"is no tree", b"is no \\ud800"),
        FULL.to_bytes() + b" " * MAX_BYTES,
    ],
)
def test_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(UserError, match=r"^it: "):
        read_fingerprint(data, "it")


@given(st.binary(max_size=40), st.integers(0, len(FULL.to_bytes())), st.integers(0, 40))
@settings(max_examples=400, deadline=None)
def test_damage_is_refused_or_gives_what_it_says(inserted: bytes, place: int, removed: int) -> None:
    data = FULL.to_bytes()
    damaged = data[:place] + inserted + data[place + removed :]
    try:
        found = read_fingerprint(damaged, "it")
    except UserError:
        return
    assert found.to_bytes() == damaged


class TestThePage:
    TEXT = (Path(__file__).parents[3] / "docs" / "reference" / "fingerprint.md").read_text(encoding="utf-8")

    def test_its_example_is_one(self) -> None:
        example = self.TEXT.partition("```json\n")[2].partition("```")[0]
        found = read_fingerprint(example.encode(), "page")
        assert [leaf.whole for leaf in found.leaves] == [False, True, True]

    def test_it_names_every_key_and_bound(self) -> None:
        keys = {one.name for kind in (Fingerprint, LeafPrint, Statistics, Rest) for one in fields(kind)}
        assert sorted(key for key in keys if f"`{key}`" not in self.TEXT) == []
        assert f"up to {WHOLE_NUMBERS} values" in self.TEXT
        assert f"up to {WHOLE_TEXT} characters" in self.TEXT
        assert f"at most {MAX_BYTES >> 20} MiB" in self.TEXT
        assert f"more than {MOST_WORDS} characters" in self.TEXT


def test_no_fingerprint_s_name_is_also_a_folder_s() -> None:
    small = contents()
    paths = ("results/mass.json", "results/plots/a", "results/plots/a.json/b", "results/plots/A.JSON")
    made = replace(small.records["fit"], products=tuple(artifact(path, path.encode()) for path in paths))
    records = {**small.records, "fit": made}
    names = contents_of(small.plan, small.lock, records, agent="x").fingerprints
    assert names.keys() == set(paths)
    assert names["results/mass.json"] == "data/fingerprints/results/mass.json.json"
    assert all(name_fault(name) is None for name in names.values())
    folded = [name.casefold() for name in names.values()]
    assert len(set(folded)) == len(paths)
    assert not [one for one in folded for other in folded if other.startswith(one + "/")]
