"""PDF: pages as text and pixels, and the objects they are drawn from; dates and identifiers never decide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from preserve.comparators.extras import library
from preserve.comparators.leaves import Leaf, Limits, TooMuch, Unreadable
from preserve.comparators.making import kept, number, pixels, read_bytes, text, unreadable
from preserve.comparators.readers.pdf_objects import leaves_of_objects
from preserve.comparators.trial import survive

_SCALE = 2.0  # pixels per point: 144 per inch


class Pdf:
    """Pages (``page[1]:text``, ``page[1]:pixels``, ``page[1]:size`` in points) and objects (``object[12]:numbers``)."""

    name = "pdf"

    def sniff(self, head: bytes, name: str) -> int:
        """Sure by the mark, which may stand within the first kilobyte."""
        return 95 if head.startswith(b"%PDF-") else 60 if b"%PDF-" in head[:1024] else 0

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the leaves of every page and object.

        Raises:
            TooMuch: a limit was passed.
            Unreadable: the file is broken or locked by a password.
            MissingExtra: pypdfium2 is not installed.
        """
        survive(self.name, file, limits)
        return self.attempt(file, limits)

    def attempt(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield what may harm whoever reads it: for the other process (trial.py)."""
        return kept(_leaves(file, limits), limits)


def _leaves(file: Path, limits: Limits) -> Iterator[Leaf]:
    library("pypdfium2", "pdf")
    content = read_bytes(file, limits)
    yield from leaves_of_objects(content, limits)
    yield from _pages(content, limits)


def _pages(content: bytes, limits: Limits) -> Iterator[Leaf]:
    pdfium = library("pypdfium2", "pdf")
    try:
        document = pdfium.PdfDocument(content)
    except pdfium.PdfiumError as error:
        raise Unreadable(f"is no PDF that can be read: {error}") from error
    try:
        if len(document) > limits.members:
            raise TooMuch(f"more than {limits.members} pages")
        yield number("pages", len(document))
        yield text("metadata", repr(document.get_metadata_dict(skip_empty=True)), volatile=True)
        for place in range(len(document)):
            yield from _page(f"page[{place + 1}]", document, place, limits)
    except pdfium.PdfiumError as error:
        raise Unreadable(f"a page cannot be read: {error}") from error
    finally:
        document.close()


def _page(path: str, document: Any, place: int, limits: Limits) -> Iterator[Leaf]:
    page = document[place]
    try:
        width, height = page.get_size()
        yield number(f"{path}:size", [width, height])
        words = page.get_textpage()
        try:
            yield text(f"{path}:text", words.get_text_bounded())
        finally:
            words.close()
        if width * height * _SCALE**2 > limits.pixels:
            yield unreadable(f"{path}:pixels", f"more than {limits.pixels} pixels")
            return
        drawn = page.render(scale=_SCALE)
        try:
            yield pixels(f"{path}:pixels", np.array(drawn.to_numpy(), dtype=np.uint8))
        finally:
            drawn.close()
    finally:
        page.close()
