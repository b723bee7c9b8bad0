"""Figures by matplotlib and Pillow: what is changed in them, and the verdict that they must get."""

from __future__ import annotations

import datetime
import re
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from pairs import judged, loosened
from PIL import Image, PngImagePlugin

from preserve.comparators.leaves import Limits
from preserve.documents.policy import Pixels, Policy

EQUIVALENT, DIFFERENT, UNCOMPARABLE = "equivalent", "different", "uncomparable"
FORMATS = ("svg", "pdf", "eps", "ps", "png", "jpg", "tiff", "gif", "webp")
DRAWN = ("svg", "pdf", "eps", "ps")  # by lines, not by pixels: they show changes smaller than a pixel
METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Creator": "another program", "Keywords": ["another"]},
    "pdf": {"Title": "another", "Producer": "another program", "CreationDate": datetime.datetime(2001, 1, 1)},
    "eps": {"Creator": "another program"},
    "png": {"Title": "another", "Software": "another program"},
}


@dataclass(frozen=True, kw_only=True)
class Content:
    """What is drawn."""

    bins: Any = field(default_factory=lambda: np.array([3.0, 7.0, 12.0, 5.0]))
    error: float = 0.8
    x_title: str = "m [GeV]"
    color: str = "C0"
    points: int = 3
    grid: bool = False
    metadata: dict[str, Any] | None = None


BASE = Content()


def write(content: Content, format_: str) -> Callable[[Path], None]:
    def fill(path: Path) -> None:
        figure = Figure(figsize=(3, 2), dpi=80, layout="constrained")
        axes = figure.subplots()
        axes.stairs(content.bins, [0, 1, 2, 3, 4], color=content.color)
        axes.errorbar([0.5], [4.0], yerr=content.error)
        axes.plot(range(content.points), range(content.points), "o", clip_on=True)
        axes.imshow(np.arange(4.0).reshape(2, 2), extent=(2, 3, 2, 4))
        axes.set_xlim(0, 4)
        axes.set_ylim(0, 14)
        axes.set_xlabel(content.x_title)
        axes.grid(content.grid)
        figure.savefig(path, format=format_, metadata=content.metadata)

    return fill


MUTATIONS: dict[str, Content] = {
    "one bin content": replace(BASE, bins=np.array([3.0, 7.0, 11.5, 5.0])),
    "one error": replace(BASE, error=1.1),
    "the title of an axis": replace(BASE, x_title="m [MeV]"),
    "a colour": replace(BASE, color="C1"),
    "a point less": replace(BASE, points=2),
    "a grid": replace(BASE, grid=True),
}


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutations(mutation: str, format_: str) -> None:
    name = f"figure.{format_}"
    assert judged(name, write(BASE, format_), write(MUTATIONS[mutation], format_)).verdict == DIFFERENT


@pytest.mark.parametrize("format_", DRAWN)
def test_a_change_smaller_than_a_pixel(format_: str) -> None:
    found = replace(BASE, bins=np.array([3.0, 7.0, 12.012, 5.0]))
    assert judged(f"figure.{format_}", write(BASE, format_), write(found, format_)).verdict == DIFFERENT


@pytest.mark.parametrize("format_", FORMATS)
def test_the_same_content_at_another_time(format_: str) -> None:
    def later(path: Path) -> None:
        time.sleep(1.1)
        write(BASE, format_)(path)

    assert judged(f"figure.{format_}", write(BASE, format_), later).passed


@pytest.mark.parametrize("format_", METADATA)
def test_metadata(format_: str) -> None:
    result = judged(
        f"figure.{format_}", write(BASE, format_), write(replace(BASE, metadata=METADATA[format_]), format_)
    )
    assert result.verdict == EQUIVALENT


@pytest.mark.parametrize("format_", ["svg", "pdf"])
def test_without_a_date(format_: str) -> None:
    dateless = replace(BASE, metadata={"Date" if format_ == "svg" else "CreationDate": None})
    assert judged(f"figure.{format_}", write(BASE, format_), write(dateless, format_)).verdict == EQUIVALENT


def test_a_tolerance_on_lines() -> None:
    found = replace(BASE, bins=BASE.bins * (1 + 1e-5))
    policy = loosened("**/*@*", atol=0.01)
    assert judged("figure.svg", write(BASE, "svg"), write(found, "svg"), policy).verdict == "tolerated"
    assert judged("figure.svg", write(BASE, "svg"), write(MUTATIONS["a colour"], "svg"), policy).verdict == DIFFERENT


def test_pixels_within_the_policy() -> None:
    def dot(level: int) -> Callable[[Path], None]:
        picture = np.full((40, 50, 3), 200, np.uint8)
        picture[3, 4] = level
        return lambda path: Image.fromarray(picture).save(path)

    policy = Policy(require="tolerated", pixels=Pixels(level=8, fraction=1e-4), because="fonts differ")
    assert judged("dot.png", dot(200), dot(205), policy).verdict == "tolerated"
    assert judged("dot.png", dot(200), dot(5), policy).verdict == DIFFERENT


class TestSvg:
    """What stands in an SVG, word by word."""

    TEXT = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><title>h\nCreationDate: Mon</title>'
        '<defs><path id="m0123456789" d="M1 2L3-4.5"/></defs><g style="fill: red"><rect x="1"/><circle r="2"/>'
        '<use href="#m0123456789"/><text>a<tspan>b</tspan>c</text></g></svg>'
    )
    CHANGES = (
        ("M1 2L3-4.5", "M1 2L3-4.6", DIFFERENT),
        ("M1 2L3-4.5", "M1 2l3-4.5", DIFFERENT),
        ("M1 2L3-4.5", "M 1,2 L 3,-4.5", EQUIVALENT),
        ("red", "blue", DIFFERENT),
        ('<rect x="1"/><circle r="2"/>', '<circle r="2"/><rect x="1"/>', DIFFERENT),
        ("a<tspan>b</tspan>c", "ac<tspan>b</tspan>", DIFFERENT),
        ("<tspan>b</tspan>", "<tspan>d</tspan>", DIFFERENT),
        ("m0123456789", "mfedcba9876", EQUIVALENT),
        ('href="#m0123456789"', 'href="#mfedcba9876"', DIFFERENT),
        ("Mon", "Tue", EQUIVALENT),
        ("<title>h", "<title>g", DIFFERENT),
        ('<rect x="1"/>', "", DIFFERENT),
        ("<defs>", "<!-- a comment --><defs>", EQUIVALENT),
    )

    @pytest.mark.parametrize(("old", "new", "verdict"), CHANGES)
    def test_changes(self, old: str, new: str, verdict: str) -> None:
        assert old in self.TEXT
        assert judged("a.svg", self.TEXT, self.TEXT.replace(old, new)).verdict == verdict

    def test_a_long_name_above_many_elements(self) -> None:
        long = "g" * 3_000_000
        hostile = f"<svg><{long}>{'<a/>' * 1000}</{long}></svg>"
        assert judged("a.svg", self.TEXT, hostile).verdict == UNCOMPARABLE

    @pytest.mark.parametrize(
        "hostile",
        [
            '<!DOCTYPE svg [<!ENTITY a "b">]><svg>&a;</svg>',
            '<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]><svg>&a;</svg>',
            "<svg>" + "<g>" * 5000 + "</g>" * 5000 + "</svg>",
            "<svg><g></svg>",
            "<svg>",
        ],
    )
    def test_hostile_files_are_refused(self, hostile: str) -> None:
        assert judged("a.svg", self.TEXT, hostile).verdict == UNCOMPARABLE


class TestPostScript:
    """What stands in PostScript."""

    TEXT = "%!PS-Adobe-3.0\n%%CreationDate: Mon\n%%EndComments\n%%Page: 1 1\n1.0 2 moveto (1.00) show <0AFF> show\n"
    CHANGES = (
        ("1.0 2 moveto", "1.1 2 moveto", DIFFERENT),
        ("1.0 2 moveto", "1.00 2 moveto", EQUIVALENT),
        ("1.0 2 moveto", "2 1.0 moveto", DIFFERENT),
        ("(1.00)", "(1.0)", DIFFERENT),
        ("<0AFF>", "<0BFF>", DIFFERENT),
        ("moveto", "lineto", DIFFERENT),
        ("Mon", "Tue", EQUIVALENT),
    )

    @pytest.mark.parametrize(("old", "new", "verdict"), CHANGES)
    def test_changes(self, old: str, new: str, verdict: str) -> None:
        assert old in self.TEXT
        assert judged("a.ps", self.TEXT, self.TEXT.replace(old, new)).verdict == verdict


def picture(**options: Any) -> Callable[[Path], None]:
    values = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    return lambda path: Image.fromarray(values).save(path, **options)


class TestImages:
    """Pixels of any depth, films, and what is no image."""

    def test_compression_and_texts_do_not_matter(self) -> None:
        noted = PngImagePlugin.PngInfo()
        noted.add_text("Comment", "made on a Monday")
        other = picture(compress_level=0, pnginfo=noted)
        assert judged("a.png", picture(), other).verdict == EQUIVALENT

    @pytest.mark.parametrize("dtype", ["u2", "i4", "f4"])
    def test_deep_pixels_are_numbers(self, dtype: str) -> None:
        values = np.full((3, 3), 1000, dtype)
        other = values.copy()
        other[1, 1] = 1001
        fills = [lambda path, v=v: Image.fromarray(v).save(path) for v in (values, other)]
        assert judged("a.tiff", *fills).verdict == DIFFERENT

    def test_colours_of_sixteen_bits_are_not_rounded(self) -> None:
        def png(low: int) -> bytes:
            def chunk(kind: bytes, data: bytes) -> bytes:
                check = zlib.crc32(kind + data).to_bytes(4, "big")
                return len(data).to_bytes(4, "big") + kind + data + check

            row = b"\0" + bytes([100, low, 100, 0, 100, 0])
            head = chunk(b"IHDR", (1).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0]))
            return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")

        assert judged("a.png", png(1), png(2)).verdict == DIFFERENT

    def test_every_frame_of_a_film(self) -> None:
        frames = [Image.new("RGB", (5, 5), color) for color in ("red", "green", "blue")]

        def film(*shown: int, duration: int = 100) -> Callable[[Path], None]:
            first, *rest = [frames[place] for place in shown]
            return lambda path: first.save(path, save_all=True, append_images=rest, duration=duration, loop=0)

        assert judged("a.gif", film(0, 1, 2), film(0, 2, 1)).verdict == DIFFERENT
        assert judged("a.gif", film(0, 1, 2), film(0, 1)).verdict == DIFFERENT
        assert judged("a.gif", film(0, 1), film(0, 1, duration=200)).verdict == DIFFERENT

    def test_more_pixels_than_allowed(self) -> None:
        result = judged(
            "a.png", picture(), lambda path: Image.new("RGB", (300, 300)).save(path), limits=Limits(pixels=99)
        )
        assert result.verdict == UNCOMPARABLE

    def test_a_huge_image_of_nothing(self) -> None:
        def huge(path: Path) -> None:
            Image.new("1", (10, 10)).save(path)
            content = bytearray(path.read_bytes())
            content[16:24] = (1 << 30).to_bytes(4, "big") * 2
            content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
            path.write_bytes(content)

        assert judged("a.png", picture(), huge).verdict == UNCOMPARABLE


@pytest.mark.parametrize("format_", ["pdf", "png", "jpg", "tiff", "gif"])
def test_cut_short(format_: str) -> None:
    def cut(path: Path) -> None:
        write(BASE, format_)(path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])

    assert judged(f"figure.{format_}", write(BASE, format_), cut).passed is False


class TestPdf:
    """What stands in a PDF."""

    def test_a_stream_that_unpacks_to_much_more(self, tmp_path: Path) -> None:
        write(BASE, "pdf")(tmp_path / "a.pdf")
        packed = zlib.compress(bytes(200_000_000), 9)
        head = b"\n99 0 obj\n<< /Filter /FlateDecode /Length %d >>\nstream\n" % len(packed)
        bomb = (tmp_path / "a.pdf").read_bytes() + head + packed + b"\nendstream\nendobj\n"
        result = judged("a.pdf", write(BASE, "pdf"), bomb, limits=Limits(ratio=100))
        assert result.verdict == UNCOMPARABLE
        assert "unpack" in str(result.facts)

    def test_another_compression(self) -> None:
        with mpl.rc_context({"pdf.compression": 1}):
            quick = self.written()
        assert judged("a.pdf", write(BASE, "pdf"), quick).verdict == EQUIVALENT

    @staticmethod
    def written() -> bytes:
        with tempfile.TemporaryDirectory() as scratch:
            write(BASE, "pdf")(Path(scratch) / "a.pdf")
            return (Path(scratch) / "a.pdf").read_bytes()

    def test_a_page_of_another_size(self) -> None:
        content = self.written()
        found = re.sub(rb"/MediaBox \[ 0 0 216 144 \]", b"/MediaBox [ 0 0 217 144 ]", content)
        assert found != content
        assert judged("a.pdf", content, found).verdict == DIFFERENT

    def test_something_that_is_not_drawn_is_not_passed_over(self) -> None:
        content = self.written()
        more = content.replace(b"\nxref\n", b"\n98 0 obj\n<< /Hidden (text) >>\nendobj\nxref\n")
        assert more != content
        assert judged("a.pdf", content, more).verdict == DIFFERENT
