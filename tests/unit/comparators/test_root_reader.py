"""ROOT files by uproot: what is changed in them, and the verdict that it must get."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from pairs import judged, leaves, loosened
from uproot.writing import identify

from preserve.comparators.leaves import Limits

NAME = "results/all.root"
EQUIVALENT, DIFFERENT = "equivalent", "different"
EDGES = [0.0, 1.0, 2.5, 5.0]
X = np.linspace(80.0, 100.0, 200)


@dataclass(frozen=True, kw_only=True)
class Content:
    """What is written; a mutation replaces some of it."""

    values: Any = field(default_factory=lambda: np.array([0.0, 3.0, 5.5, 2.0, 1.0]))  # with under- and overflow
    errors: Any = field(default_factory=lambda: np.array([0.0, 3.0, 6.0, 2.0, 1.0]))
    edges: Any = field(default_factory=lambda: list(EDGES))
    title: str = "Dimuon mass"
    axis_title: str = "m [GeV]"
    name: str = "mass"
    entries: float = 12.0
    color: int = 0
    grid: Any = field(default_factory=lambda: np.arange(12.0).reshape(3, 4))
    note: str = "all of run A"
    label: str | None = "barrel"
    tree: dict[str, Any] = field(default_factory=lambda: {"x": X, "n": np.arange(200) % 3})
    lists: Any = field(default_factory=lambda: [[float(i)] * (i % 3) for i in range(40)])
    fields: dict[str, Any] = field(default_factory=lambda: {"pt": X[:50], "id": [[i] * (i % 2) for i in range(50)]})
    compression: Any = field(default_factory=lambda: uproot.ZLIB(1))
    order: tuple[str, ...] = ("mass", "grid", "note", "tree", "nt", "dir")


def histogram(content: Content) -> Any:
    edges = np.asarray(content.edges)
    axis = identify.to_TAxis(
        fName="xaxis",
        fTitle=content.axis_title,
        fNbins=len(edges) - 1,
        fXmin=edges[0],
        fXmax=edges[-1],
        fXbins=edges,
        fLabels=None if content.label is None else identify.to_THashList([identify.to_TObjString(content.label)]),
    )
    return identify.to_TH1x(
        fName=None,
        fTitle=content.title,
        data=content.values,
        fEntries=content.entries,
        fTsumw=11.5,
        fTsumw2=12.0,
        fTsumwx=20.0,
        fTsumwx2=50.0,
        fSumw2=content.errors,
        fXaxis=axis,
        fLineColor=content.color,
    )


def write(content: Content) -> Callable[[Path], None]:
    def fill(path: Path) -> None:
        with uproot.recreate(path, compression=content.compression) as file:
            for part in content.order:
                PARTS[part](file, content)

    return fill


def write_tree(file: Any, content: Content) -> None:
    tree = file.mktree("tree", {name: values.dtype for name, values in content.tree.items()}, title="events")
    tree.extend(content.tree)
    file.mktree("lists", {"v": "var * float64"}).extend({"v": ak.Array(content.lists)})


PARTS: dict[str, Callable[[Any, Content], None]] = {
    "mass": lambda file, content: file.__setitem__(content.name, histogram(content)),
    "grid": lambda file, content: file.__setitem__("grid", (content.grid, np.arange(4.0), np.arange(5.0))),
    "note": lambda file, content: file.__setitem__("note", content.note),
    "tree": write_tree,
    "nt": lambda file, content: file.mkrntuple("nt", {k: ak.Array(v) for k, v in content.fields.items()}),
    "dir": lambda file, content: file.__setitem__("dir/sub/again", histogram(content)),
    "more": lambda file, content: file.__setitem__("more", "an object more"),
}
BASE = Content()


def changed(values: Any, place: Any, value: Any) -> Any:
    made = np.array(values)
    made[place] = value
    return made


def with_x(values: Any) -> Content:
    return replace(BASE, tree={**BASE.tree, "x": values})


MUTATIONS: dict[str, tuple[Content, str]] = {
    "one bin content": (replace(BASE, values=changed(BASE.values, 2, 5.5055)), DIFFERENT),
    "the last digit of a bin": (replace(BASE, values=changed(BASE.values, 2, np.nextafter(5.5, 6))), DIFFERENT),
    "the overflow": (replace(BASE, values=changed(BASE.values, 4, 2.0)), DIFFERENT),
    "the underflow": (replace(BASE, values=changed(BASE.values, 0, 1.0)), DIFFERENT),
    "one error": (replace(BASE, errors=changed(BASE.errors, 2, 6.1)), DIFFERENT),
    "a bin edge": (replace(BASE, edges=[0.0, 1.0, 2.6, 5.0]), DIFFERENT),
    "the title": (replace(BASE, title="Dielectron mass"), DIFFERENT),
    "the title of an axis": (replace(BASE, axis_title="m [MeV]"), DIFFERENT),
    "a bin's label": (replace(BASE, label="endcap"), DIFFERENT),
    "a dropped label": (replace(BASE, label=None), DIFFERENT),
    "the number of entries": (replace(BASE, entries=13.0), DIFFERENT),
    "a colour": (replace(BASE, color=2), DIFFERENT),
    "the type of the bins": (replace(BASE, values=BASE.values.astype("f4")), DIFFERENT),
    "a bin in two dimensions": (replace(BASE, grid=changed(BASE.grid, (1, 2), 6.5)), DIFFERENT),
    "two dimensions turned": (replace(BASE, grid=np.arange(12.0).reshape(4, 3).T.copy()), DIFFERENT),
    "a text": (replace(BASE, note="all of run B"), DIFFERENT),
    "a renamed key": (replace(BASE, name="mass2"), DIFFERENT),
    "a dropped object": (replace(BASE, order=BASE.order[:-1]), DIFFERENT),
    "an added object": (replace(BASE, order=(*BASE.order, "more")), DIFFERENT),
    "one entry of a tree": (with_x(changed(X, 77, 85.0)), DIFFERENT),
    "two entries exchanged": (with_x(X[[1, 0, *range(2, 200)]]), DIFFERENT),
    "the order of all entries": (with_x(X[::-1].copy()), DIFFERENT),
    "a NaN": (with_x(changed(X, 5, np.nan)), DIFFERENT),
    "the type of a branch": (with_x(X.astype("f4")), DIFFERENT),
    "signed to unsigned": (replace(BASE, tree={**BASE.tree, "n": BASE.tree["n"].astype("u8")}), DIFFERENT),
    "an entry less": (replace(BASE, tree={k: v[:-1] for k, v in BASE.tree.items()}), DIFFERENT),
    "a branch more": (replace(BASE, tree={**BASE.tree, "y": X}), DIFFERENT),
    "a branch less": (replace(BASE, tree={"x": X}), DIFFERENT),
    "a renamed branch": (replace(BASE, tree={"x2": X, "n": BASE.tree["n"]}), DIFFERENT),
    "an element of a list": (replace(BASE, lists=[*BASE.lists[:-1], [38.5]]), DIFFERENT),
    "the length of two lists": (replace(BASE, lists=[[1.0], *BASE.lists[2:], []]), DIFFERENT),
    "an entry of an RNTuple": (replace(BASE, fields={**BASE.fields, "pt": changed(X[:50], 9, 1.0)}), DIFFERENT),
    "a list in an RNTuple": (replace(BASE, fields={**BASE.fields, "id": [[0]] * 50}), DIFFERENT),
    "the order of keys": (replace(BASE, order=tuple(reversed(BASE.order))), EQUIVALENT),
    "the compression": (replace(BASE, compression=uproot.LZMA(5)), EQUIVALENT),
    "no compression": (replace(BASE, compression=None), EQUIVALENT),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutations(mutation: str) -> None:
    found, verdict = MUTATIONS[mutation]
    assert judged(NAME, write(BASE), write(found)).verdict == verdict


def test_the_same_content_at_another_time() -> None:
    def later(path: Path) -> None:
        time.sleep(1.1)  # times in ROOT files have whole seconds
        write(BASE)(path)

    result = judged(NAME, write(BASE), later)
    assert (result.verdict, result.reader, result.passed) == ("equivalent", "root", True)


def test_nan_in_the_same_place_is_equal() -> None:
    same = write(with_x(changed(X, 5, np.nan)))
    other = replace(with_x(changed(X, 5, np.nan)), compression=None)
    assert judged(NAME, same, write(other)).verdict == "equivalent"


def test_leaves_have_the_words_of_physics() -> None:
    found = leaves(NAME, write(BASE))
    assert found["mass:values"].load().tolist() == [0.0, 3.0, 5.5, 2.0, 1.0]
    assert found["mass:sumw2"].load().tolist() == [0.0, 3.0, 6.0, 2.0, 1.0]
    assert found["mass:x.edges"].load().tolist() == EDGES
    assert found["mass:x.title"].load() == "m [GeV]"
    assert found["mass:title"].load() == "Dimuon mass"
    assert found["dir/sub/again:values"].load().tolist() == found["mass:values"].load().tolist()
    assert found["grid:values"].load()[1:-1, 1:-1].tolist() == BASE.grid.tolist()
    assert found["tree/x"].load().tolist() == X.tolist()
    assert found["lists/v:counts"].load().tolist() == [i % 3 for i in range(40)]
    assert found["nt/pt"].load().tolist() == X[:50].tolist()


def test_a_tolerance_on_one_branch_loosens_that_branch() -> None:
    close = with_x(X * (1 + 1e-9))
    assert judged(NAME, write(BASE), write(close), loosened("tree/x", rtol=1e-8)).verdict == "tolerated"
    assert judged(NAME, write(BASE), write(close), loosened("tree/n", rtol=1e-8)).verdict == DIFFERENT


def test_branches_are_read_in_pieces() -> None:
    long = np.arange(3_000_000.0)  # 24 MB: more than one piece

    def fill(path: Path) -> None:
        with uproot.recreate(path) as file:
            tree = file.mktree("t", {"x": "f8"})
            for part in np.array_split(long, 6):
                tree.extend({"x": part})

    assert np.array_equal(leaves(NAME, fill)["t/x"].load(), long)


class TestHostile:
    """Files that say what is not so: refused, in bounded memory and time."""

    @pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
    def test_cut_short(self, part: float) -> None:
        def cut(path: Path) -> None:
            write(BASE)(path)
            content = path.read_bytes()
            path.write_bytes(content[: int(len(content) * part)])

        result = judged(NAME, write(BASE), cut)
        assert not result.passed

    @pytest.mark.parametrize("seed", range(20))
    def test_a_byte_of_a_basket(self, seed: int, tmp_path: Path) -> None:
        """A byte of a basket."""
        write(replace(BASE, compression=None))(tmp_path / "whole.root")
        content = bytearray((tmp_path / "whole.root").read_bytes())
        where = content.index(X.astype(">f8").tobytes()) + 79 * seed
        content[where] ^= 0x55
        result = judged(NAME, (tmp_path / "whole.root").read_bytes(), bytes(content))
        assert result.verdict == DIFFERENT

    @pytest.mark.parametrize("make", ["mktree", "mkrntuple"])
    def test_a_basket_that_unpacks_to_much_more(self, make: str) -> None:
        def zeros(path: Path) -> None:
            with uproot.recreate(path, compression=uproot.ZLIB(1)) as file:
                getattr(file, make)("t", {"x": "f8"}).extend({"x": np.zeros(12_000_000)})

        result = judged(NAME, write(BASE), zeros, limits=Limits(ratio=100))
        assert result.verdict == "uncomparable"
        assert "more than 100 times" in str(result.facts)

    def test_more_than_the_limit(self) -> None:
        result = judged(NAME, write(BASE), write(with_x(X + 1)), limits=Limits(bytes=1000))
        assert result.verdict == "uncomparable"

    @pytest.mark.parametrize("limits", [Limits(members=3), Limits(leaves=10), Limits(depth=1)])
    def test_more_than_other_limits(self, limits: Limits) -> None:
        assert judged(NAME, write(BASE), write(replace(BASE, note="x")), limits=limits).verdict == "uncomparable"

    def test_a_class_whose_name_is_code(self) -> None:
        """The description of a class goes into Python code: it must not bring its own."""

        def evil(path: Path) -> None:
            write(replace(BASE, compression=None))(path)
            content = path.read_bytes()
            assert content.count(b"fBarWidth") >= 1
            path.write_bytes(content.replace(b"fBarWidth", b"{exit(9)}"))

        result = judged(NAME, write(BASE), evil)
        assert result.verdict == "uncomparable"
