"""Numeric libraries are found in an image's layers: links, whiteouts, versions, and layers that nobody should read."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator

import pytest

from preserve.documents.record import Library
from preserve.stores.libraries import MAX_HEADER, MOST, PIECE, numeric_libraries

TRIPLET = "usr/lib/x86_64-linux-gnu"
GLIBC = b"\x7fELF...GNU C Library (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36.\nCopyright"
OPENBLAS = b"\x7fELF\0gotoblas_HASWELL\0gotoblas_ZEN\0gotoblas\0..OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH \0"


def layer(files: dict[str, bytes | str | None]) -> bytes:
    """A tar file: bytes are a file's, a text is what a link points to (``=X``: a hard link), ``None`` a folder."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                member.type = tarfile.LNKTYPE if content.startswith("=") else tarfile.SYMTYPE
                member.linkname = content.removeprefix("=")
            data = content if isinstance(content, bytes) else b""
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def found(*layers: dict[str, bytes | str | None]) -> list[tuple[str, str, str]] | None:
    libraries = numeric_libraries([[layer(files)] for files in layers])
    return None if libraries is None else [(one.name, one.version, one.file) for one in libraries]


DEBIAN: dict[str, bytes | str | None] = {
    f"{TRIPLET}/blas/libblas.so.3.11.0": b"reference",
    f"{TRIPLET}/blas/libblas.so.3": "libblas.so.3.11.0",
    f"{TRIPLET}/openblas-pthread/libopenblasp-r0.3.21.so": OPENBLAS,
    f"{TRIPLET}/openblas-pthread/libblas.so.3": b"a front of openblas",
    "etc/alternatives/libblas.so.3-x86_64-linux-gnu": f"/{TRIPLET}/openblas-pthread/libblas.so.3",
    f"{TRIPLET}/libblas.so.3": "/etc/alternatives/libblas.so.3-x86_64-linux-gnu",
    f"{TRIPLET}/libc.so.6": GLIBC,
}
OF_DEBIAN = [
    ("BLAS", "3.11.0", f"{TRIPLET}/blas/libblas.so.3.11.0"),
    ("BLAS", "3", f"{TRIPLET}/openblas-pthread/libblas.so.3"),
    ("OpenBLAS", "0.3.21", f"{TRIPLET}/openblas-pthread/libopenblasp-r0.3.21.so"),
    ("glibc", "2.36-9+deb12u14", f"{TRIPLET}/libc.so.6"),
    ("libblas.so.3", "", f"{TRIPLET}/openblas-pthread/libblas.so.3"),
]


class TestFinding:
    def test_debian_with_alternatives(self) -> None:
        assert found(DEBIAN) == OF_DEBIAN

    def test_what_libblas_is_follows_the_last_layer(self) -> None:
        other = {"etc/alternatives/libblas.so.3-x86_64-linux-gnu": f"/{TRIPLET}/blas/libblas.so.3"}
        libraries = found(DEBIAN, dict(other))
        assert libraries is not None
        assert ("libblas.so.3", "", f"{TRIPLET}/blas/libblas.so.3.11.0") in libraries

    def test_kernels(self) -> None:
        libraries = numeric_libraries([[layer({"opt/lib/libopenblas.so.0": OPENBLAS})]])
        assert libraries == (
            Library(name="OpenBLAS", version="0.3.21", file="opt/lib/libopenblas.so.0", kernels=("HASWELL", "ZEN")),
        )

    @pytest.mark.parametrize("before", [PIECE - 60, PIECE - 30, PIECE - 5, 2 * PIECE - 20])
    def test_texts_across_the_pieces_in_which_a_file_is_searched(self, before: int) -> None:
        libraries = numeric_libraries([[layer({"usr/lib/libopenblas.so.0": b"\1" * before + OPENBLAS})]])
        assert libraries is not None
        assert [(one.version, one.kernels) for one in libraries] == [("0.3.21", ("HASWELL", "ZEN"))]

    @pytest.mark.parametrize(
        ("name", "content", "expected"),
        [
            ("lib64/libc.so.6", b"GNU C Library (GNU libc) stable release version 2.34.", ("glibc", "2.34")),
            ("lib/libc-2.31.so", b"GNU C Library (Ubuntu GLIBC 2.31-0ubuntu9) stable release version 2.31.", None),
            ("lib/ld-musl-x86_64.so.1", b"\0musl libc\0\0" + b"1.2.4\0\0", ("musl", "1.2.4")),
            ("opt/lib/libmkl_core.so.2", b"", ("MKL", "2")),
            ("usr/lib/libblis.so.4", b"", ("BLIS", "4")),
            ("usr/lib/libatlas.so.3.10.3", b"", ("ATLAS", "3.10.3")),
            ("usr/lib/libopenblas.so", b"\x7fELF", ("OpenBLAS", "")),
            ("x/numpy.libs/libopenblas64_p-r0-15028c96.3.21.so", OPENBLAS, ("OpenBLAS", "0.3.21")),
        ],
    )
    def test_versions(self, name: str, content: bytes, expected: tuple[str, str] | None) -> None:
        assert found({name: content}) == [(*(expected or ("glibc", "2.31-0ubuntu9")), name)]

    def test_a_hard_link_is_the_same_library(self) -> None:
        libraries = found({f"{TRIPLET}/libc.so.6": GLIBC, "srv/libc.so.6": f"={TRIPLET}/libc.so.6"})
        assert libraries == [("glibc", "2.36-9+deb12u14", f"{TRIPLET}/libc.so.6")]

    def test_names_of_any_bytes(self) -> None:
        """They come into a document."""
        assert found({"caf\udce9/libopenblas.so": b""}) == [("OpenBLAS", "", "caf\\udce9/libopenblas.so")]

    def test_more_than_anybody_has(self) -> None:
        many: dict[str, bytes | str | None] = {f"{number}/libblis.so": b"" for number in range(MOST + 9)}
        libraries = found(many)
        assert libraries is not None
        assert len(libraries) == MOST

    def test_nothing(self) -> None:
        assert found({"bin/sh": b"#!", "usr/share/libopenblas.txt": b"OpenBLAS 0.3.21 "}) == []


class TestLayers:
    @pytest.mark.parametrize("whiteout", [".wh.libc.so.6", ".wh..wh..opq"])
    def test_what_a_layer_removes(self, whiteout: str) -> None:
        libraries = found(DEBIAN, {f"{TRIPLET}/{whiteout}": b""})
        assert libraries is not None
        assert "glibc" not in [name for name, _, _ in libraries]
        assert ("OpenBLAS" in [name for name, _, _ in libraries]) == (whiteout == ".wh.libc.so.6")

    def test_all_that_was_there(self) -> None:
        assert found(DEBIAN, {".wh..wh..opq": b"", "lib/libc.so.6": GLIBC}) == [
            ("glibc", OF_DEBIAN[3][1], "lib/libc.so.6")
        ]

    def test_a_removed_folder(self) -> None:
        assert found(DEBIAN, {"usr/.wh.lib": b""}) == []

    def test_a_whiteout_is_about_the_layers_below(self) -> None:
        assert found({f"{TRIPLET}/libc.so.6": GLIBC, f"{TRIPLET}/.wh..wh..opq": b""}) == [OF_DEBIAN[3]]

    def test_what_a_layer_replaces(self) -> None:
        newer = GLIBC.replace(b"2.36-9+deb12u14", b"2.41-12")
        assert found({"lib/libc.so.6": GLIBC}, {"./lib/libc.so.6": newer}) == [("glibc", "2.41-12", "lib/libc.so.6")]
        assert found({"lib/libc.so.6": GLIBC}, {"lib/libc.so.6": "elsewhere"}) == []
        assert found({"lib/libc.so.6": GLIBC}, {"lib": b"a file"}) == []

    def test_packed_layers(self) -> None:
        libraries = numeric_libraries([[gzip.compress(layer(DEBIAN))]])
        assert libraries is not None
        assert [(one.name, one.version, one.file) for one in libraries] == OF_DEBIAN


class TestLayersThatCannotBeRead:
    """They are no reason to refuse an image that an engine takes: nothing is said of it then."""

    @pytest.mark.parametrize(
        "data", [b"\x28\xb5\x2f\xfd rest", b"\x1f\x8b\x08 cut", gzip.compress(layer(DEBIAN))[:-9], b"no tar" * 200]
    )
    def test_none(self, data: bytes) -> None:
        assert numeric_libraries([[data]]) is None

    def test_headers_beyond_all_bounds(self) -> None:
        """A name as long as an extended header claims would be held in memory."""
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(tarfile.TarInfo("a" * (2 * MAX_HEADER)))
        assert numeric_libraries([[stream.getvalue()]]) is None

    def test_a_blob_is_read_to_its_end(self) -> None:
        """Its digest is checked there."""
        ended = []

        def pieces() -> Iterator[bytes]:
            yield layer(DEBIAN)
            yield b"\0" * 10240
            ended.append(True)

        assert numeric_libraries([pieces()])
        assert ended

    def test_links_in_a_circle(self) -> None:
        assert found({"usr/lib/libblas.so.3": "liblapack.so.3", "usr/lib/liblapack.so.3": "libblas.so.3"}) == []
