"""The bytes of what archives have for readers belong to the format (docs/decisions/0004)."""

from __future__ import annotations

from small_archive import contents

from preserve.digest import Digest
from preserve.documents.archive import FORMAT, Contents
from preserve.operations.derived import payload_files, tag_files

FROZEN = {
    "preserve/archive/1": {
        "CITATION.cff": "71514fb8d79e",
        "README.md": "41746b229a2a",
        "bag-info.txt": "ae977852d6e0",
        "bagit.txt": "1712ecfb074b",
        "data/replay.sh": "5c3a12821480",
        "manifest-sha256.txt": "bbae6b6b1ff8",
        "ro-crate-metadata.json": "75735ad4e581",
        "ro-crate-preview.html": "6443fb5e989a",
    }
}


LIGHT = {  # what is other where two products were left out, one of them a result
    "preserve/archive/1": {
        "README.md": "d101865c1620",
        "bag-info.txt": "c493902602f6",
        "manifest-sha256.txt": "ebd91218ab65",
        "ro-crate-metadata.json": "815f9ab56c53",
        "ro-crate-preview.html": "6ef347b802a5",
    }
}


def digests(small: Contents) -> dict[str, str]:
    made = {**payload_files(small, ()), **tag_files(small)}
    return {name: Digest.of(data).short for name, data in made.items()}


def test_the_derived_files_of_a_format_never_change() -> None:
    assert digests(contents()) == FROZEN[FORMAT], (
        "archives of this format would now be called damaged: give the change a new FORMAT and keep the old renderer"
    )


def test_fingerprints_and_products_that_were_left_out_belong_to_it() -> None:
    light = digests(contents(without_products=("results/mass.json", "counts/end cap.txt")))
    assert light == FROZEN[FORMAT] | LIGHT[FORMAT]
