"""HDF5 by h5py: what is changed in it, and the verdict that it must get."""

from __future__ import annotations

import pickle
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from pairs import judged, leaves, loosened
from pairs import write as write_file

from preserve.comparators.leaves import Leaf, Limits
from preserve.comparators.readers.hdf5 import Hdf5

NAME = "results/fit.h5"
EQUIVALENT, DIFFERENT, UNCOMPARABLE = "equivalent", "different", "uncomparable"
TABLE = np.array([(1, 2.5, b"mu+"), (2, 3.5, b"mu-")], dtype=[("n", "i4"), ("pt", "f8"), ("kind", "S3")])
MASSES = np.linspace(60.0, 120.0, 500)

Mutation = Callable[[h5py.File], Any]


def base(file: h5py.File, **storage: Any) -> None:
    file.create_dataset("masses", data=MASSES, **storage)
    file.create_dataset("fit/covariance", data=np.eye(3))
    file["fit/chi2"] = 12.5
    file["fit"].attrs["minimiser"] = "migrad"
    file["fit"].attrs["steps"] = np.array([1, 2, 3])
    file["fit/names"] = ["mass", "width", "norm"]
    file["table"] = TABLE
    file["kinds"] = np.array([0, 1, 1], dtype=h5py.enum_dtype({"BARREL": 0, "ENDCAP": 1}, basetype="i4"))
    file["best"] = h5py.SoftLink("/fit/chi2")
    file["same"] = file["masses"]
    file["of"] = np.array([file["fit"].ref], dtype=h5py.ref_dtype)
    lists = file.create_dataset("lists", (2,), dtype=h5py.vlen_dtype("i4"))
    lists[0], lists[1] = [1, 2], [3]
    file.attrs["empty"] = h5py.Empty("f8")


def write(mutation: Mutation | None = None, **storage: Any) -> Callable[[Path], None]:
    def fill(path: Path) -> None:
        with h5py.File(path, "w") as file:
            base(file, **storage)
            if mutation is not None:
                mutation(file)

    return fill


def put(path: str, place: Any, value: Any) -> Mutation:
    return lambda file: file[path].__setitem__(place, value)


def again(path: str, value: Any, **options: Any) -> Mutation:
    """Write a dataset anew."""

    def mutate(file: h5py.File) -> None:
        del file[path]
        file.create_dataset(path, data=value, **options)

    return mutate


def link(path: str, target: Any) -> Mutation:
    def mutate(file: h5py.File) -> None:
        file.pop(path, None)
        file[path] = target(file) if callable(target) else target

    return mutate


def swapped(values: Any) -> Any:
    return values[[1, 0, *range(2, len(values))]]


MUTATIONS: dict[str, tuple[Mutation, str]] = {
    "one number": (put("masses", 77, 91.0), DIFFERENT),
    "the last digit": (put("masses", 77, np.nextafter(MASSES[77], 0)), DIFFERENT),
    "a NaN": (put("masses", 77, np.nan), DIFFERENT),
    "the order": (put("masses", slice(None), swapped(MASSES)), DIFFERENT),
    "the type": (again("fit/covariance", np.eye(3, dtype="f4")), DIFFERENT),
    "the sign of a type": (again("fit/chi2", np.uint8(12)), DIFFERENT),
    "the shape": (again("fit/covariance", np.eye(3).reshape(9)), DIFFERENT),
    "a scalar": (put("fit/chi2", (), 12.6), DIFFERENT),
    "a scalar as a list": (again("fit/chi2", [12.5]), DIFFERENT),
    "an attribute": (lambda f: f["fit"].attrs.__setitem__("minimiser", "simplex"), DIFFERENT),
    "a number in an attribute": (lambda f: f["fit"].attrs.__setitem__("steps", np.array([1, 2, 4])), DIFFERENT),
    "an attribute more": (lambda f: f.attrs.__setitem__("more", 1), DIFFERENT),
    "an attribute less": (lambda f: f["fit"].attrs.__delitem__("steps"), DIFFERENT),
    "what is empty": (lambda f: f.attrs.__setitem__("empty", h5py.Empty("f4")), DIFFERENT),
    "a text": (put("fit/names", 1, "Width"), DIFFERENT),
    "a cell of a table": (put("table", (1, "pt"), 3.6), DIFFERENT),
    "a text in a table": (put("table", (1, "kind"), b"e-"), DIFFERENT),
    "a name in an enumeration": (
        again("kinds", np.array([0, 1, 1]), dtype=h5py.enum_dtype({"BARREL": 0, "FORWARD": 1}, basetype="i4")),
        DIFFERENT,
    ),
    "a list of varying length": (put("lists", 0, [1, 2, 3]), DIFFERENT),
    "a renamed dataset": (lambda f: f.move("masses", "masses2"), DIFFERENT),
    "a dataset more": (lambda f: f.__setitem__("more", 1), DIFFERENT),
    "an empty group more": (lambda f: f.create_group("more"), DIFFERENT),
    "a dataset less": (lambda f: f.__delitem__("table"), DIFFERENT),
    "the target of a link": (link("best", h5py.SoftLink("/fit/names")), DIFFERENT),
    "a link to another file": (link("best", h5py.ExternalLink("other.h5", "/fit/chi2")), DIFFERENT),
    "a copy instead of a link": (link("same", lambda f: f["masses"][()]), DIFFERENT),
    "the target of a reference": (lambda f: f["of"].__setitem__(0, f["table"].ref), DIFFERENT),
    "the byte order": (again("fit/covariance", np.eye(3, dtype=">f8")), EQUIVALENT),
}
STORAGE: dict[str, dict[str, Any]] = {
    "compression": {"compression": "gzip", "shuffle": True},
    "chunks": {"chunks": (100,)},
    "room to grow": {"chunks": (100,), "maxshape": (None,)},
    "checksums": {"chunks": (100,), "fletcher32": True},
    "times": {"track_times": True},
}


def kept_leaves(folder: Path, fill: Callable[[Path], None]) -> dict[str, Leaf]:
    """All leaves of a file that stays."""
    return {leaf.path: leaf for leaf in Hdf5().leaves(write_file(folder / NAME, fill), Limits())}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutations(mutation: str) -> None:
    change, verdict = MUTATIONS[mutation]
    assert judged(NAME, write(), write(change)).verdict == verdict


@pytest.mark.parametrize("storage", STORAGE)
def test_how_it_is_stored_does_not_matter(storage: str) -> None:
    assert judged(NAME, write(), write(None, **STORAGE[storage])).verdict == EQUIVALENT


def test_the_same_content_at_another_time() -> None:
    def later(path: Path) -> None:
        time.sleep(1.1)
        write(None, track_times=True)(path)

    assert judged(NAME, write(None, track_times=True), later).verdict == EQUIVALENT
    assert judged(NAME, write(), write()).verdict == "identical"


def test_leaves_are_called_as_in_the_file(tmp_path: Path) -> None:
    found = kept_leaves(tmp_path, write())
    assert found["masses"].load().tolist() == MASSES.tolist()
    assert found["table.pt"].load().tolist() == [2.5, 3.5]
    assert found["fit@minimiser"].load() == '"migrad"\n'
    assert found["best:link"].load() == "soft link to /fit/chi2"
    assert float(found["fit/chi2"].load()) == 12.5


def test_a_tolerance_on_one_dataset() -> None:
    close = write(put("masses", slice(None), MASSES * (1 + 1e-9)))
    assert judged(NAME, write(), close, loosened("masses", rtol=1e-8)).verdict == "tolerated"
    assert judged(NAME, write(), close, loosened("fit/*", rtol=1e-8)).verdict == DIFFERENT


class TestHostile:
    """Files that ask for more than they are: refused, in bounded memory and time, and no other file is opened."""

    def test_a_huge_shape_with_nothing_in_it(self) -> None:
        huge = write(lambda f: f.create_dataset("huge", (1 << 40,), dtype="f8", chunks=(1 << 20,)))
        result = judged(NAME, write(), huge)
        assert (result.verdict, result.passed) == (UNCOMPARABLE, False)

    def test_many_zeros_in_few_bytes(self) -> None:
        zeros = write(lambda f: f.create_dataset("z", data=np.zeros(10_000_000), compression="gzip", shuffle=True))
        assert judged(NAME, write(), zeros, limits=Limits(ratio=50)).verdict == UNCOMPARABLE

    def test_a_chunk_that_inflates_to_more_than_it_should(self) -> None:
        def bomb(file: h5py.File) -> None:
            made = file.create_dataset("bomb", (1000,), dtype="f8", chunks=(1000,), compression="gzip")
            made.id.write_direct_chunk((0,), zlib.compress(bytes(200_000_000), 9))

        result = judged(NAME, write(), write(bomb))
        assert result.verdict == UNCOMPARABLE
        assert "unpacks to more" in str(result.facts)

    def test_another_file_is_not_read(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(np.arange(4.0).tobytes())

        def outside(file: h5py.File) -> None:
            file.create_dataset("raw", (4,), dtype="f8", external=[(str(secret), 0, 32)])
            layout = h5py.VirtualLayout((4,), "f8")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (4,))
            file.create_virtual_dataset("view", layout)

        found = leaves(NAME, write(outside))
        assert {found["raw"].kind, found["view"].kind} == {"unreadable"}
        assert judged(NAME, write(), write(outside)).passed is False

    def test_groups_in_a_circle_end(self) -> None:
        found = leaves(NAME, write(lambda f: f["fit"].__setitem__("up", f["/"])))
        assert found["fit/up:link"].load() == "hard link to /"

    def test_a_deep_file(self) -> None:
        deep = write(lambda f: f.create_group("/".join("g" * 200)))
        assert judged(NAME, write(), deep).verdict == UNCOMPARABLE

    def test_opaque_bytes_are_not_unpickled(self, tmp_path: Path) -> None:
        bytes_of = write(lambda f: f.__setitem__("object", np.void(pickle.dumps({"a": 1}))))
        other = write(lambda f: f.__setitem__("object", np.void(pickle.dumps({"a": 2}))))
        assert kept_leaves(tmp_path, bytes_of)["object"].load().dtype == np.uint8
        assert judged(NAME, bytes_of, other).verdict == DIFFERENT

    @pytest.mark.parametrize("part", [0.05, 0.3, 0.7, 0.99])
    def test_cut_short(self, part: float) -> None:
        def cut(path: Path) -> None:
            write()(path)
            content = path.read_bytes()
            path.write_bytes(content[: int(len(content) * part)])

        assert judged(NAME, write(), cut).passed is False

    @pytest.mark.parametrize("limits", [Limits(bytes=1000), Limits(leaves=5), Limits(depth=0)])
    def test_limits(self, limits: Limits) -> None:
        assert judged(NAME, write(), write(put("fit/chi2", (), 1.0)), limits=limits).verdict == UNCOMPARABLE
