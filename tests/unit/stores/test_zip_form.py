"""The headers of archives, against those that Python's zipfile makes, and their order."""

from __future__ import annotations

import struct
import zipfile
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preserve.documents.archive import TAG_FILES, TAG_MANIFEST
from preserve.stores.zip_form import (
    CENTRAL_SIZE,
    FULL_32,
    LONGEST_END,
    End,
    Entry,
    central_header,
    difference,
    end_records,
    laid_out,
    lengths,
    local_header,
    name_problems,
    order,
    read_central,
    read_end,
)

SIZES = st.one_of(st.integers(0, 9), st.integers(FULL_32 - 2, FULL_32 + 2), st.integers(0, 1 << 62))
ENTRIES = st.builds(
    Entry,
    name=st.sampled_from(["data/a", "README.md", "data/x/long-" + "n" * 200]),
    size=SIZES,
    executable=st.booleans(),
    crc=st.integers(0, FULL_32),
    offset=SIZES,
)


@given(entry=ENTRIES)
def test_local_headers_are_those_of_zipfile(entry: Entry) -> None:
    theirs = zipfile.ZipInfo(entry.name, (1980, 1, 1, 0, 0, 0))
    theirs.CRC, theirs.compress_size, theirs.file_size = entry.crc, entry.size, entry.size
    long = entry.size >= FULL_32
    with patch.object(zipfile, "ZIP64_LIMIT", FULL_32 - 1):  # zipfile's own is half of what the format allows
        expected = bytearray(theirs.FileHeader(zip64=long))
    if entry.offset >= FULL_32:
        struct.pack_into("<H", expected, 4, 45)  # we say the same in both headers
    assert local_header(entry) == bytes(expected)
    assert entry.start == entry.offset + len(expected)


@given(entry=ENTRIES)
def test_a_central_header_is_read_as_it_was_written(entry: Entry) -> None:
    data = central_header(entry)
    fixed, (name, extra) = data[:CENTRAL_SIZE], lengths(data[:CENTRAL_SIZE])
    assert CENTRAL_SIZE + name + extra == len(data)
    assert read_central(fixed, entry.name, data[CENTRAL_SIZE + name :], offset=entry.offset) == entry


@given(count=st.one_of(st.integers(0, 3), st.integers(0xFFFE, 0x10001)), size=SIZES, offset=SIZES)
def test_an_end_is_read_as_it_was_written(count: int, size: int, offset: int) -> None:
    end = End(count=count, directory_size=size, directory_offset=offset)
    data = end_records(end)
    assert read_end((b"\0" * LONGEST_END + data)[-LONGEST_END:]) == end
    long = count >= 0xFFFF or size >= FULL_32 or offset >= FULL_32
    assert len(data) == (LONGEST_END if long else 22)


@pytest.mark.parametrize("tail", [b"", b"PK\x05\x06", b"\0" * 22, b"\0" * LONGEST_END])
def test_what_is_no_end_is_none(tail: bytes) -> None:
    assert read_end(tail) is None


def test_entries_stand_one_behind_the_other() -> None:
    first, second, third = laid_out([("data/a", 5, False), ("data/b", FULL_32, True), ("data/c", 0, False)])
    assert (first.offset, first.start, first.end) == (0, 36, 41)
    assert (second.offset, second.start) == (41, 41 + 36 + 20)
    assert third.offset == second.end == second.start + FULL_32


def test_the_order_is_data_then_tag_files_then_their_manifest_then_signatures() -> None:
    names = ["data/B", "data/a", "data/a/b", *TAG_FILES, TAG_MANIFEST, "signatures/a", "signatures/b"]
    shuffled = names[::-1]
    assert sorted(shuffled, key=order) == names
    assert list(name_problems(names)) == [("data/a", "is a file, and the folder of data/a/b")]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["data/a", "data/a"], "stands twice"),
        (["data/A", "data/a"], "differs from data/A only by case"),
        (["data/b", "data/a"], "does not stand in its place"),
        (["README.md", "data/a"], "does not stand in its place"),
        (["bag-info.txt", "README.md"], "does not stand in its place"),
        (["signatures/a", TAG_MANIFEST], "does not stand in its place"),
        (["data/a", "evil.txt"], "is not a file that archives have"),
        (["data/a", "data"], "is not a file that archives have"),
        (["data/../a"], "its name has a part . or .."),
        (["data//a"], "its name has characters"),
        (["data/"], "its name has characters"),
    ],
)
def test_a_name_that_archives_do_not_have(names: list[str], problem: str) -> None:
    assert [found for _, found in name_problems(names) if found.startswith(problem)]


@pytest.mark.parametrize(
    ("at", "field"),
    [(0, "signature"), (4, "version needed"), (6, "flags"), (8, "method"), (14, "CRC-32"), (28, "extra")],
)
def test_a_difference_names_the_field(at: int, field: str) -> None:
    expected = local_header(Entry(name="data/a", size=5))
    found = bytearray(expected)
    found[at] ^= 1
    assert field in difference(expected, bytes(found))[0]


def test_a_difference_in_the_name_is_shown_without_its_control_characters() -> None:
    expected = central_header(Entry(name="data/a", size=5))
    field, ours, theirs = difference(expected, expected[:-1] + b"\x1b")
    assert field == "name or extra field"
    assert (ours, theirs) == ("b'data/a'", "b'data/\\x1b'")
