"""Fingerprints that a stranger put into an archive: what they can claim, and what they cannot.

Whoever writes an archive also writes the records: he can claim any content for a result, with its bytes or with a
fingerprint. So a fingerprint that lies makes no more pass than a record that lies. It never makes other bytes
*identical*, is not looked at where the bytes are inside, and is never taken for the author's once the archive is
changed: the id, and any signature, are those of another archive then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archived import Done, Files, Recorded, Session, assert_refused, here, problems, verified

from preserve.digest import Digest
from preserve.documents.archive import BAG_INFO, FINGERPRINTS
from preserve.documents.bag import LEFT_OUT
from preserve.documents.fingerprint import MAX_BYTES, Fingerprint, LeafPrint, read_fingerprint

SUM = "results/sum.txt"
PLACE = "data/results/results/sum.txt"
NAME = f"{FINGERPRINTS}results/sum.txt.json"
ENGINE = "apptainer"
INFO = BAG_INFO

pytestmark = pytest.mark.apptainer


@pytest.fixture
def files(recorded: Recorded, apptainer: str) -> Files:
    return Files.of(recorded.archive(ENGINE))


@pytest.fixture
def author(recorded: Recorded, apptainer: str, tmp_path: Path) -> Session:
    return recorded.copy(tmp_path / "sums", ENGINE)


def left_out(files: Files, place: str = PLACE) -> Files:
    """The archive without a result's bytes, as its author could have made it."""
    info = files.data[INFO].decode()
    label = f"{LEFT_OUT}: {place}\n"
    return files.changed({place: None, INFO: (info + label).encode()})


def fingerprint_of(files: Files) -> Fingerprint:
    return read_fingerprint(files.data[NAME], NAME)


def claiming(files: Files, value: float) -> Fingerprint:
    """A fingerprint of the recorded digest that says another number."""
    found = fingerprint_of(files)
    leaf = next(leaf for leaf in found.leaves if leaf.values is not None)
    other = replace(leaf, values=(value,) * len(leaf.values or ()))
    return replace(found, leaves=tuple(other if one is leaf else one for one in found.leaves))


def verdict(done: Done) -> str:
    return str({row["path"]: row["verdict"] for row in done.document["results"]}[SUM])


def test_what_its_author_could_have_left_out_is_intact(files: Files, tmp_path: Path) -> None:
    archive = left_out(files).with_all_derived().write(tmp_path / "a.crate.zip")
    assert verified(archive).document["left_out"] == [SUM]
    assert problems(archive) == {}


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda found: replace(found, sha256=Digest.of(b"13\n")), "of another content than the record names"),
        (lambda found: replace(found, size=4), "of another content than the record names"),
        (lambda found: replace(found, shortened=-1), "cannot be"),
        (lambda found: replace(found, leaves=(*found.leaves, found.leaves[0])), "does not stand in its place"),
        (lambda found: b"no json", "not readable as JSON"),
        (lambda found: b"[" * 100_000, "not readable as JSON"),
        (lambda found: found.to_bytes()[:-1], "is not in the form that preserve writes"),
        (lambda found: found.to_bytes() + b" " * MAX_BYTES, "has at most"),
        (lambda found: found.to_bytes().replace(b'"shape":[', b'"shape":[99999999999,'), "values for its shape"),
        (lambda found: found.to_bytes().replace(b'"dtype":"<f8"', b'"dtype":"|O"'), "not kept whole"),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_a_bad_one_is_damage(
    files: Files, tmp_path: Path, edit: Callable[[Fingerprint], Any], problem: str, inside: bool
) -> None:
    data = edit(fingerprint_of(files))
    data = data.to_bytes() if isinstance(data, Fingerprint) else data
    archive = (files if inside else left_out(files)).changed({NAME: data}).with_all_derived()
    found = problems(archive.write(tmp_path / "a.crate.zip"))
    assert list(found) == [NAME]
    assert problem in found[NAME]


def test_one_of_another_content_is_not_compared_with(files: Files, author: Session, tmp_path: Path) -> None:
    other = replace(fingerprint_of(files), sha256=Digest.of(b"13\n"))
    forged = left_out(files).changed({NAME: other.to_bytes()}).with_all_derived().write(tmp_path / "a.crate.zip")
    author("run", "-p", "scale=3")
    done = here("diff", str(forged), str(author.root))
    assert done.code == 5
    assert "of another content" in done.err


def test_a_replay_refuses_before_anything_runs(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(fingerprint_of(files), size=4)
    forged = left_out(files).changed({NAME: other.to_bytes()}).with_all_derived().write(tmp_path / "a.crate.zip")
    assert_refused(forged, "of another content than the record names", monkeypatch)


class TestLies:
    """The author says of bytes that he keeps to himself what was not in them."""

    def test_they_make_no_other_bytes_identical(self, files: Files, author: Session, tmp_path: Path) -> None:
        lie = claiming(files, 18.0)
        forged = left_out(files).changed({NAME: lie.to_bytes()}).with_all_derived().write(tmp_path / "a.crate.zip")
        assert problems(forged) == {}
        author("run", "-p", "scale=3")  # its sum is 18
        done = here("diff", "--json", str(forged), str(author.root))
        assert verdict(done) == "equivalent"  # what a record of such bytes would also give
        assert done.code == 1  # identical was asked for

    def test_nor_do_they_count_where_the_bytes_are_inside(self, files: Files, author: Session, tmp_path: Path) -> None:
        forged = files.changed({NAME: claiming(files, 18.0).to_bytes()}).with_all_derived()
        author("run", "-p", "scale=3")
        done = here("diff", "--json", str(forged.write(tmp_path / "a.crate.zip")), str(author.root))
        assert verdict(done) == "different"

    def test_nor_do_they_harm_where_the_digests_agree(self, files: Files, author: Session, tmp_path: Path) -> None:
        forged = left_out(files).changed({NAME: claiming(files, 18.0).to_bytes()}).with_all_derived()
        done = here("diff", "--json", str(forged.write(tmp_path / "a.crate.zip")), str(author.root))
        assert (verdict(done), done.code) == ("identical", 0)

    def test_somebody_else_s_lie_is_another_archive(self, files: Files, tmp_path: Path) -> None:
        forged = files.changed({NAME: claiming(files, 18.0).to_bytes()})
        assert NAME in problems(forged.write(tmp_path / "a.crate.zip"))
        again = forged.with_all_derived().write(tmp_path / "b.crate.zip")
        honest = files.write(tmp_path / "c.crate.zip")
        assert verified(again).document["archive_id"] != verified(honest).document["archive_id"]

    def test_ten_thousand_leaves_of_nothing_are_read_in_bounds(
        self, files: Files, author: Session, tmp_path: Path
    ) -> None:
        leaves = tuple(LeafPrint(path=f"{n:06}", kind="text", text="x") for n in range(50_000))
        large = replace(fingerprint_of(files), leaves=leaves)
        forged = left_out(files).changed({NAME: large.to_bytes()}).with_all_derived().write(tmp_path / "a.crate.zip")
        author("run", "-p", "scale=3")
        done = here("diff", "--json", str(forged), str(author.root))
        assert (verdict(done), done.code) == ("different", 1)
        [row] = [row for row in done.document["results"] if row["path"] == SUM]
        assert len(row["facts"]["differences"]) == 1000


class TestWhatIsLeftOut:
    def test_without_saying_so(self, files: Files, tmp_path: Path) -> None:
        bare = files.changed({PLACE: None}).with_all_derived().write(tmp_path / "a.crate.zip")
        assert problems(bare) == {PLACE: "is not in the archive"}

    def test_and_is_there_all_the_same(self, files: Files, tmp_path: Path) -> None:
        both = left_out(files).changed({PLACE: files.data[PLACE]}).with_all_derived().write(tmp_path / "a.crate.zip")
        assert problems(both) == {PLACE: "nothing in the archive calls for this file"}

    def test_without_a_fingerprint(self, files: Files, tmp_path: Path) -> None:
        bare = left_out(files).changed({NAME: None}).with_all_derived().write(tmp_path / "a.crate.zip")
        assert problems(bare) == {NAME: "is not in the archive, and the result was left out"}

    def test_an_archive_of_before_needs_no_fingerprints(self, files: Files, tmp_path: Path) -> None:
        names = [name for name in files.data if name.startswith(FINGERPRINTS)]
        assert len(names) == 2
        before = files.changed(dict.fromkeys(names)).with_all_derived().write(tmp_path / "a.crate.zip")
        assert problems(before) == {}

    @pytest.mark.parametrize(
        "place", ["data/inputs/data/numbers.txt", "data/inputs/code/scale.awk", "data/oci/oci-layout", "nothing"]
    )
    def test_what_must_not_be(self, files: Files, tmp_path: Path, place: str) -> None:
        info = files.data[INFO] + f"{LEFT_OUT}: {place}\n".encode()
        bare = files.changed({place: None, INFO: info}).with_manifests().write(tmp_path / "a.crate.zip")
        assert "is no product of this archive" in problems(bare)[INFO]
        assert here("show", str(bare)).code == 5

    def test_a_fingerprint_of_nothing(self, files: Files, tmp_path: Path) -> None:
        name = f"{FINGERPRINTS}results/other.txt.json"
        more = files.changed({name: files.data[NAME]}).with_all_derived().write(tmp_path / "a.crate.zip")
        assert problems(more) == {name: "nothing in the archive calls for this file"}
