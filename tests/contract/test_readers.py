"""What every reader of results keeps to, whatever file it is given."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from preserve.comparators.leaves import Limits, MissingExtra, TooMuch, Unreadable
from preserve.comparators.readers import BUILT_INS, reader

NOISE = random.Random(1).randbytes(5000)  # noqa: S311  (the same noise each time)
BEGINNINGS = {
    "root": b"root\x00\x00\xf6\x24",
    "hdf5": b"\x89HDF\r\n\x1a\n",
    "parquet": b"PAR1",
    "feather": b"ARROW1\0\0",
    "png": b"\x89PNG\r\n\x1a\n",
    "jpeg": b"\xff\xd8\xff\xe0",
    "pdf": b"%PDF-1.4\n",
    "ps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "svg": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">',
    "yoda": b"BEGIN YODA_HISTO1D_V2 /a\n",
    "hepmc": b"HepMC::Version 3.02\nHepMC::Asciiv3-START_EVENT_LISTING\n",
    "lhe": b'<LesHouchesEvents version="3.0">\n',
    "zip": b"PK\x03\x04",
    "tar": b"a".ljust(257, b"\0") + b"ustar\x0000",
    "gzip": b"\x1f\x8b\x08\x00",
    "bzip2": b"BZh9",
    "xz": b"\xfd7zXZ\x00",
    "npy": b"\x93NUMPY\x01\x00\x76\x00",
    "json": b'{"channels": [',
    "yaml": b"---\n",
    "text": b"fine\n",
    "nothing": b"",
}
LIMITS = Limits(bytes=1 << 20, members=100, leaves=1000, pixels=10_000, depth=5)


@pytest.mark.parametrize("name", BUILT_INS)
def test_a_reader_has_the_name_it_is_found_by(name: str) -> None:
    assert reader(name).name == name
    assert reader(name) is reader(name)


@pytest.mark.parametrize("name", BUILT_INS)
def test_sniffing_is_a_number_for_any_beginning(name: str) -> None:
    for beginning in BEGINNINGS.values():
        for rest in (b"", NOISE, b"\n" * 10):
            for ending in ("", ".root", ".json", ".csv", ".png", ".tar.gz", ".yaml"):
                assert 0 <= reader(name).sniff(beginning + rest, f"file{ending}") <= 100


def test_somebody_takes_any_file() -> None:
    for beginning in BEGINNINGS.values():
        assert max(reader(name).sniff(beginning + NOISE, "file") for name in BUILT_INS) > 0


@pytest.mark.parametrize(
    "rest", [b"", NOISE, NOISE[:20], b"\n", b"0 " * 100], ids=["end", "noise", "short", "line", "0"]
)
@pytest.mark.parametrize("name", BUILT_INS)
def test_what_is_not_of_the_format_is_refused_in_words(name: str, rest: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    for beginning in BEGINNINGS.values():
        file.write_bytes(beginning + rest)
        try:
            found = list(reader(name).leaves(file, LIMITS))
        except (Unreadable, TooMuch, MissingExtra) as refusal:
            assert str(refusal)
        else:
            assert len(found) <= LIMITS.leaves + 1
            assert all(leaf.path is not None and leaf.kind for leaf in found)
