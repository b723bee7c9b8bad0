"""PNG, JPEG, GIF, TIFF and other images: pixels of every frame; texts inside never decide."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from preserve.comparators.extras import library
from preserve.comparators.leaves import Leaf, Limits, TooMuch, Unreadable
from preserve.comparators.making import kept, number, opaque, pixels, text
from preserve.comparators.trial import survive

_MARKS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
_FORMATS = ("PNG", "JPEG", "GIF", "TIFF", "WEBP")  # no format that Pillow gives to another program
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L")  # one channel of more than eight bits: numbers rather than pixels
_DRAWN = ("transparency", "icc_profile", "duration", "loop", "disposal", "background", "gamma", "srgb", "dpi")
_EIGHT = 8


class Image:
    """``pixels`` (of a film ``frame[1]:pixels``), what else decides how they look, and metadata."""

    name = "image"

    def sniff(self, head: bytes, name: str) -> int:
        """Sure by the first bytes."""
        webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
        return 95 if head.startswith(_MARKS) or webp else 0

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the leaves of every frame.

        Raises:
            TooMuch: a limit was passed.
            Unreadable: the file is broken or cut short.
            MissingExtra: Pillow is not installed.
        """
        survive(self.name, file, limits)
        return self.attempt(file, limits)

    def attempt(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield what may harm whoever reads it: for the other process (trial.py)."""
        return kept(_image(file, limits), limits)


def _image(file: Path, limits: Limits) -> Iterator[Leaf]:
    module = library("PIL.Image", "images")
    if file.stat().st_size > limits.bytes:
        raise TooMuch(f"longer than {limits.bytes} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of images above half of Pillow's limit; ours is checked below
            with module.open(file, formats=_FORMATS) as image:
                yield from _frames(image, limits)
                yield from _more_than_eight_bits(file, image)
    except module.DecompressionBombError as error:
        raise TooMuch(str(error)) from error
    except (TooMuch, Unreadable):
        raise
    # Pillow has no error of its own for damage: each decoder raises what it meets (OSError, SyntaxError, struct.error,
    # KeyError ...), others with each version. A slip of ours ends here too, as a file that never passes.
    except Exception as error:
        raise Unreadable(f"is no image that can be read: {error}") from error


def _frames(image: Any, limits: Limits) -> Iterator[Leaf]:
    count = getattr(image, "n_frames", 1)
    width, height = image.size
    if width * height * count > limits.pixels:
        raise TooMuch(f"{count} x {width} x {height} pixels, more than {limits.pixels}")
    yield text("format", f"{image.format}, frames: {count}")
    for place in range(count):
        image.seek(place)
        yield from _frame(f"frame[{place}]:" if count > 1 else "", image)


def _frame(path: str, image: Any) -> Iterator[Leaf]:
    if image.mode in _DEEP:
        yield number(f"{path}pixels", np.array(image))
    else:
        drawn = image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGBA")
        array = np.array(drawn, dtype=np.uint8)
        yield pixels(f"{path}pixels", array.reshape(*array.shape[:2], -1))
    for name, value in sorted(image.info.items(), key=lambda item: str(item[0])):
        if isinstance(value, bytes):
            yield opaque(f"{path}{name}", value) if name in _DRAWN else _metadata(path, name, value)
        else:
            yield text(f"{path}{name}", repr(value)) if name in _DRAWN else _metadata(path, name, value)


def _metadata(path: str, name: Any, value: Any) -> Leaf:
    return text(f"{path}{name}", value.hex() if isinstance(value, bytes) else str(value), volatile=True)


def _more_than_eight_bits(file: Path, image: Any) -> Iterator[Leaf]:
    """Pillow gives colours of eight bits: where the file has more, its bytes themselves have to be equal."""
    if image.mode in _DEEP:
        return
    with file.open("rb") as stream:
        head = stream.read(25)
    tags = getattr(image, "tag_v2", {})
    deep = image.format == "PNG" and head[24] > _EIGHT
    deep = deep or any(bits > _EIGHT for bits in np.atleast_1d(tags.get(258, 1)))
    if deep:
        yield opaque("file (more than eight bits per colour)", file.read_bytes())
