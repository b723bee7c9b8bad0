"""Manifests and bag-info.txt: written in one form, and read in that form only."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preserve.digest import Digest, FilePin
from preserve.documents import bag
from preserve.documents.archive import Contents, contents_of, name_fault
from preserve.documents.lockfile import Lock
from preserve.documents.plan import Plan, PlannedStep
from preserve.documents.record import Record
from preserve.documents.workflow import Author, Resources
from preserve.errors import DocumentError

A, B = Digest.of(b"a"), Digest.of(b"b")
NAMES = st.from_regex(r"[A-Za-z0-9._+=@-]{1,9}(/[A-Za-z0-9._+=@-]{1,9}){0,3}", fullmatch=True).filter(
    lambda name: name_fault(name) is None
)


@given(digests=st.dictionaries(NAMES, st.binary(max_size=3).map(Digest.of), max_size=20))
def test_a_manifest_is_read_as_it_was_written(digests: dict[str, Digest]) -> None:
    data = bag.manifest(digests)
    assert bag.read_manifest(data, "m") == (digests, ())
    assert bag.manifest(dict(reversed(digests.items()))) == data


def test_a_manifest_has_the_form_of_sha256sum() -> None:
    assert bag.manifest({"data/b": B, "data/a": A}) == f"{A.hex}  data/a\n{B.hex}  data/b\n".encode()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (f"{A.hex} data/b\n", "not a sha256, two spaces and a name"),
        (f"{A.hex}   data/b\n", "not a sha256, two spaces and a name"),
        (f"{A.hex}\tdata/b\n", "not a sha256, two spaces and a name"),
        (f"{A.hex} *data/b\n", "not a sha256, two spaces and a name"),
        (f"{A.hex}  data/b \n", "not a sha256, two spaces and a name"),
        (f"{A.hex}  data/b", "does not end"),
        (f"{A.hex}  data/b\r\n", "carriage return"),
        (f"{A.hex}  data/b\rdata/c\n", "not a sha256, two spaces and a name"),
        (f"{A.hex.upper()}  data/b\n", "does not begin with a sha256"),
        (f"{A.hex[:-1]}  data/b\n", "does not begin with a sha256"),
        (f"sha256:{A.hex}  data/b\n", "does not begin with a sha256"),
        ("\n", "does not begin with a sha256"),
        (f"{A.hex}  data/a\n", "stands twice"),
        (f"{A.hex}  data/A\n", "does not stand in its place"),
        (f"{A.hex}  data/../b\n", "has a part . or .."),
        (f"{A.hex}  /data/b\n", "has characters other than"),
        (f"{A.hex}  data/%0Ab\n", "has characters other than"),
        (f"{A.hex}  data/\x1b[2Jb\n", "has characters other than"),
        (f"{A.hex}  data/\u00e9\n", "has characters other than"),
        (f"{A.hex}  {'x' * 241}\n", "more than 240 bytes"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(line: str, problem: str) -> None:
    first = f"{A.hex}  data/a\n"
    digests, faults = bag.read_manifest((first + line).encode(), "manifest-sha256.txt")
    assert digests == {"data/a": A}
    assert [(fault.file, fault.line) for fault in faults] == [("manifest-sha256.txt", 2)]
    assert problem in faults[0].message
    assert "\x1b" not in str(faults[0]) and "\r" not in str(faults[0])


def test_all_wrong_lines_are_named() -> None:
    lines = f"x\n{A.hex}  data/a\n\n{B.hex}  data/b\ny\n"
    digests, faults = bag.read_manifest(lines.encode(), "m")
    assert (digests, [fault.line for fault in faults]) == ({"data/a": A, "data/b": B}, [1, 3, 5])


def test_a_million_wrong_lines_are_not_all_kept() -> None:
    _, faults = bag.read_manifest(b"\n" * 1_000_000, "m")
    assert len(faults) == bag.MAX_FAULTS


def test_bytes_that_are_not_utf8_are_a_fault_not_a_crash() -> None:
    _, faults = bag.read_manifest(f"{A.hex}  data/".encode() + b"\xff\xfe\n", "m")
    assert "has characters other than" in faults[0].message


def contents() -> Contents:
    """An archive of one step, two authors, and a title as people paste them."""
    step = PlannedStep(
        id="fit",
        name="fit",
        stage="postprocessing",
        image="tiny",
        command=("true",),
        environment={},
        inputs=(),
        outputs=("fit.json",),
        network=False,
        resources=Resources(),
        values={},
    )
    plan = Plan(
        title="The Z mass,\n  again: 91\u202f GeV\r",
        authors=(Author(name="Ana P\u00e9rez"), Author(name="B. Other")),
        license=None,
        parameters={},
        images={},
        inputs={},
        sources={},
        steps=(step,),
        results={},
        source=None,
    )
    lock = Lock(images={}, inputs={}, source=None, epoch=0)
    found = contents_of(plan, lock, {"fit": _record()}, agent="preserve 1.2.3")
    return replace(found, payload={"data/a": FilePin(sha256=A, size=3), "data/b": FilePin(sha256=B, size=4)})


def _record() -> Record:
    class Ended:
        materials = products = ()
        ended = "2026-01-31T23:59:59Z"

    return Ended()  # type: ignore[return-value]


def test_bag_info_says_what_it_is_in_one_order() -> None:
    assert bag.bag_info(contents()).decode() == (
        "Bag-Software-Agent: preserve 1.2.3\n"
        "Bagging-Date: 2026-01-31\n"
        "Payload-Oxum: 7.2\n"
        "External-Description: The Z mass, again: 91 GeV\n"
        "Contact-Name: Ana P\u00e9rez\n"
        "Contact-Name: B. Other\n"
        "Preserve-Format: preserve/archive/1\n"
        "Preserve-Completeness: full\n"
    )


def test_what_is_left_out_and_the_parent_are_said() -> None:
    partial = replace(contents(), without=frozenset({"intermediates", "images"}), parent=A)
    info = bag.read_bag_info(bag.bag_info(partial))
    assert info["Preserve-Completeness"] == "no-images"
    assert info["Preserve-Without"] == "images,intermediates"
    assert info["Preserve-Parent"] == A
    assert info["Contact-Name"] == "Ana P\u00e9rez\nB. Other"


LINES = bag.bag_info(contents()).decode().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (LINES[1:], "1:1: Bag-Software-Agent is missing"),
        ([*LINES, "Evil: 1\n"], "9:1: 'Evil' is not a label"),
        ([*LINES, " folded\n"], "9:1: is not Label: value"),
        ([LINES[1], LINES[0], *LINES[2:]], "2:1: Bag-Software-Agent does not stand in its place"),
        ([*LINES[:3], LINES[2], *LINES[3:]], "4:1: Payload-Oxum does not stand in its place"),
        ([*LINES[:-1], LINES[-1].rstrip("\n")], "8:1: is not Label: value"),
        ([LINES[0].replace("\n", "\r\n"), *LINES[1:]], "1:1: is not Label: value"),
        ([LINES[0].replace(": ", ":"), *LINES[1:]], "1:1: is not Label: value"),
        ([], "Preserve-Format is missing"),
    ],
)
def test_another_bag_info_is_refused(lines: list[str], problem: str) -> None:
    with pytest.raises(DocumentError) as caught:
        bag.read_bag_info("".join(lines).encode())
    assert any(problem in str(fault) for fault in caught.value.faults)
